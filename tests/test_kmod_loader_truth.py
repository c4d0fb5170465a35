"""The suite's verdict and the kernel's own answer agree: drivers and small kmods, good and bad, on kernels in QEMU.

docs/loader-truth.md shows the table. `python -m tests.loader_truth` writes that page anew.
"""

from __future__ import annotations

import re
from functools import cache

import pytest

from .loader_truth import JudgedPair, arm64_pairs, first_refuting, judge_pairs, pairs
from .runs import ROOT

# Positions in upgrade_kernels(): the oldest 6.1, the newest four, rt, cloud, 6.12. Then the newest kernel of Debian
# unstable, and one for arm64.
POSITIONS = range(8)
UNSTABLE, ARM64 = -2, -1
# The kernel's message for each finding that refutes. Some messages are empty: the kernel prints none for a damaged
# object, and its line about a livepatch has no end and comes with the next message.
MESSAGES = {
    "kmod-not-loadable": r"",
    "kmod-architecture": r"Invalid architecture in ELF header",
    "kmod-no-module": r"\.gnu\.linkonce\.this_module|No module found in object",
    "kmod-stripped": r"module has no symbols",
    "kmod-other-kernel": r"disagrees about version of symbol module_layout|must match the kernel's built struct module",
    "kmod-vermagic": r"version magic '.*' should be '",
    "kmod-livepatch": r"",
    "kmod-sections": r"has invalid WRITE\|EXEC flags|no flags for exported symbols",
    "kmod-symbols-absent": r"Unknown symbol \w+ \(err -2\)",
    "kmod-symbols-gpl": r"Unknown symbol \w+ \(err -2\)",
    "kmod-symbols-differ": r"disagrees about version of symbol",
    "kmod-symbols-unversioned-refused": r"no symbol version for",
    "kmod-namespace": r"from namespace \w+, but does not import it",
    "kmod-namespace-reserved": r"from namespace module:\S+, but does not import it",
    "kmod-namespace-import": r"module tries to import module namespace: module:",
    "kmod-proprietary-owner": r"Unknown symbol|proprietary",
    "kmod-common": r"please compile with -fno-common",
    "kmod-exports-clash": r"exports duplicate symbol",
    "kmod-btf-unfit": r"failed to validate module",
    "kmod-name-built-in": r"module is already loaded",
}


@cache
def judged_pairs(position: int) -> list[JudgedPair]:
    """Return all pairs of one kernel with both verdicts."""
    from .real import foreign, unstable
    from .real.kernels import ENABLE, upgrade_kernels
    from .real.requirement import need

    if position == ARM64:
        return judge_pairs(foreign.release("arm64"), list(arm64_pairs()))
    if position == UNSTABLE:
        return judge_pairs(unstable.release(), list(pairs(unstable.release())))
    need(f"a kernel number {position + 1}", position < len(upgrade_kernels()), ENABLE)
    kernel = upgrade_kernels()[position]
    return judge_pairs(kernel, list(pairs(kernel)))


@pytest.mark.parametrize("position", [*POSITIONS, UNSTABLE, ARM64])
def test_the_kernel_agrees(position: int) -> None:
    decided = [result for result in judged_pairs(position) if result.loads is not None]
    differing = [result for result in decided if result.loads is not result.answer.loaded]
    assert [f"{result.pair}: {result.answer}" for result in differing] == []


@pytest.mark.parametrize("position", [*POSITIONS, UNSTABLE, ARM64])
def test_the_kernel_prints_the_cause_of_the_first_finding(position: int) -> None:
    other = [
        f"{result.pair}: {finding.id}, {result.answer}"
        for result in judged_pairs(position)
        if (finding := first_refuting(result.findings)) and not result.pair.before
        if not re.search(MESSAGES[finding.id], result.answer.log)
    ]
    assert other == []


def test_the_table_is_large_and_a_third_of_its_kmods_load() -> None:
    decided = [result for position in POSITIONS for result in judged_pairs(position) if result.loads is not None]
    assert len(decided) >= 150
    assert sum(result.answer.loaded for result in decided) * 3 >= len(decided)


def test_the_newest_kernel_has_many_pairs_of_both_kinds() -> None:
    decided = [result for result in judged_pairs(UNSTABLE) if result.loads is not None]
    assert len(decided) >= 60
    assert 30 <= sum(result.answer.loaded for result in decided) <= len(decided) - 30


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "loader-truth.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| (?:loads|[a-z-]+) \| (?:loads|refuses)", page, re.MULTILINE)
    assert len(rows) >= 150
