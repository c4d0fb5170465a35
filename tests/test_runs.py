"""Whole runs on the demo: exit codes, outcomes of steps, options of pytest, files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from tests.demo import BUILD, DEMO, GREEN, KERNEL, LAYOUT, RED, ROOT, SIGN, manifests, module
from tests.runs import run_preflight

WORKERS = pytest.mark.parametrize("workers", [("-n", "0"), ("-n", "2")], ids=["0", "2"])
MISSING = "registry.example/kmods/nothing:1"


def outcomes(junit: ET.Element) -> dict[str, str]:
    """What became of each step: passed, failure, error, or the type of skip."""
    found = {}
    for case in junit.iter("testcase"):
        ends = [child for child in case if child.tag in ("failure", "error", "skipped")]
        found[case.attrib["name"]] = (ends[0].get("type") or ends[0].tag) if ends else "passed"
    return found


@pytest.mark.parametrize(
    "workers", [("-n", "0"), ("-n", "4"), ("-p", "no:xdist"), ()], ids=["0", "4", "none", "default"]
)
def test_all_verified_is_0(tmp_path: Path, workers: tuple[str, ...]) -> None:
    run = run_preflight(tmp_path, *DEMO, GREEN, *workers, workers_by_default=not workers)
    assert run.returncode == 0, run.stdout
    assert {(m["namespace"], m["name"], m["verdict"]) for m in run.document["modules"]} == {
        ("demo", "hello", "verified"),
        ("storage", "ring-buffer", "verified"),
    }
    assert [one["name"] for one in run.document["listed"]] == ["plugin-only"]


@WORKERS
@pytest.mark.parametrize("more", [(), ("-x",)], ids=["", "-x"])
def test_a_refuted_module_is_1(tmp_path: Path, workers: tuple[str, ...], more: tuple[str, ...]) -> None:
    run = run_preflight(tmp_path, *DEMO, GREEN, RED, *workers, *more)
    assert run.returncode == 1, run.stdout
    verdicts = {m["name"]: (m["verdict"], [f["id"] for f in m["findings"]]) for m in run.document["modules"]}
    assert verdicts["hello-pinned"] == ("refuted", ["kmod-absent"])
    assert re.search("^REFUTED +demo/hello-pinned", run.stdout, re.MULTILINE)
    assert "6.1.0-47-amd64" in run.stdout


@WORKERS
def test_steps_fall_through_and_refuse(tmp_path: Path, workers: tuple[str, ...]) -> None:
    documents = [
        module("good", sections=BUILD),
        module("none", MISSING),
        module("build", MISSING, sections=BUILD),
        module("sign", MISSING, sections=SIGN),
        module("both", MISSING, sections=f"{BUILD}\n{SIGN}"),
    ]
    run = run_preflight(tmp_path, *DEMO, manifests(tmp_path, *documents), *workers)
    assert run.returncode == 1, run.stdout
    skip, xfail = "pytest.skip", "pytest.xfail"
    steps = {"good": ("passed", skip, skip), "none": ("failure", skip, skip), "build": (xfail, "error", skip),
             "sign": (xfail, skip, "error"), "both": (xfail, "error", skip)}  # fmt: skip
    assert outcomes(run.junit) == {
        f"test_{stage}[demo/{name}@{KERNEL}]": outcome
        for name, told in steps.items()
        for stage, outcome in zip(("image", "build", "sign"), told, strict=True)
    }
    findings = {m["name"]: [f["id"] for f in m["findings"]] for m in run.document["modules"]}
    assert findings == {
        "good": [],
        "none": ["image-not-found"],
        "build": ["image-not-found", "builder-none"],
        "sign": ["image-not-found", "signer-none"],
        "both": ["image-not-found", "builder-none"],
    }


def test_pytest_tells_the_same_as_our_junit(tmp_path: Path) -> None:
    documents = [module("good"), module("none", MISSING), module("build", MISSING, sections=BUILD)]
    own = tmp_path / "own.xml"
    run = run_preflight(tmp_path, *DEMO, manifests(tmp_path, *documents), "-n", "2", f"--junitxml={own}")
    theirs = outcomes(ET.parse(own).getroot())
    assert {name: told.replace("pytest.", "") for name, told in theirs.items()} == {
        name: told.replace("pytest.", "") for name, told in outcomes(run.junit).items()
    }


@WORKERS
def test_nothing_to_validate_is_5_unless_allowed(tmp_path: Path, workers: tuple[str, ...]) -> None:
    only = GREEN + "/plugin-only.yaml"
    assert run_preflight(tmp_path, *DEMO, only, *workers).returncode == 5
    run = run_preflight(tmp_path, *DEMO, only, "--allow-no-modules", *workers)
    assert (run.returncode, run.document["modules"]) == (0, [])
    assert [one["name"] for one in run.document["listed"]] == ["plugin-only"]


@WORKERS
def test_a_release_registry_that_is_down_is_10(tmp_path: Path, workers: tuple[str, ...]) -> None:
    run = run_preflight(tmp_path, "--release-image=127.0.0.1:1/ocp/release:4.18", GREEN, *workers)
    assert run.returncode == 10
    assert {m["verdict"] for m in run.document["modules"]} == {"undecided"}
    assert run.document["problem"]["finding"]["id"] == "release-unread"
    assert "Connection refused" in run.stderr
    assert run.junit.find(".//error") is not None


@WORKERS
def test_an_undecided_module_is_10_and_is_not_built(tmp_path: Path, workers: tuple[str, ...]) -> None:
    down = module("down", "127.0.0.1:1/kmods/x:1", sections=BUILD)
    run = run_preflight(tmp_path, f"--kernel={KERNEL}", manifests(tmp_path, down), *workers)
    assert run.returncode == 10, run.stdout
    (told,) = run.document["modules"]
    assert (told["verdict"], [f["id"] for f in told["findings"]]) == ("undecided", ["registry-unreachable"])
    assert outcomes(run.junit) == {
        f"test_image[demo/down@{KERNEL}]": "error",
        f"test_build[demo/down@{KERNEL}]": "pytest.skip",
        f"test_sign[demo/down@{KERNEL}]": "pytest.skip",
    }


@pytest.mark.parametrize("reference", ["registry.example/no/such:tag", "registry.example/kmods/hello:6.1.0-56-amd64"])
def test_a_release_that_is_not_there_or_is_none_is_4(tmp_path: Path, reference: str) -> None:
    run = run_preflight(tmp_path, f"--release-image={reference}", LAYOUT, GREEN)
    assert run.returncode == 4
    assert reference in run.stderr
    assert {m["verdict"] for m in run.document["modules"]} == {"not verified in this run"}


@pytest.mark.parametrize(
    ("selection", "judged"),
    [
        (("-k", "hello"), {"hello": "verified", "ring-buffer": "not verified in this run"}),
        (("-k", "test_sign"), {"hello": "verified", "ring-buffer": "verified"}),
        ((f"preflight_tests/test_module.py::test_image[demo/hello@{KERNEL}]",),
         {"hello": "verified", "ring-buffer": "not verified in this run"}),
    ],
    ids=["-k name", "-k stage", "node id"],
)  # fmt: skip
@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_is_deselected_is_not_verified(
    tmp_path: Path, selection: tuple[str, ...], judged: dict[str, str], workers: str
) -> None:
    run = run_preflight(tmp_path, *DEMO, GREEN, *selection, "-n", workers)
    assert run.returncode == 0, run.stdout
    assert {m["name"]: m["verdict"] for m in run.document["modules"]} == judged
    partial = "partial: 1 of 2 Modules" if len(set(judged.values())) == 2 else None
    assert run.document["partial"] == partial
    assert ("1 of 2 Modules" if partial else "2 Modules (2 Module and kernel pairs)") in run.stdout


def test_deselecting_everything_is_not_green(tmp_path: Path) -> None:
    assert run_preflight(tmp_path, *DEMO, GREEN, "-k", "no_such_thing").returncode == 5


def test_last_failed_runs_what_failed(tmp_path: Path) -> None:
    assert run_preflight(tmp_path, *DEMO, GREEN, RED, "-n", "2").returncode == 1
    run = run_preflight(tmp_path, *DEMO, GREEN, RED, "-n", "2", "--lf")
    assert run.returncode == 1
    assert {m["name"]: m["verdict"] for m in run.document["modules"]} == {
        "hello": "not verified in this run",
        "hello-pinned": "refuted",
        "ring-buffer": "not verified in this run",
    }


def test_collect_only_judges_nothing_and_leaves_reports_alone(tmp_path: Path) -> None:
    assert run_preflight(tmp_path, *DEMO, GREEN).returncode == 0
    run = run_preflight(tmp_path, *DEMO, GREEN, "--collect-only", "-q")
    assert run.returncode == 0
    assert f"test_image[demo/hello@{KERNEL}]" in run.stdout
    assert (tmp_path / "artifacts" / "status-patch.yaml").exists()


def test_a_run_removes_the_reports_of_the_run_before(tmp_path: Path) -> None:
    assert run_preflight(tmp_path, *DEMO, GREEN).returncode == 0
    run = run_preflight(tmp_path, *DEMO, "--manifests=/no/such/file")
    assert (run.returncode, run.document["exitCode"], run.document["modules"]) == (4, 4, [])
    assert "/no/such/file" in (tmp_path / "artifacts" / "preflight.html").read_text()
    assert "kubectl patch" in (tmp_path / "artifacts" / "status-patch.yaml").read_text()


def test_the_kernel_option_needs_no_release_and_every_report_says_so(tmp_path: Path) -> None:
    run = run_preflight(tmp_path, f"--kernel={KERNEL}", LAYOUT, GREEN)
    assert run.returncode == 0, run.stdout
    said = "target kernels were given by --kernel"
    for name in ("preflight.json", "junit_preflight.xml", "preflight.html", "status-patch.yaml"):
        assert said in (tmp_path / "artifacts" / name).read_text()
    assert said in run.stdout


def test_every_report_names_the_digests(tmp_path: Path) -> None:
    run = run_preflight(tmp_path, *DEMO, GREEN)
    digests = {m["image"]["digest"] for m in run.document["modules"]} | {run.document["release"]["digest"]}
    files = ("preflight.json", "junit_preflight.xml", "preflight.html", "status-patch.yaml")
    for text in (run.stdout, *((tmp_path / "artifacts" / name).read_text() for name in files)):
        assert [digest for digest in digests if digest not in text] == []


def test_a_user_s_own_files_are_honoured(tmp_path: Path) -> None:
    page, xml = tmp_path / "own.html", tmp_path / "own.xml"
    run = run_preflight(tmp_path, *DEMO, GREEN, f"--html={page}", f"--junitxml={xml}")
    assert run.returncode == 0
    assert "storage/ring-buffer" in page.read_text()
    assert {case.attrib["name"] for case in ET.parse(xml).iter("testcase")} == set(outcomes(run.junit))
    assert (tmp_path / "artifacts" / "preflight.html").exists()


def test_nothing_is_planned_when_other_tests_are_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "tests/test_reference.py", "-q", "-n", "0", "-p", "no:cacheprovider"]
    environment = {"PATH": os.environ["PATH"], "ARTIFACT_DIR": str(tmp_path / "artifacts")}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert not (tmp_path / "artifacts").exists()


def test_help_groups_the_options_with_their_variables(tmp_path: Path) -> None:
    run = run_preflight(tmp_path, "--help")
    assert run.returncode == 0
    assert "preflight: which kernels:" in run.stdout
    assert "PREFLIGHT_RELEASE_IMAGE" in run.stdout


def test_the_environment_stands_in_for_options(tmp_path: Path) -> None:
    run = run_preflight(
        tmp_path,
        LAYOUT,
        env={
            "PREFLIGHT_KERNEL": KERNEL,
            "PREFLIGHT_MANIFESTS": GREEN.partition("=")[2],
            "PREFLIGHT_KMM_VERSION": "2.3",
        },
    )
    assert run.returncode == 0, run.stdout
    assert "modules:" in (tmp_path / "artifacts" / "status-patch.yaml").read_text()


def test_a_cache_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    run = run_preflight(tmp_path, *DEMO, GREEN, f"--cache-dir={blocked}/cache", "-n", "2")
    assert run.returncode == 0, run.stdout
    assert run.stdout.count("cannot be used") == 1


def test_manifests_come_from_standard_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", *DEMO, "--manifests=-", "-n", "2", "-p", "no:cacheprovider",
               f"--artifact-dir={tmp_path / 'artifacts'}", f"--cache-dir={tmp_path / 'cache'}"]  # fmt: skip
    run = subprocess.run(command, cwd=ROOT, input=module("piped"), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "VERIFIED  demo/piped" in run.stdout


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_expression_that_does_not_parse_is_4_with_any_number_of_workers(tmp_path: Path, workers: str) -> None:
    run = run_preflight(tmp_path, *DEMO, GREEN, "-k", "and and", "-n", workers)
    assert (run.returncode, run.document["exitCode"]) == (4, 4), run.output
    assert "and and" in run.stderr
    assert "Traceback" not in run.output


def test_a_run_that_judged_nothing_leaves_a_patch_that_changes_nothing(tmp_path: Path) -> None:
    run = run_preflight(tmp_path, *DEMO, GREEN, "-k", "no_such", "--kmm-version=2.3")
    assert run.returncode == 5
    assert yaml.safe_load((tmp_path / "artifacts" / "status-patch.yaml").read_text()) == {"status": {}}


def test_the_patch_of_a_usage_error_names_the_api_version_that_was_asked_for(tmp_path: Path) -> None:
    assert run_preflight(tmp_path, LAYOUT, GREEN, "--kmm-version=2.3", "--kernel=abc").returncode == 4
    assert "v1beta2" in (tmp_path / "artifacts" / "status-patch.yaml").read_text().splitlines()[0]


def test_the_folder_of_a_killed_run_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "kmm-preflight-left"
    left.mkdir()
    (left / "held").touch()
    (left / "work").write_text("a password")
    assert run_preflight(tmp_path, *DEMO, GREEN, env={"TMPDIR": str(tmp_path)}).returncode == 0
    assert list(tmp_path.glob("kmm-preflight-*")) == []


def test_a_name_as_long_as_the_api_takes_it(tmp_path: Path) -> None:
    document = module("n" * 253, "registry.example/kmods/hello:${KERNEL_FULL_VERSION}", "hello")
    run = run_preflight(tmp_path, *DEMO, manifests(tmp_path, document), "-n0")
    assert run.returncode == 0, run.output
