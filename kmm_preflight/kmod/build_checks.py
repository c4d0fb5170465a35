"""Checks that the kmod was built for this kernel: struct module, symbol versions, version magic, live patches, BTF."""

from __future__ import annotations

from kmm_preflight.kmod import findings
from kmm_preflight.kmod.load_case import CheckResults, LoadCase, MissingInput
from kmm_preflight.kmod.resolution import read_crcs
from kmm_preflight.kmod.sections import SINCE_COUNTED
from kmm_preflight.kmod.symvers import LAYOUT
from kmm_preflight.kmod.vermagic import vermagic_matches


def check_layout(case: LoadCase) -> CheckResults:
    """Compare the size of struct module, then the CRC of module_layout (steps 4 and 7).

    Both have one cause, so there is at most one finding.
    """
    got, expected = None, None
    size, layout = case.kernel.struct_size, layout_crc(case)
    own_layout = (read_crcs(case.kmod, case.kernel) or {}).get(LAYOUT)
    if size is not None and case.kernel.version >= SINCE_COUNTED and case.kmod.struct_size != size:
        got, expected = f"struct module of {case.kmod.struct_size} bytes", f"{size} bytes"
    elif layout is not None and own_layout not in (None, layout):
        got, expected = f"{LAYOUT} {own_layout:#010x}", f"{layout:#010x}"
    if got:
        yield findings.KMOD_OTHER_KERNEL(kmod=case.name, kernel=case.kernel.release, got=got, expected=expected)


def layout_crc(case: LoadCase) -> int | None:
    """Return the kernel's CRC of module_layout, or None.

    A Module.symvers without this symbol is incomplete, or from an out-of-tree build. That is not a mismatch.
    """
    exported = case.kernel.symvers.find(LAYOUT) if case.kernel.symvers and case.kernel.versioned else None
    return exported.crc if exported else None


def check_versions(case: LoadCase) -> CheckResults:
    """Check that the kmod has symbol versions, version magic and CRCs of its exports (steps 7, 8 and 12).

    Without them the kernel refuses the kmod, or loads it with a taint.
    """
    lacking = []
    if case.kernel.versioned is not False and read_crcs(case.kmod, case.kernel) is None:
        lacking.append("symbol versions")
    if case.kmod.modinfo.vermagic is None:
        lacking.append("version magic")
    if case.kernel.versioned is not False and case.kmod.unversioned_exports:
        lacking.append("CRCs of its exports")
    if not lacking:
        return
    if case.kernel.takes_unversioned is None or case.kernel.versioned is None:
        yield MissingInput(".config")
        return
    kind = findings.KMOD_UNVERSIONED if case.kernel.takes_unversioned else findings.KMOD_UNVERSIONED_REFUSED
    yield kind(kmod=case.name, what=" and no ".join(lacking), kernel=case.kernel.release)


def check_vermagic(case: LoadCase) -> CheckResults:
    """Compare the version magic (step 8). The release may differ if both sides have symbol versions."""
    got, expected = case.kmod.modinfo.vermagic, case.kernel.vermagic
    if got is None or any(check_layout(case)):  # one cause; the loader reports the layout first
        return
    if expected is None or case.kernel.versioned is None:
        yield MissingInput(".config")
        return
    versioned = case.kernel.versioned and case.kmod.versions.basic is not None
    if not vermagic_matches(got, expected, versioned):
        release = case.kernel.release
        yield findings.KMOD_VERMAGIC(kmod=case.name, got=repr(got), expected=repr(expected), kernel=release)


def check_livepatch(case: LoadCase) -> CheckResults:
    """If the kmod is a live patch, check that the kernel supports live patches (step 9)."""
    if case.kmod.modinfo.first("livepatch") is None:
        return
    if case.kernel.configuration is None:
        yield MissingInput(".config")
    elif not case.kernel.configuration.on("LIVEPATCH"):
        yield findings.KMOD_LIVEPATCH(kmod=case.name, kernel=case.kernel.release)
