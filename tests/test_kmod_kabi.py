"""Kmods built with the symbol versions of RHEL 9.2 on the kernel of RHEL 9.3, by RHEL's own lists of stable symbols.

The list of RHEL 9.3 has no module_layout, so that symbol decides nothing here.
The lists belong to another project, so they are not copied: $PREFLIGHT_REAL_DATA names the folder with kabi/.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import judge_kmod
from kmm_preflight.kmod.machine import MACHINES
from kmm_preflight.kmod.object import read_object
from kmm_preflight.kmod.resolution import NO_OTHERS, resolve
from kmm_preflight.kmod.symvers import LAYOUT, Symvers, SymversStore, parse_symvers
from kmm_preflight.kmod.vermagic import expected_vermagic

from .loader_cases import configuration
from .objects import Object, Symbol

OLD, NEW = "5.14.0-284.30.1.el9_2", "5.14.0-362.8.1.el9_3"
OLD8, NEW8 = "4.18.0-477.27.1.el8_8", "4.18.0-513.5.1.el8_9"
USED = 40
# Sections that a kmod of the architecture must have.
SECTIONS = {"arm64": (".plt", ".init.plt"), "ppc64le": (".stubs",)}

Crcs = dict[str, int]


def list_of(release: str, arch: str) -> Path:
    """Return RHEL's list of stable symbols of a release, in the format of Module.symvers."""
    path = (
        Path(os.environ.get("PREFLIGHT_REAL_DATA", os.devnull))
        / "kabi"
        / f"Module.kabi_{release}.{MACHINES[arch].word}"
    )
    if not path.is_file():
        pytest.skip(f"PREFLIGHT_REAL_DATA names no folder with kabi/{path.name}")
    return path


def crcs_of(release: str, arch: str) -> Crcs:
    symbols = parse_symvers([list_of(release, arch).read_bytes()])
    return {symbol.name: symbol.crc for symbol in symbols if symbol.crc is not None}


def kernel_of(release: str, arch: str, folder: Path) -> KernelFiles:
    symvers: Symvers = SymversStore(folder).keep(f"sha256:{0:064}", [list_of(release, arch).read_bytes()])
    return KernelFiles(f"{release}.{MACHINES[arch].word}", arch, symvers, configuration())


def kmod_using(names: list[str], crcs: Crcs, arch: str, release: str) -> bytes:
    """Return a kmod that was built for a release and uses some of its symbols."""
    vermagic = expected_vermagic(f"{release}.{MACHINES[arch].word}", arch, configuration())
    versions = [(name, crcs[name]) for name in (LAYOUT, *names) if name in crcs]
    return Object(
        arch,
        modinfo=("license=GPL", f"vermagic={vermagic}"),
        versions=versions,
        symbols=[Symbol(name) for name in names],
        sections={name: b"\0" for name in SECTIONS.get(arch, ())},
    ).packed()


def differing(kmod: bytes, kernel: KernelFiles) -> list[str]:
    """Return the symbols that the kernel refuses because of their versions."""
    assert kernel.symvers is not None
    problems = resolve(read_object(kmod, kernel.machine), kernel, kernel.symvers, NO_OTHERS)
    assert (problems.absent, problems.unversioned, problems.gpl) == ([], [], [])
    return [words.partition(" ")[0] for words in problems.differing]


def ids_of(kmod: bytes, kernel: KernelFiles) -> list[str]:
    """Return the ids of the findings about a kmod."""
    return [finding.id for finding in judge_kmod("m.ko", read_object(kmod, kernel.machine), kernel)]


@pytest.mark.parametrize("arch", MACHINES)
def test_exactly_the_symbols_that_changed_refuse_the_kmod(arch: str, tmp_path: Path) -> None:
    old, new = crcs_of(OLD, arch), crcs_of(NEW, arch)
    common = [name for name in old if name in new and name != LAYOUT]
    changed = [name for name in common if old[name] != new[name]]
    assert 20 <= len(changed) < USED
    same = [name for name in common if old[name] == new[name]][: USED - len(changed)]
    used = sorted([*changed, *same])
    kernel = kernel_of(NEW, arch, tmp_path)
    kmod = kmod_using(used, old, arch, OLD)
    assert differing(kmod, kernel) == sorted(changed)
    refused = judge_kmod("m.ko", read_object(kmod, kernel.machine), kernel)
    # The lists lack module_layout, so they can refute and never prove.
    assert {finding.id for finding in refused} == {"kmod-symbols-differ", "kernel-input-missing"}
    (differ,) = (finding for finding in refused if finding.id == "kmod-symbols-differ")
    assert f"{len(changed)} of {USED} symbols" in differ.sentence
    only_same = kmod_using(same, old, arch, OLD)
    assert ids_of(only_same, kernel) == ["kernel-input-missing"]
    built_for_it = kmod_using(used, new, arch, NEW)
    assert ids_of(built_for_it, kernel) == ["kernel-input-missing"]


@pytest.mark.parametrize("arch", MACHINES)
def test_each_symbol_that_changed_is_enough(arch: str, tmp_path: Path) -> None:
    old, new = crcs_of(OLD, arch), crcs_of(NEW, arch)
    kernel = kernel_of(NEW, arch, tmp_path)
    for name in old:
        if name in new and name != LAYOUT:
            assert differing(kmod_using([name], old, arch, OLD), kernel) == [name] * (old[name] != new[name]), name


@pytest.mark.parametrize("arch", MACHINES)
def test_no_stable_symbol_changed_from_rhel_8_8_to_8_9(arch: str, tmp_path: Path) -> None:
    old = crcs_of(OLD8, arch)
    kernel = kernel_of(NEW8, arch, tmp_path)
    names = [name for name in old if name in crcs_of(NEW8, arch) and name != LAYOUT]
    assert len(names) > 100
    assert differing(kmod_using(names, old, arch, OLD8), kernel) == []
