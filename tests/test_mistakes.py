"""Mistaken calls: one clear line on stderr, exit code 4, and no report of an earlier run stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from kmm_preflight.entry.places import REPORTS
from tests.demo import DEMO, GREEN, RELEASE, ROOT
from tests.runs import run_preflight

PYTEST = (sys.executable, "-P", "-m", "pytest")
COMMAND = (sys.executable, "-P", "-m", "kmm_preflight")
MODULES = ROOT / "demo/modules"


@dataclass(frozen=True)
class Place:
    """A folder of a user, with the reports of a green run."""

    folder: Path
    """Current folder of the calls; it is no clone."""
    artifacts: Path
    """Folder of the reports."""

    def call(
        self, program: Sequence[str], *options: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with little of this environment."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PREFLIGHT_PROOF": "path", **(env or {})}
        return subprocess.run(
            [*program, *options],
            cwd=cwd or self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def reports(self) -> dict[str, str]:
        """Return the reports by file name."""
        return {name: (self.artifacts / name).read_text() for name in REPORTS if (self.artifacts / name).exists()}


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the reports of a green run."""
    folder = tmp_path_factory.mktemp("green")
    run = run_preflight(folder, *DEMO, GREEN)
    assert run.returncode == 0, run.output
    return folder / "artifacts"


@pytest.fixture
def place(tmp_path: Path, green: Path) -> Iterator[Place]:
    folder = tmp_path / "user"
    folder.mkdir()
    shutil.copytree(green, folder / "artifacts")
    shutil.copytree(MODULES, folder / "modules")
    place = Place(folder, folder / "artifacts")
    assert set(place.reports()) == set(REPORTS)
    yield place
    assert [name for name, text in place.reports().items() if "2 Modules" in text] == []


def refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    """Assert that a call ended with this line, and no other, on stderr."""
    assert done.returncode == 4, done.stdout + done.stderr
    assert [line for line in done.stderr.splitlines() if line] == [f"ERROR: {sentence}"]
    assert "Traceback" not in done.stdout


def test_pytest_outside_of_a_clone_says_the_command(place: Place) -> None:
    options = [f"--release-image={RELEASE}", "--manifests=modules"]
    refused(
        place.call(PYTEST, *options),
        f"--release-image is an option of kmm-preflight, not of pytest. Type: kmm-preflight {' '.join(options)}",
    )
    assert place.reports() == {}


def test_the_artifact_folder_that_is_named_has_no_report_left(place: Place, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    option = f"--artifact-dir={place.artifacts}"
    done = place.call(PYTEST, option, cwd=tmp_path / "elsewhere")
    refused(done, f"--artifact-dir is an option of kmm-preflight, not of pytest. Type: kmm-preflight {option}")
    assert place.reports() == {}


def test_a_value_after_a_space_that_leads_pytest_out_of_the_clone(place: Place) -> None:
    modules = place.folder / "modules"
    done = place.call(PYTEST, *DEMO, "--manifests", str(modules), cwd=ROOT, env={"ARTIFACT_DIR": str(place.artifacts)})
    refused(
        done,
        f"pytest takes {modules} for a test. Type --manifests={modules}, or use kmm-preflight instead of pytest.",
    )
    assert place.reports() == {}


def test_a_misspelt_option_with_a_value_that_leads_pytest_out_of_the_clone(place: Place) -> None:
    modules = str(place.folder / "modules")
    done = place.call(PYTEST, *DEMO, "--manifest", modules, cwd=ROOT, env={"ARTIFACT_DIR": str(place.artifacts)})
    refused(done, "unknown option --manifest. Did you mean --manifests?")
    assert place.reports() == {}


CALLS = pytest.mark.parametrize(
    ("program", "cwd"), [(PYTEST, ROOT), (COMMAND, None)], ids=["pytest in a clone", "command"]
)


@CALLS
@pytest.mark.parametrize(
    ("options", "variables", "sentence"),
    [
        ((*DEMO, "docs"), {}, "docs is not a test of the validation. To validate the Modules in a file or folder, "
         "write --manifests=docs."),
        ((*DEMO, "--manifest={modules}"), {}, "unknown option --manifest. Did you mean --manifests?"),
        ((*DEMO, "--no-such-option"), {}, "unknown option --no-such-option. kmm-preflight --help lists the options."),
        ((*DEMO, "--manifests={modules}"), {"PYTEST_ADDOPTS": "--cov=x"}, "unknown option --cov in PYTEST_ADDOPTS. "
         "kmm-preflight --help lists the options."),
        ((*DEMO, "--manifests={modules}"), {"PREFLIGHT_KERNELS": "6.1.0"}, "PREFLIGHT_KERNELS: unknown environment "
         "variable. Did you mean PREFLIGHT_KERNEL?"),
    ],
    ids=["folder for a test", "misspelt option", "unknown option", "PYTEST_ADDOPTS", "misspelt variable"],
)  # fmt: skip
def test_reports_say_what_was_wrong(
    place: Place,
    program: Sequence[str],
    cwd: Path | None,
    options: Sequence[str],
    variables: Mapping[str, str],
    sentence: str,
) -> None:
    modules = place.folder / "modules"
    given = [option.format(modules=modules) for option in options]
    done = place.call(program, *given, cwd=cwd, env={"ARTIFACT_DIR": str(place.artifacts), **variables})
    refused(done, sentence.format(modules=modules))
    reports = place.reports()
    assert set(reports) == set(REPORTS)
    assert sentence.format(modules=modules) in reports["preflight.json"]


@CALLS
def test_a_manifest_without_its_option(place: Place, program: Sequence[str], cwd: Path | None) -> None:
    manifest = place.folder / "modules/hello.yaml"
    done = place.call(program, *DEMO, str(manifest), cwd=cwd, env={"ARTIFACT_DIR": str(place.artifacts)})
    refused(
        done,
        f"{manifest} is not a test of the validation. To validate the Modules in a file or folder, write "
        f"--manifests={manifest}.",
    )


@CALLS
def test_a_call_without_options(place: Place, program: Sequence[str], cwd: Path | None) -> None:
    done = place.call(program, cwd=cwd, env={"ARTIFACT_DIR": str(place.artifacts)})
    assert done.returncode == 4
    assert "--release-image" in done.stderr
    assert set(place.reports()) == set(REPORTS)


@CALLS
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--manifests",), "--manifests: the value is missing, expected PATH"),
        (("--release-image", "--manifests=modules"), "--release-image: the value is missing, expected REF"),
        (("-manifests=modules",), "unknown option -manifests. Did you mean --manifests?"),
        (("-release-image=x",), "unknown option -release-image. Did you mean --release-image?"),
    ],
    ids=["no value at the end", "no value", "one dash", "one dash that pytest reads as -r"],
)
def test_a_mistyped_option(
    place: Place, program: Sequence[str], cwd: Path | None, options: Sequence[str], sentence: str
) -> None:
    done = place.call(program, *DEMO, *options, cwd=cwd, env={"ARTIFACT_DIR": str(place.artifacts)})
    refused(done, sentence)
    assert place.reports() == {}


def test_a_bare_pytest_below_a_clone_is_a_validation(place: Place) -> None:
    done = place.call(PYTEST, "-p", "no:cacheprovider", cwd=ROOT / "docs", env={"ARTIFACT_DIR": str(place.artifacts)})
    assert done.returncode == 4, done.stdout + done.stderr
    assert "--release-image" in done.stderr
    assert set(place.reports()) == set(REPORTS)


def test_a_misspelt_subcommand_is_no_run(tmp_path: Path) -> None:
    refused(Place(tmp_path, tmp_path).call(COMMAND, "explian"), "unknown subcommand explian. Did you mean explain?")


def test_an_unknown_subcommand_is_not_a_test(place: Place) -> None:
    done = place.call(COMMAND, "verify")
    refused(
        done,
        "verify is not a test of the validation. To validate the Modules in a file or folder, write "
        "--manifests=verify.",
    )


@pytest.mark.parametrize("names", [("docs",), ("docs", ".."), (".", "."), (".", "preflight_tests/test_module.py")])
def test_pytest_validates_in_a_clone_and_below(tmp_path: Path, names: tuple[str, ...]) -> None:
    options = [*DEMO, GREEN, f"--artifact-dir={tmp_path}", "-n0", "-p", "no:cacheprovider", *names[1:]]
    done = Place(tmp_path, tmp_path).call(PYTEST, *options, cwd=ROOT / names[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 Modules (2 Module and kernel pairs)" in done.stdout
    assert "2 passed, 4 skipped" in done.stdout


OTHER_CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--kubeconfig")

def pytest_configure(config):
    assert config.getoption("--kubeconfig") in (None, "x")
"""


@pytest.mark.parametrize("options", [(), ("--kubeconfig=x",), ("--kubeconfig", "x")], ids=" ".join)
def test_another_project_may_have_options_of_the_same_name(
    tmp_path: Path, green: Path, options: tuple[str, ...]
) -> None:
    shutil.copytree(green, tmp_path / "artifacts")
    (tmp_path / "conftest.py").write_text(OTHER_CONFTEST)
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    place = Place(tmp_path, tmp_path / "artifacts")
    done = place.call(PYTEST, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed in" in done.stdout, "no warnings"
    assert set(place.reports()) == set(REPORTS)
