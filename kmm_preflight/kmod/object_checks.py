"""Checks of the object itself: header, sections and relocations."""

from __future__ import annotations

from kmm_preflight.kmod import findings
from kmm_preflight.kmod.build_checks import check_layout
from kmm_preflight.kmod.load_case import CheckResults, LoadCase
from kmm_preflight.kmod.sections import SINCE_FLAGS
from kmm_preflight.text import listed

# The first releases that refuse writable code, that need sections for long jumps on arm64 in every build, and that
# read the ABI of ppc64.
_STRICT, _ARM64_JUMPS, _PPC64_ABI = (5, 8), (6, 5), (6, 12)


def check_object(case: LoadCase) -> CheckResults:
    """Check the flaws of the object (step 2), and the ABI on ppc64 (step 3)."""
    flaw = next((flaw for flaw in case.kmod.flaws if flaw.since <= case.kernel.version), None)
    if flaw:
        yield findings.KMOD_NOT_LOADABLE(kmod=case.name, got=flaw.words, kernel=case.kernel.release)
    abi = case.kmod.flags & 3
    if case.kernel.arch == "ppc64le" and abi != 2 and case.kernel.version >= _PPC64_ABI:
        yield findings.KMOD_ARCHITECTURE(kmod=case.name, got=f"ppc64le with ABI {abi}", expected="ppc64le with ABI 2")


def check_sections(case: LoadCase) -> CheckResults:
    """Check that no code is writable, and that the sections that the kernel needs exist (steps 10 and 12)."""
    got = None
    if case.kmod.writable_code and case.kernel.version >= _STRICT and case.is_on("STRICT_MODULE_RWX", True):
        got = f"writable and executable code in {listed(list(case.kmod.writable_code))}"
    elif missing := [name for name in _needed_sections(case) if name not in case.kmod.sections]:
        got = f"no section named {listed(missing)}"
    if got:
        yield findings.KMOD_SECTIONS(kmod=case.name, kernel=case.kernel.release, got=got)


def _needed_sections(case: LoadCase) -> tuple[str, ...]:
    flags = case.kmod.unflagged_exports and case.kernel.version >= SINCE_FLAGS
    return (*_needed_by_architecture(case), *(("__kflagstab",) if flags else ()))


def _needed_by_architecture(case: LoadCase) -> tuple[str, ...]:
    if case.kernel.arch == "arm64":
        jumps = case.kernel.version >= _ARM64_JUMPS or case.is_on("ARM64_MODULE_PLTS", True)
        return (".plt", ".init.plt") if jumps else ()
    if case.kernel.arch == "ppc64le":
        return (".mygot",) if case.is_on("PPC_KERNEL_PCREL", False) else (".stubs",)
    return ()


def check_relocations(case: LoadCase) -> CheckResults:
    """Check the relocations (step 14)."""
    flaw = next((flaw.words for flaw in case.kmod.unrelocatable), None) or _misplaced_entry_point(case)
    if flaw:
        yield findings.KMOD_NOT_LOADABLE(kmod=case.name, got=flaw, kernel=case.kernel.release)


def _misplaced_entry_point(case: LoadCase) -> str | None:
    """Return words for an init or exit at another offset of struct module than in the kernel's own kmods.

    Its address would be written over another field.
    """
    if any(check_layout(case)):
        return None
    for name, offset in case.kmod.entry_offsets.items():
        expected = case.kernel.entry_offsets.get(name)
        if expected not in (None, offset):
            return f"{name} at byte {offset} of struct module, expected {expected}"
    return None
