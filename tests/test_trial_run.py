"""Trial loads from the command line: the kernel's own lines are in every report."""

from __future__ import annotations

from pathlib import Path

from .real.behaviour import behaving
from .real.kernels import vmlinuz
from .real.requirement import need_tool
from .test_loading import Case, Kernels, raw, run
from .test_loading import of as of  # a fixture

TAINT = "loading out-of-tree module taints kernel"


def test_reports_show_the_kernel_s_lines_of_loads_and_refusals(tmp_path: Path, of: Kernels) -> None:
    need_tool("qemu-system-x86_64", "apt-get install qemu-system-x86")
    table = {
        "loads": Case((), {"m.ko": of.own["pf_plain"]}),
        "panics": Case((), {"m.ko": behaving(of.target)["pf_panics"]}, "m"),
        "refuted": Case((), {"m.ko": of.foreign["pf_plain"]}),
    }
    found = run(tmp_path, of, table, "--trial-load", f"--vmlinuz={vmlinuz(of.target)}", "-n0")
    assert found.returncode == 1, found.output
    assert found.verdicts() == {
        "loads": ("verified", "kmod-unsigned", "trial-loaded"),
        "panics": ("refuted", "trial-refused", "kmod-unsigned"),
        "refuted": ("refuted", "kmod-other-kernel", "kmod-unsigned"),
    }, found.output
    assert found.seconds < 120
    for name in ("preflight.html", "junit_preflight.xml", "preflight.json"):
        assert TAINT in (tmp_path / "artifacts" / name).read_text()
    assert TAINT in found.stdout


def test_a_missing_vmlinuz_leaves_modules_undecided(tmp_path: Path, of: Kernels) -> None:
    found = run(tmp_path, of, {"loads": Case((), {"m.ko": of.own["pf_plain"]})}, "--trial-load")
    assert found.verdicts()["loads"][:2] == ("undecided", "trial-unable"), found.output
    assert found.returncode == 10


def test_a_module_with_raw_arguments_is_undecided(tmp_path: Path, of: Kernels) -> None:
    table = {"raw": Case((), {"m.ko": of.own["pf_plain"]})}
    found = run(tmp_path, of, table, "--trial-load", f"--vmlinuz={vmlinuz(of.target)}", documents=[raw("raw", ["m"])])
    assert found.verdicts()["raw"][:2] == ("undecided", "trial-unable"), found.output
