"""Checks of symbols: those that the kmod needs, those that it exports, and its own name."""

from __future__ import annotations

from kmm_preflight.kmod import findings
from kmm_preflight.kmod.build_checks import check_layout, layout_crc
from kmm_preflight.kmod.load_case import CheckResults, LoadCase, MissingInput
from kmm_preflight.kmod.resolution import (
    RESERVED,
    SINCE_RESERVED,
    OtherKmods,
    SymbolProblems,
    provider_key,
    read_crcs,
    resolve,
)
from kmm_preflight.kmod.symvers import LAYOUT, VMLINUX, ExportedSymbol
from kmm_preflight.text import listed


def check_imports(case: LoadCase) -> CheckResults:
    """Check that the kmod imports no namespace that is for kmods of certain names only (step 13)."""
    imported = [name for name in case.kmod.modinfo.all("import_ns") if name.startswith(RESERVED)]
    if imported and case.kernel.version >= SINCE_RESERVED:
        kernel = case.kernel.release
        yield findings.KMOD_NAMESPACE_IMPORT(kmod=case.name, namespaces=listed(imported), kernel=kernel)


def check_symbols(case: LoadCase) -> CheckResults:
    """Check all symbols that the kmod needs (step 13)."""
    if case.kmod.common:
        yield findings.KMOD_COMMON(kmod=case.name, symbols=listed(list(case.kmod.common)))
    if case.kernel.symvers is None or not len(case.kernel.symvers):
        yield MissingInput("Module.symvers")
        return
    if case.kernel.versioned and not case.kernel.symvers.has_crcs:
        yield MissingInput("Module.symvers with the versions of its symbols")
    elif case.kernel.versioned and not case.kernel.symvers.versioned:
        yield MissingInput("Module.symvers with module_layout")  # a part of the kernel's list can only refute
    problems = resolve(case.kmod, case.kernel, case.kernel.symvers, case.others)
    yield from _unavailable(case, problems)
    yield from _unfit(case, problems)


def _unavailable(case: LoadCase, problems: SymbolProblems) -> CheckResults:
    """Yield findings for symbols that the kmod cannot use at all."""
    name, kernel = case.name, case.kernel.release
    if problems.absent:
        yield findings.KMOD_SYMBOLS_ABSENT(kmod=name, kernel=kernel, symbols=listed(problems.absent))
    if problems.gpl:
        own_license = f"its licence is {case.kmod.modinfo.license or ''!r}"
        license = own_license if case.kmod.proprietary else "it uses a proprietary kmod, so it counts as proprietary"
        yield findings.KMOD_SYMBOLS_GPL(kmod=name, symbols=listed(problems.gpl), license=license)
    if problems.mixed:
        yield findings.KMOD_PROPRIETARY_OWNER(kmod=name, symbols=listed(problems.mixed))
    if problems.order:
        yield findings.KMOD_ORDER(kmod=name, symbols=listed(problems.order))
    if problems.in_tree:
        symbols = [symbol for of_module in problems.in_tree.values() for symbol in of_module]
        modules = listed(list(problems.in_tree))
        yield findings.KMOD_NEEDS_IN_TREE(kmod=name, modules=modules, symbols=listed(symbols))


def _unfit(case: LoadCase, problems: SymbolProblems) -> CheckResults:
    """Yield findings for symbols with another version, without a version, or of a namespace that is not imported."""
    name, kernel = case.name, case.kernel.release
    # A kmod of another kernel build differs in hundreds of symbols. The finding of the layout has that cause already.
    if problems.differing and not any(check_layout(case)):
        count, symbols = len(problems.differing), listed(problems.differing)
        all_needed = len(case.kmod.needed)
        yield findings.KMOD_SYMBOLS_DIFFER(kmod=name, count=count, all=all_needed, symbols=symbols, kernel=kernel)
    unversioned = [*_unversioned_layout(case), *problems.unversioned]
    if unversioned:
        refused = case.kernel.refuses_incomplete_versions
        kind = findings.KMOD_SYMBOLS_UNVERSIONED_REFUSED if refused else findings.KMOD_SYMBOLS_UNVERSIONED
        yield kind(kmod=name, symbols=listed(unversioned), kernel=kernel)
    if problems.reserved:
        yield findings.KMOD_NAMESPACE_RESERVED(kmod=name, symbols=listed(problems.reserved), kernel=kernel)
    if problems.namespaces:
        yield findings.KMOD_NAMESPACE(kmod=name, symbols=listed(problems.namespaces))


def _unversioned_layout(case: LoadCase) -> list[str]:
    """Return module_layout if the kernel has a version of it and the kmod's versions do not name it."""
    crcs = read_crcs(case.kmod, case.kernel)
    return [LAYOUT] if layout_crc(case) is not None and crcs is not None and LAYOUT not in crcs else []


def check_exports(case: LoadCase) -> CheckResults:
    """Check that no code that is loaded exports a symbol of the same name (step 15).

    A kmod of the kernel's own that may be loaded leads to a warning.
    """
    clashing, doubtful = [], []
    for name in case.kmod.exports:
        exported = case.kernel.symvers.find(name) if case.kernel.symvers else None
        if exported and _is_loaded(exported, case.others):
            clashing.append(f"{name} of {exported.provider}")
        elif other := next((kmod for kmod in case.others.before if name in kmod.exports), None):
            clashing.append(f"{name} of {other.name}")
        elif exported and provider_key(exported) not in case.others.removed:
            doubtful.append(f"{name} of {exported.provider}")
    if clashing:
        yield findings.KMOD_EXPORTS_CLASH(kmod=case.name, symbols=listed(clashing))
    if doubtful and not _is_copy(case):
        yield findings.KMOD_EXPORTS_IN_TREE(kmod=case.name, symbols=listed(doubtful))


def _is_loaded(exported: ExportedSymbol, others: OtherKmods) -> bool:
    return exported.provider == VMLINUX or provider_key(exported) in others.in_tree


def check_name(case: LoadCase) -> CheckResults:
    """Check that no module of the kernel has the kmod's own name, which may differ from its file's (steps 11, 18)."""
    key = case.kmod.name.replace("-", "_")
    if key in case.kernel.with_parameters:
        yield findings.KMOD_NAME_BUILT_IN(kmod=case.name, name=case.kmod.name, kernel=case.kernel.release)
    elif key in case.kernel.in_tree and _is_copy(case):
        yield findings.KMOD_COPY_IN_TREE(kmod=case.name, name=case.kmod.name, kernel=case.kernel.release)
    elif key in case.kernel.in_tree - case.others.removed:
        yield findings.KMOD_NAME_IN_TREE(kmod=case.name, name=case.kmod.name)


def _is_copy(case: LoadCase) -> bool:
    """True if the kmod is the kernel's own: its build says so (intree), and its version magic has this very release."""
    vermagic = case.kmod.modinfo.vermagic
    is_own = case.kmod.modinfo.first("intree") == "Y"
    return is_own and vermagic is not None and vermagic == case.kernel.vermagic
