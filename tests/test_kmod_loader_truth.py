"""Our verdict and the kernel's own, side by side: drivers and small kmods, good and bad, on real kernels in QEMU.

docs/loader-truth.md shows the table; `python -m tests.loader_truth` writes it anew.
"""

from __future__ import annotations

import re
from functools import cache

import pytest

from .loader_truth import Judged, arm64_pairs, judged, pairs, refuting
from .runs import ROOT

# The kernels by their place among those that the mirror has: oldest 6.1, the newest four, rt, cloud, 6.12; and arm64.
PLACES = range(8)
ARM64 = -1
# What the loader has to say for a finding that refutes; a kmod that it does not even take for an object may be silent.
WORDS = {
    "kmod-not-loadable": r"",
    "kmod-architecture": r"Invalid architecture in ELF header",
    "kmod-no-module": r"\.gnu\.linkonce\.this_module|No module found in object",
    "kmod-stripped": r"module has no symbols",
    "kmod-other-kernel": r"disagrees about version of symbol module_layout|must match the kernel's built struct module",
    "kmod-vermagic": r"version magic '.*' should be '",
    "kmod-livepatch": r"",  # its line has no end, and comes with the next
    "kmod-sections": r"has invalid WRITE\|EXEC flags",
    "kmod-symbols-absent": r"Unknown symbol \w+ \(err -2\)",
    "kmod-symbols-gpl": r"Unknown symbol \w+ \(err -2\)",
    "kmod-symbols-differ": r"disagrees about version of symbol",
    "kmod-symbols-unversioned-refused": r"no symbol version for",
    "kmod-namespace": r"from namespace \w+, but does not import it",
    "kmod-proprietary-owner": r"Unknown symbol|proprietary",
    "kmod-common": r"please compile with -fno-common",
    "kmod-exports-clash": r"exports duplicate symbol",
    "kmod-name-built-in": r"module is already loaded",
}


@cache
def side_by_side(place: int) -> list[Judged]:
    """All pairs of one kernel, with what both say."""
    from .real import foreign
    from .real.kernels import ENABLE, chosen
    from .real.requirement import need

    if place == ARM64:
        return judged(foreign.release("arm64"), list(arm64_pairs()))
    need(f"a kernel number {place + 1}", place < len(chosen()), ENABLE)
    kernel = chosen()[place]
    return judged(kernel, list(pairs(kernel)))


@pytest.mark.parametrize("place", [*PLACES, ARM64])
def test_the_kernel_agrees(place: int) -> None:
    decided = [one for one in side_by_side(place) if one.loads is not None]
    assert [f"{one.pair}: {one.answer}" for one in decided if one.loads is not one.answer.loaded] == []


@pytest.mark.parametrize("place", [*PLACES, ARM64])
def test_the_kernel_says_what_the_first_finding_says(place: int) -> None:
    other = [
        f"{one.pair}: {finding.id}, {one.answer}"
        for one in side_by_side(place)
        if (finding := refuting(one.findings)) and not one.pair.before
        if not re.search(WORDS[finding.id], one.answer.said)
    ]
    assert other == []


def test_the_table_is_large_and_a_third_of_it_loads() -> None:
    decided = [one for place in PLACES for one in side_by_side(place) if one.loads is not None]
    assert len(decided) >= 150
    assert sum(one.answer.loaded for one in decided) * 3 >= len(decided)


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "loader-truth.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| (?:loads|[a-z-]+) \| (?:loads|refuses)", page, re.MULTILINE)
    assert len(rows) >= 150
