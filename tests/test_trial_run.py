"""Trial loads from the command line: the kernel's own lines are in every report."""

from __future__ import annotations

from pathlib import Path

from .demo import module
from .real.behaviour import behaving
from .real.kernels import vmlinuz
from .real.requirement import need_tool
from .signing_desk import Desk
from .signing_desk import desk as desk  # a fixture
from .test_loading import POOLS, SIGNING, Case, Kernels, raw, run, signing_secrets
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


def test_raw_arguments_with_one_name_are_tried(tmp_path: Path, of: Kernels) -> None:
    table = {name: Case((), {"m.ko": of.own["pf_plain"], "n.ko": of.own["pf_weak"]}) for name in ("one", "two")}
    documents = [raw("one", ["-d", "/tmp/opt", "m"]), raw("two", ["-ad", "/tmp/opt", "m", "n"])]
    found = run(tmp_path, of, table, "--trial-load", f"--vmlinuz={vmlinuz(of.target)}", documents=documents)
    assert found.verdicts()["one"] == ("verified", "kmod-unsigned", "trial-loaded"), found.output
    assert found.verdicts()["two"][:2] == ("undecided", "trial-unable"), found.output


def test_a_trial_boots_with_the_arguments_of_the_nodes(tmp_path: Path, of: Kernels) -> None:
    table = {"weak": Case((), {"pf_weak.ko": of.own["pf_weak"]}, "pf_weak")}
    arguments = "[quiet, modprobe.blacklist=x, pf_weak.size=1]"
    documents = [module("weak", "registry.example/kmods/weak:1", "pf_weak"), POOLS.format(arguments=arguments)]
    found = run(tmp_path, of, table, "--trial-load", f"--vmlinuz={vmlinuz(of.target)}", documents=documents)
    assert found.verdicts()["weak"][0] == "verified", found.output
    assert "in a virtual machine with modprobe.blacklist=x pf_weak.size=1" in found.sentences()["weak"]
    assert "unknown parameter 'size' ignored" in found.output


def test_a_trial_without_the_nodes_keys_is_repeated_without_enforcement(
    tmp_path: Path, of: Kernels, desk: Desk
) -> None:
    table = {"signed": Case((), {"m.ko": desk.sign(data=of.own["pf_weak"])}, sections=SIGNING)}
    documents = [
        module("signed", "registry.example/kmods/signed:1", "m", sections=SIGNING),
        POOLS.format(arguments="[module.sig_enforce=1, lockdown=integrity]"),
        signing_secrets(desk),
    ]
    found = run(tmp_path, of, table, "--trial-load", f"--vmlinuz={vmlinuz(of.target)}", documents=documents)
    assert found.verdicts()["signed"] == ("verified", "boot-key-needed", "trial-loaded"), found.output
