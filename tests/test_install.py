"""The wheel: what it holds, and the command that it installs, in the folder of another pytest project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kmm_preflight.entry.places import REPORTS
from tests.demo import DEMO, ROOT
from tests.real.kubernetes.binaries import assets
from tests.real.requirement import need
from tests.wheel import build_sdist, build_wheel

PATIENCE_S = 600
SUITE = "kmm_preflight/suite"
SHIPPED = ("commands", "docs/findings", "fixtures", "preflight_tests", "reports")
OTHER_CONFTEST = "raise RuntimeError('the conftest of another project was loaded')\n"
OTHER_SETTINGS = "[pytest]\naddopts = --no-such-option\nminversion = 99\n"
# Python before 3.11.4 has no filters.
_SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


@dataclass(frozen=True)
class Installed:
    """A venv with the package."""

    folder: Path
    """Folder of the venv."""

    def run(
        self, program: str, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the venv with little of this environment."""
        (cwd / "home").mkdir(exist_ok=True)
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            [program if os.sep in program else str(self.folder / "bin" / program), *arguments],
            cwd=cwd,
            env={"PATH": path, "HOME": str(cwd / "home"), "PREFLIGHT_PROOF": "path", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this clone."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    """Return a venv in which pip has installed the wheel. The dependencies are those of this Python, by a path file."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, symlinks=True, with_pip=False)
    _site(folder).joinpath("dependencies.pth").write_text(_dependencies(tmp_path_factory.mktemp("dependencies")))
    _pip_install(folder, str(wheel))
    return Installed(folder)


def _dependencies(folder: Path) -> str:
    """Return a folder with links to all packages of this Python, other than the package of the clone."""
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "kmm_preflight" not in path.name:
            (folder / path.name).symlink_to(path)
    return str(folder)


def _site(folder: Path) -> Path:
    return folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def _pip_install(folder: Path, *what: str) -> None:
    """Install without dependencies and without a network."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    command = [sys.executable, "-m", "pip", f"--python={folder / 'bin/python'}", "install", *options, *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return the folder of another pytest project, with manifests of Modules."""
    folder = tmp_path / "project"
    (folder / "fixtures").mkdir(parents=True)
    (folder / "conftest.py").write_text(OTHER_CONFTEST)
    (folder / "fixtures/__init__.py").write_text(OTHER_CONFTEST)
    (folder / "pytest.ini").write_text(OTHER_SETTINGS)
    (folder / "test_other.py").write_text("def test_other() -> None:\n    raise RuntimeError\n")
    shutil.copytree(ROOT / "demo/modules", folder / "modules")
    return folder


def _tracked(*places: str) -> set[str]:
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *places], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


def test_the_wheel_holds_the_suite_as_data_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names} == {
        "kmm_preflight",
        wheel.name.partition("-py3")[0] + ".dist-info",
    }
    expected = {f"{SUITE}/{name}" for name in _tracked(*SHIPPED, "conftest.py", "pyproject.toml")}
    assert {name for name in names if name.startswith(SUITE)} == expected
    assert {name for name in names if name.startswith("kmm_preflight/")} - expected == _tracked("kmm_preflight")


def test_the_source_distribution_builds_the_same_wheel(tmp_path: Path, wheel: Path) -> None:
    (tmp_path / "wheel").mkdir()
    with tarfile.open(build_sdist(tmp_path)) as archive:
        archive.extractall(tmp_path, **_SAFELY)
    (source,) = (path for path in tmp_path.glob("kmm_preflight-*") if path.is_dir())
    assert build_wheel(tmp_path / "wheel", source).read_bytes() == wheel.read_bytes()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_in_another_project_loads_nothing_of_it(installed: Installed, project: Path, workers: str) -> None:
    options = [*DEMO, "--manifests", "modules", "-n", workers]
    run = installed.run("kmm-preflight", *options, cwd=project)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 Modules (2 Module and kernel pairs)" in run.stdout
    assert "warning" not in run.stdout.lower()
    assert {path.name for path in (project / "artifacts").iterdir()} == set(REPORTS)
    assert not (project / ".pytest_cache").exists()
    assert not (project / "fixtures/__pycache__").exists()


def test_a_test_is_named_as_in_a_clone(installed: Installed, project: Path) -> None:
    name = "preflight_tests/test_module.py::test_image"
    run = installed.run("kmm-preflight", *DEMO, "--manifests=modules", name, "-n0", "-v", cwd=project)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{name}[demo/hello@6.1.0-56-amd64] PASSED" in run.stdout
    assert "test_sign" not in run.stdout


def test_the_last_failed_step_is_known_in_the_next_run(installed: Installed, project: Path) -> None:
    options = [*DEMO, "--manifests=modules", f"--manifests={ROOT / 'demo/red'}", "-n0"]
    assert installed.run("kmm-preflight", *options, cwd=project).returncode == 1
    run = installed.run("kmm-preflight", *options, "--lf", cwd=project)
    assert run.returncode == 1, run.stdout + run.stderr
    verdicts = json.loads((project / "artifacts/preflight.json").read_text())["modules"]
    assert [module["name"] for module in verdicts if module["verdict"] == "refuted"] == ["hello-pinned"]
    assert [module["name"] for module in verdicts if module["verdict"] == "verified"] == []


def test_options_of_the_user_s_own_environment_count(installed: Installed, project: Path) -> None:
    env = {"PYTEST_ADDOPTS": "-k hello", "PREFLIGHT_MANIFESTS": "modules"}
    run = installed.run("kmm-preflight", *DEMO, "-n0", cwd=project, env=env)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 of 2 Modules (1 of 2 Module and kernel pairs)" in run.stdout


def test_pytest_in_a_project_does_not_know_the_options(installed: Installed, tmp_path: Path) -> None:
    run = installed.run("python", "-P", "-m", "pytest", "--release-image=4.18.3", "--artifact-dir=there", cwd=tmp_path)
    assert run.returncode == 4
    assert run.stderr.strip() == (
        "ERROR: --release-image is an option of kmm-preflight, not of pytest. "
        "Type: kmm-preflight --release-image=4.18.3 --artifact-dir=there"
    )


def test_pytest_in_a_project_is_left_alone(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it() -> None:\n    pass\n")
    run = installed.run("python", "-P", "-m", "pytest", "-W", "error", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("program", ["kmm-preflight", "kubectl-kmm_preflight"])
def test_the_version(installed: Installed, tmp_path: Path, program: str) -> None:
    run = installed.run(program, "--version", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("kmm-preflight 0.")


def test_a_page_of_a_finding(installed: Installed, tmp_path: Path) -> None:
    run = installed.run("kmm-preflight", "explain", "kmod-absent", cwd=tmp_path)
    assert run.stdout == (ROOT / "docs/findings/kmod-absent.md").read_text()


def test_kubectl_has_it_as_a_subcommand(installed: Installed, project: Path) -> None:
    kubectl = shutil.which("kubectl") or str(assets() / "kubectl")
    assert installed.run(kubectl, "kmm-preflight", "--version", cwd=project).stdout.startswith("kmm-preflight 0.")
    run = installed.run(kubectl, "kmm-preflight", *DEMO, "--manifests", "modules", "-n0", cwd=project)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (project / "artifacts/preflight.json").exists()


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Return a venv with pip, uv and pipx. It proves that pip reaches an index of packages."""
    folder = tmp_path_factory.mktemp("tools") / "venv"
    venv.create(folder, symlinks=True, with_pip=True)
    done = subprocess.run(
        [folder / "bin/pip", "install", "--quiet", "uv", "pipx"], capture_output=True, text=True, timeout=PATIENCE_S
    )
    need("uv and pipx", done.returncode == 0, f"a network in which pip works ({done.stderr[-300:]})")
    return Installed(folder)


def _assert_green(run: subprocess.CompletedProcess[str], project: Path) -> None:
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 Modules (2 Module and kernel pairs)" in run.stdout
    assert {path.name for path in (project / "artifacts").iterdir()} == set(REPORTS)


def test_pip_installs_it_with_its_dependencies(tools: Installed, project: Path, wheel: Path, tmp_path: Path) -> None:
    new = Installed(tmp_path / "venv")
    venv.create(new.folder, symlinks=True, with_pip=True)
    done = new.run("pip", "install", "--quiet", str(wheel), cwd=project, env=_index())
    assert done.returncode == 0, done.stderr
    assert new.run("pip", "check", cwd=project).returncode == 0
    _assert_green(new.run("kmm-preflight", *DEMO, "--manifests=modules", "-n", "2", cwd=project), project)


def test_pipx_installs_it(tools: Installed, project: Path, wheel: Path, tmp_path: Path) -> None:
    places = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    done = tools.run("pipx", "install", str(wheel), cwd=tmp_path, env={**_index(), **places})
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "bin").iterdir()} == {"kmm-preflight", "kubectl-kmm_preflight"}
    program = str(tmp_path / "bin/kmm-preflight")
    _assert_green(tools.run(program, *DEMO, "--manifests=modules", "-n0", cwd=project), project)


def test_uvx_runs_it(tools: Installed, project: Path, wheel: Path) -> None:
    options = ["--from", str(wheel), "kmm-preflight", *DEMO, "--manifests=modules", "-n0"]
    _assert_green(tools.run("uvx", "--python", sys.executable, *options, cwd=project, env=_index()), project)


def _index() -> dict[str, str]:
    """Return the variables by which installers reach an index of packages."""
    prefixes = ("PIP_", "UV_", "SSL_CERT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    return {name: value for name, value in os.environ.items() if name.upper().startswith(prefixes)}


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the clone, without files that are ignored."""
    folder = tmp_path_factory.mktemp("copy") / "clone"
    for name in _tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def editable(tmp_path_factory: pytest.TempPathFactory, clone: Path) -> Installed:
    """Return a venv in which pip has installed a clone with -e."""
    folder = tmp_path_factory.mktemp("editable") / "venv"
    venv.create(folder, symlinks=True, with_pip=False)
    _site(folder).joinpath("dependencies.pth").write_text(_dependencies(tmp_path_factory.mktemp("dependencies")))
    _pip_install(folder, "--no-build-isolation", "-e", str(clone))
    return Installed(folder)


def test_an_editable_install_runs_the_clone_from_any_folder(editable: Installed, clone: Path, project: Path) -> None:
    assert not (_site(editable.folder) / "kmm_preflight").exists()
    with (clone / "fixtures/options/definitions.py").open("a") as file:
        file.write("raise SystemExit('the options of the clone were read')\n")
    try:
        run = editable.run("kmm-preflight", "--manifests=modules", cwd=project)
    finally:
        shutil.copy(ROOT / "fixtures/options/definitions.py", clone / "fixtures/options/definitions.py")
    assert "the options of the clone were read" in run.stderr
    _assert_green(editable.run("kmm-preflight", *DEMO, "--manifests", "modules", "-n", "2", cwd=project), project)


def test_pytest_works_in_a_clone(editable: Installed, clone: Path) -> None:
    options = ["--image-layout=demo/images", "--manifests", "demo/modules", "-n0"]
    run = editable.run("python", "-P", "-m", "pytest", DEMO[0], *options, cwd=clone)
    _assert_green(run, clone)
    assert "warning" not in run.stdout.lower()
