"""Mistakes on the command line and in manifests: exit code 4, one clear line that names the bad value, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.demo import DEMO, GREEN, KERNEL, LAYOUT, manifests, module
from tests.runs import run_preflight

RELEASE = DEMO[0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((), "no release to validate: give --release-image REF, --kernel VERSION or"),
        ((RELEASE,), "no --manifests and no cluster"),
        (("--release-image=",), "--release-image: the value is empty"),
        (("--release-image=foo:bar:baz", GREEN), "foo:bar:baz"),
        (("--release-image=4.18", GREEN), "--release-image 4.18: expected a version such as 4.18.3, host[:port]/repos"),
        (("--release-image=latest", GREEN), "--release-image latest: expected a version such as 4.18.3"),
        (("--release-image=v4.18.3", GREEN), "--release-image v4.18.3: expected a version such as 4.18.3"),
        ((f"--release-image=sha256:{'0' * 64}", GREEN), "expected a version such as 4.18.3"),
        (("--release-image=Host/UPPER:tag", GREEN), "UPPER"),
        (("--release-image=registry.example/x@sha256:abc", GREEN), "sha256:abc"),
        (("--release-image=registry.example:99999/x:y", GREEN), "registry.example:99999"),
        (("--release-image=oci:", GREEN), "oci:"),
        (("--release-image=oci:/no/such/layout:tag", GREEN), "/no/such/layout"),
        (("--release-image=oci-archive:/no/such.tar", GREEN), "/no/such.tar"),
        (("--kernel=banana", GREEN), "banana"),
        (("--kernel=5.14.0 foo", GREEN), "5.14.0 foo"),
        (("--kernel=", GREEN), "--kernel: the value is empty"),
        ((RELEASE, GREEN, "--driver-toolkit=registry.example/dtk:1"), "--driver-toolkit"),
        ((f"--kernel={KERNEL}", "--driver-toolkit=a b", GREEN), "a b"),
        ((RELEASE, GREEN, "--arch=vax"), "vax"),
        ((RELEASE, GREEN, "--flavour=vanilla"), "vanilla"),
        ((RELEASE, LAYOUT, GREEN, "--stream=rhel-7"), "rhel-7"),
        ((RELEASE, LAYOUT, GREEN, "--stream=driver-toolkit", "--stream=rhel10"), "--stream rhel10: release"),
        (
            (f"--kernel={KERNEL}", LAYOUT, GREEN, "--arch=arm64"),
            f"--kernel {KERNEL}: the name says amd64, got --arch arm64",
        ),
        ((RELEASE, LAYOUT, GREEN, "--realtime"), "rt"),
        ((RELEASE, LAYOUT, GREEN, "--flavour=64k"), "64k"),
        ((RELEASE, LAYOUT, GREEN, "--arch=arm64"), "arm64"),
        ((RELEASE, GREEN, "--namespace=Not_A_Name"), "Not_A_Name"),
        ((RELEASE, GREEN, "--authfile=/no/such/auth.json"), "/no/such/auth.json"),
        ((RELEASE, GREEN, "--authfile=README.md"), "README.md"),
        ((RELEASE, GREEN, "--registry-ca=/no/such/ca.pem"), "/no/such/ca.pem"),
        ((RELEASE, GREEN, "--registry-ca=README.md"), "README.md"),
        ((RELEASE, GREEN, "--registry-ca=/dev/null"), "--registry-ca /dev/null: no PEM certificates in the file"),
        ((RELEASE, GREEN, "--image-layout=/no/such/layout"), "/no/such/layout"),
        ((RELEASE, GREEN, "--image-layout=docs"), "docs"),
        ((RELEASE, GREEN, "--cache-size=plenty"), "plenty"),
        ((RELEASE, GREEN, "--kmm-version=latest"), "latest"),
        ((RELEASE, GREEN, "--kmm-version=0.5"), "0.5"),
        ((RELEASE, "--manifests=/no/such/file.yaml"), "/no/such/file.yaml"),
        ((RELEASE, "--manifests=demo/images/blobs"), "demo/images/blobs"),
        ((RELEASE, GREEN, f"{GREEN}/hello.yaml"), "demo/hello exists twice"),
        ((RELEASE, GREEN, "--artifact-dir=/proc/nothing"), "/proc/nothing"),
    ],
    ids=lambda value: " ".join(part.rpartition("/")[2] for part in value) if isinstance(value, tuple) else None,
)
def test_the_command_line(tmp_path: Path, options: tuple[str, ...], named: str) -> None:
    run = run_preflight(tmp_path, *options)
    assert run.returncode == 4, run.output
    lines = [line for line in run.stderr.splitlines() if "ERROR" in line.upper()]
    assert len(lines) == 1, run.output
    assert named in lines[0] or named in run.stderr
    assert "Traceback" not in run.output


def test_an_option_that_nobody_knows_leaves_no_report_of_an_earlier_run(tmp_path: Path) -> None:
    assert run_preflight(tmp_path, *DEMO, GREEN).returncode == 0
    run = run_preflight(tmp_path, *DEMO, GREEN, "--no-such-option")
    assert (run.returncode, run.document["exitCode"], run.document["modules"]) == (4, 4, []), run.output
    assert "--no-such-option" in run.stderr
    assert "--no-such-option" in (tmp_path / "artifacts" / "preflight.html").read_text()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PREFLIGHT_PUSH_BUILT_IMAGE", "perhaps"), ("PREFLIGHT_ARCH", "amd64,vax"), ("PREFLIGHT_CACHE_SIZE", "-1")],
)
def test_the_environment(tmp_path: Path, variable: str, value: str) -> None:
    run = run_preflight(tmp_path, *DEMO, GREEN, env={variable: value})
    assert run.returncode == 4, run.output
    assert value.rpartition(",")[2] in run.stderr


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("nonsense", "the scheme is not http or https"),
        ("http://u:p455@host:99999999", "the address has an invalid host or port"),
    ],
)
def test_invalid_proxy_variable(tmp_path: Path, variable: str, value: str, problem: str) -> None:
    run = run_preflight(tmp_path, *DEMO, GREEN, env={variable: value})
    assert run.returncode == 4, run.output
    (line,) = [line for line in run.stderr.splitlines() if line]
    assert line == f"ERROR: {variable}: {problem}, expected http://HOST:PORT or https://HOST:PORT"
    for text in (run.output, *(file.read_text() for file in (tmp_path / "artifacts").iterdir())):
        assert "p455" not in text


@pytest.mark.parametrize(
    ("options", "arch"), [((), "amd64"), (("--arch=arm64",), "arm64")], ids=["no --arch", "--arch"]
)
def test_an_architecture_that_is_assumed_is_said(tmp_path: Path, options: tuple[str, ...], arch: str) -> None:
    run = run_preflight(tmp_path, "--kernel=6.6.0", LAYOUT, manifests(tmp_path, module("m")), *options)
    said = f"kernel 6.6.0 names no architecture: {arch} is assumed"
    assert said in run.document["assumed"], run.output
    assert said in run.stdout


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: [", "line 2, column 1"),
        (module("m").replace("kernelMappings:", "kernelMapings:"), "kernelMappings"),
        (module("m").replace("regexp: .", "literal: 5.14"), "literal: got number 5.14"),
        (module("m").replace("regexp: .", 'regexp: "(?=x)"'), "regexp"),
        (module("M_1"), "metadata.name"),
        (
            "{apiVersion: v1, kind: Thing}\n" + module("good") + module("m").replace("selector: {}", "selector: []"),
            "document 3",
        ),
    ],
    ids=["syntax", "missing", "type", "regexp", "name", "third document"],
)
def test_manifests(tmp_path: Path, text: str, named: str) -> None:
    run = run_preflight(tmp_path, *DEMO, manifests(tmp_path, text))
    assert run.returncode == 4, run.output
    (line,) = [line for line in run.stderr.splitlines() if line]
    assert str(tmp_path / "modules.yaml") in line
    assert named in line
    assert run.document["exitCode"] == 4
    assert run.document["sentence"] in line


def test_what_comes_from_outside_cannot_steer_a_terminal_or_a_ci_log(tmp_path: Path) -> None:
    evil = "\x1b[2Jx\x07\n::error::y ##vso[task]z <script>alert(1)</script>"
    escaped = evil.encode("unicode_escape").decode().replace("\\x", "\\x")
    run = run_preflight(tmp_path, *DEMO, manifests(tmp_path, module("m", escaped.replace("\n", "\\n"))), "-v")
    assert run.returncode == 1, run.output
    for text in (run.output, *((tmp_path / "artifacts" / name).read_text() for name in ("status-patch.yaml",))):
        assert "\x1b[2J" not in text
        assert "\x07" not in text
        assert [line for line in text.splitlines() if line.lstrip().startswith("::")] == []
        assert "##vso[" not in text
    assert "<script>alert" not in (tmp_path / "artifacts" / "preflight.html").read_text()
