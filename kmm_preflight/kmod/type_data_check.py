"""Check of a kmod's type data (BTF) against that of the kernel (docs/reference/loader.md 1.6)."""

from __future__ import annotations

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod import findings
from kmm_preflight.kmod.load_case import CheckResults, LoadCase, MissingInput
from kmm_preflight.kmod.type_data import Doubtful, TypeData, missing_types
from kmm_preflight.model import Finding
from kmm_preflight.text import listed

# The first releases that refuse type data that does not fit, and that read .BTF.base.
_REFUSED, _WITH_BASE = (5, 11), (6, 11)


def check_type_data(case: LoadCase) -> CheckResults:
    """Check the type data (step 16), which refers by number to the types of the vmlinux of the kmod's build."""
    if not case.kmod.type_data or case.kernel.version < _REFUSED:
        return
    if case.kernel.configuration is None:
        yield MissingInput(".config")
        return
    if not case.is_on("DEBUG_INFO_BTF_MODULES", False) or case.is_on("MODULE_ALLOW_BTF_MISMATCH", False):
        return
    kernel, base = case.kernel.type_data, case.kmod.type_data_base
    if kernel is None or (base and case.kernel.version < _WITH_BASE):
        yield _undecided(case, "the type data of that kernel is not available")
        return
    try:
        doubt = _doubt_with_base(case, kernel) if base else _doubt(case, kernel)
    except Doubtful as exc:
        doubt = f"it has {exc.message}"
    except Malformed as exc:
        yield findings.KMOD_BTF_UNFIT(kmod=case.name, kernel=case.kernel.release, got=exc.message)
        return
    if doubt:
        yield _undecided(case, doubt)


def _undecided(case: LoadCase, why: str) -> Finding:
    release = (case.kmod.modinfo.vermagic or "an unknown kernel").partition(" ")[0]
    return findings.KMOD_BTF(kmod=case.name, kernel=case.kernel.release, got=release, why=why)


def _doubt(case: LoadCase, kernel: TypeData) -> str | None:
    """Return words for type data that may not fit, None if it fits. Raise Malformed if it does not."""
    own = TypeData(case.kmod.type_data, case.kmod.machine.order, kernel)
    own.check()
    return None if own.fits_exactly() else "its names are not those of a build for that kernel"


def _doubt_with_base(case: LoadCase, kernel: TypeData) -> str | None:
    """Return words for type data whose base may not fit, None if it fits. Raise Malformed for damage."""
    base = TypeData(case.kmod.type_data_base, case.kmod.machine.order)
    base.check()
    own = TypeData(case.kmod.type_data, case.kmod.machine.order, base)
    own.check()
    if not own.uses_names_of(base):
        raise Malformed("a name from .BTF.base that no type there has")
    missing = missing_types(base, kernel)
    return f"that kernel lacks the types {listed(missing)}" if missing else None
