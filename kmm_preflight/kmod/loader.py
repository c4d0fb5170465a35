"""Will this kmod load on that kernel? The loader's checks, in its order (docs/reference/loader.md 1, 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod import findings
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.names import module_key
from kmm_preflight.kmod.object import KernelObject, NoModule, Stripped, read_object
from kmm_preflight.kmod.packed import Bytes, unpacked
from kmm_preflight.kmod.resolution import ALONE, OtherKmods, SymbolProblems, read_crcs, resolve
from kmm_preflight.kmod.sections import SINCE_COUNTED, WrongMachine
from kmm_preflight.kmod.symvers import LAYOUT, VMLINUX, Exported
from kmm_preflight.kmod.vermagic import same_vermagic
from kmm_preflight.model import Finding
from kmm_preflight.text import listed

# The first releases that refuse writable code, that want long jumps on arm64 however they are built, that read ppc64's
# ABI, and that refuse type data which does not fit.
_STRICT, _ARM64_JUMPS, _PPC64_ABI, _BTF_REFUSES = (5, 8), (6, 5), (6, 12), (5, 11)


@dataclass(frozen=True)
class _Case:
    """One kmod before one kernel; name is the kmod's in sentences."""

    name: str
    kmod: KernelObject
    kernel: KernelFiles
    around: OtherKmods


@dataclass(frozen=True)
class _Lack:
    """A file of the kernel that a check needs and that is not to be had."""

    what: str


_Told = Iterator[Finding | _Lack]


def read_kmod(name: str, data: Bytes, kernel: KernelFiles) -> KernelObject | Finding:
    """The kmod in these bytes, or why the kernel takes it for none; name is the kmod's in the sentence.

    BoundExceeded for one that asks for more memory than is spent on it.
    """
    try:
        return read_object(data, kernel.machine)
    except WrongMachine as exc:
        return findings.KMOD_ARCHITECTURE(kmod=name, got=exc.message, expected=kernel.machine.word)
    except NoModule as exc:
        return findings.KMOD_NO_MODULE(kmod=name, got=exc.message)
    except Stripped as exc:
        return findings.KMOD_STRIPPED(kmod=name, got=exc.message)
    except Malformed as exc:
        return findings.KMOD_NOT_LOADABLE(kmod=name, got=exc.message, kernel=kernel.release)


def read_kmod_file(name: str, path: Path, kernel: KernelFiles) -> KernelObject | Finding:
    """The same from a file, packed or not."""
    try:
        with unpacked(path) as data:
            return read_kmod(name, data, kernel)
    except Malformed as exc:
        return findings.KMOD_NOT_LOADABLE(kmod=name, got=exc.message, kernel=kernel.release)


def judge_kmod(name: str, kmod: KernelObject, kernel: KernelFiles, around: OtherKmods = ALONE) -> tuple[Finding, ...]:
    """What speaks against the kmod on this kernel, one finding per cause, in the order in which the loader says it.

    Nothing that refutes and nothing undecided means that the loader takes it, as far as files tell: signatures are
    judged elsewhere, and lockdown, parameters and what the kmod's own init answers are in no file.
    """
    case = _Case(name, kmod.seen_by(kernel.version), kernel, around)
    told = [one for check in _CHECKS for one in check(case)]
    found = tuple(one for one in told if isinstance(one, Finding))
    lacking = dict.fromkeys(one.what for one in told if isinstance(one, _Lack))
    if not lacking:
        return found
    what = " and no ".join(lacking)
    return (*found, findings.KERNEL_INPUT_MISSING(kmod=name, kernel=kernel.release, what=what))


def judge_chain(
    kmods: Sequence[tuple[str, KernelObject]],
    kernel: KernelFiles,
    beside: tuple[KernelObject, ...] = (),
    in_tree: frozenset[str] = frozenset(),
    removed: frozenset[str] = frozenset(),
) -> tuple[Finding, ...]:
    """What speaks against loading kmods one after the other: names and objects in modprobe's order.

    The wanted one is last; modprobe stops at the first that is refused. beside are the image's other kmods, in_tree the
    kernel's own that are loaded before all of these, removed those that are unloaded before.
    """
    objects = tuple(kmod.seen_by(kernel.version) for _, kmod in kmods)
    return tuple(
        finding
        for number, (name, kmod) in enumerate(kmods)
        for finding in judge_kmod(name, kmod, kernel, OtherKmods(objects[:number], beside, in_tree, removed))
    )


def _object(case: _Case) -> _Told:
    """(2) What the loader refuses in the object itself, and ppc64's ABI with the architecture (3)."""
    flaw = next((flaw for flaw in case.kmod.flaws if flaw.since <= case.kernel.version), None)
    if flaw:
        yield findings.KMOD_NOT_LOADABLE(kmod=case.name, got=flaw.words, kernel=case.kernel.release)
    abi = case.kmod.flags & 3
    if case.kernel.arch == "ppc64le" and abi != 2 and case.kernel.version >= _PPC64_ABI:
        yield findings.KMOD_ARCHITECTURE(kmod=case.name, got=f"ppc64le with ABI {abi}", expected="ppc64le with ABI 2")


def _layout(case: _Case) -> _Told:
    """(4, 7) The size of struct module, then the CRC of module_layout; one cause, one finding."""
    size, layout = case.kernel.struct_size, _layout_of(case)
    words = None
    if size is not None and case.kernel.version >= SINCE_COUNTED and case.kmod.struct_size != size:
        words = (f"a struct module of {case.kmod.struct_size} bytes", f"{size}")
    elif layout is not None and (got := (_crcs(case) or {}).get(LAYOUT)) not in (None, layout):
        words = (f"{LAYOUT} {got:#010x}", f"{layout:#010x}")
    if words:
        release = case.kernel.release
        yield findings.KMOD_OTHER_KERNEL(kmod=case.name, kernel=release, got=words[0], expected=words[1])


def _layout_of(case: _Case) -> int | None:
    """The kernel's own CRC of it. A Module.symvers without one is a cut file or an out-of-tree one: no mismatch."""
    exported = case.kernel.symvers.find(LAYOUT) if case.kernel.symvers and case.kernel.versioned else None
    return exported.crc or None if exported else None


def _crcs(case: _Case) -> dict[str, int] | None:
    crcs = read_crcs(case.kmod, case.kernel)
    return None if crcs is None else dict(crcs)


def _versions(case: _Case) -> _Told:
    """(7, 8, 12) Without versions, version magic or CRCs of its exports: refused, or taken with a taint."""
    lacking = []
    if case.kernel.versioned is not False and read_crcs(case.kmod, case.kernel) is None:
        lacking.append("symbol versions")
    if case.kmod.modinfo.vermagic is None:
        lacking.append("version magic")
    if case.kernel.versioned is not False and case.kmod.unversioned_exports:
        lacking.append("CRCs of what it exports")
    if not lacking:
        return
    if case.kernel.takes_unversioned is None or case.kernel.versioned is None:
        yield _Lack(".config")
        return
    kind = findings.KMOD_UNVERSIONED if case.kernel.takes_unversioned else findings.KMOD_UNVERSIONED_REFUSED
    yield kind(kmod=case.name, what=" and no ".join(lacking), kernel=case.kernel.release)


def _vermagic(case: _Case) -> _Told:
    """(8) The whole string, or from its first blank on where both sides have symbol versions."""
    got, expected = case.kmod.modinfo.vermagic, case.kernel.vermagic
    if got is None or any(_layout(case)):  # one cause, and the loader tells that one first
        return
    if expected is None or case.kernel.versioned is None:
        yield _Lack(".config")
        return
    versioned = case.kernel.versioned and case.kmod.versions.basic is not None
    if not same_vermagic(got, expected, versioned):
        release = case.kernel.release
        yield findings.KMOD_VERMAGIC(kmod=case.name, got=repr(got), expected=repr(expected), kernel=release)


def _livepatch(case: _Case) -> _Told:
    """(9)."""
    if case.kmod.modinfo.first("livepatch") is None:
        return
    if case.kernel.configuration is None:
        yield _Lack(".config")
    elif not case.kernel.configuration.on("LIVEPATCH"):
        yield findings.KMOD_LIVEPATCH(kmod=case.name, kernel=case.kernel.release)


def _sections(case: _Case) -> _Told:
    """(10) Code that can be written, and sections that an architecture wants."""
    words = None
    if case.kmod.writable_code and case.kernel.version >= _STRICT and _on(case, "STRICT_MODULE_RWX", True):
        words = (f"{listed(list(case.kmod.writable_code))} to write and execute", "none of that kind")
    elif missing := [name for name in _wanted_sections(case) if name not in case.kmod.sections]:
        words = (f"none named {listed(missing)}", "them")
    if words:
        release = case.kernel.release
        yield findings.KMOD_SECTIONS(kmod=case.name, kernel=release, got=words[0], expected=words[1])


def _wanted_sections(case: _Case) -> tuple[str, ...]:
    if case.kernel.arch == "arm64":
        jumps = case.kernel.version >= _ARM64_JUMPS or _on(case, "ARM64_MODULE_PLTS", True)
        return (".plt", ".init.plt") if jumps else ()
    if case.kernel.arch == "ppc64le":
        return (".mygot",) if _on(case, "PPC_KERNEL_PCREL", False) else (".stubs",)
    return ()


def _on(case: _Case, option: str, unknown: bool) -> bool:
    return unknown if case.kernel.configuration is None else case.kernel.configuration.on(option)


def _symbols(case: _Case) -> _Told:
    """(13) Every symbol that the kmod needs."""
    if case.kmod.common:
        yield findings.KMOD_COMMON(kmod=case.name, symbols=listed(list(case.kmod.common)))
    if case.kernel.symvers is None or not len(case.kernel.symvers):
        yield _Lack("Module.symvers")
        return
    if case.kernel.versioned and not case.kernel.symvers.versioned:
        yield _Lack("Module.symvers with the versions of its symbols")
    refusals = resolve(case.kmod, case.kernel, case.kernel.symvers, case.around)
    yield from _unprovided(case, refusals)
    yield from _unfit(case, refusals)


def _unprovided(case: _Case, refusals: SymbolProblems) -> _Told:
    name, kernel = case.name, case.kernel.release
    if refusals.absent:
        yield findings.KMOD_SYMBOLS_ABSENT(kmod=name, kernel=kernel, symbols=listed(refusals.absent))
    if refusals.gpl:
        license = repr(case.kmod.modinfo.license) if case.kmod.proprietary else "of a proprietary kmod that it uses"
        yield findings.KMOD_SYMBOLS_GPL(kmod=name, symbols=listed(refusals.gpl), license=license)
    if refusals.mixed:
        yield findings.KMOD_PROPRIETARY_OWNER(kmod=name, symbols=listed(refusals.mixed))
    if refusals.order:
        yield findings.KMOD_ORDER(kmod=name, symbols=listed(refusals.order))
    if refusals.in_tree:
        symbols = [symbol for of_one in refusals.in_tree.values() for symbol in of_one]
        modules = listed(list(refusals.in_tree))
        yield findings.KMOD_NEEDS_IN_TREE(kmod=name, modules=modules, symbols=listed(symbols))


def _unfit(case: _Case, refusals: SymbolProblems) -> _Told:
    name, kernel = case.name, case.kernel.release
    # A kmod of another kernel build differs in hundreds of symbols: that cause is told already.
    if refusals.differing and not any(_layout(case)):
        count, symbols = len(refusals.differing), listed(refusals.differing)
        all_of_them = len(case.kmod.needed)
        yield findings.KMOD_SYMBOLS_DIFFER(kmod=name, count=count, all=all_of_them, symbols=symbols, kernel=kernel)
    unversioned = [*_unversioned_layout(case), *refusals.unversioned]
    if unversioned:
        refused = case.kernel.refuses_incomplete_versions
        kind = findings.KMOD_SYMBOLS_UNVERSIONED_REFUSED if refused else findings.KMOD_SYMBOLS_UNVERSIONED
        yield kind(kmod=name, symbols=listed(unversioned), kernel=kernel)
    if refusals.namespaces:
        yield findings.KMOD_NAMESPACE(kmod=name, symbols=listed(refusals.namespaces))


def _unversioned_layout(case: _Case) -> list[str]:
    crcs = _crcs(case)
    return [LAYOUT] if _layout_of(case) is not None and crcs is not None and LAYOUT not in crcs else []


def _relocations(case: _Case) -> _Told:
    """(14)."""
    words = next((flaw.words for flaw in case.kmod.unrelocatable), None) or _misplaced(case)
    if words:
        yield findings.KMOD_NOT_LOADABLE(kmod=case.name, got=words, kernel=case.kernel.release)


def _misplaced(case: _Case) -> str:
    """Words for an init or exit elsewhere in struct module than in the kernel's: it is written over something else."""
    if any(_layout(case)):
        return ""
    places = ((name, place, case.kernel.starts.get(name)) for name, place in case.kmod.starts.items())
    wrong = (one for one in places if one[2] not in (None, one[1]))
    return next((f"{name} at byte {got} of struct module, expected {expected}" for name, got, expected in wrong), "")


def _exports(case: _Case) -> _Told:
    """(15) What it exports must be new: in vmlinux and in what is loaded before it, perhaps in other in-tree kmods."""
    clashing, doubtful = [], []
    for name in case.kmod.exports:
        exported = case.kernel.symvers.find(name) if case.kernel.symvers else None
        if exported and _loaded(exported, case.around):
            clashing.append(f"{name} of {exported.provider}")
        elif other := next((one for one in case.around.before if name in one.exports), None):
            clashing.append(f"{name} of {other.name}")
        elif exported and _owner(exported) not in case.around.removed:
            doubtful.append(f"{name} of {exported.provider}")
    if clashing:
        yield findings.KMOD_EXPORTS_CLASH(kmod=case.name, symbols=listed(clashing))
    if doubtful:
        yield findings.KMOD_EXPORTS_IN_TREE(kmod=case.name, symbols=listed(doubtful))


def _loaded(exported: Exported, around: OtherKmods) -> bool:
    return exported.provider == VMLINUX or _owner(exported) in around.in_tree


def _owner(exported: Exported) -> str:
    return module_key(exported.provider.rpartition("/")[2])


def _btf(case: _Case) -> _Told:
    """(16) Type data refers by number to those of the vmlinux beside which it was built."""
    release = (case.kmod.modinfo.vermagic or "an unknown kernel").partition(" ")[0]
    if ".BTF" not in case.kmod.sections or release == case.kernel.release or case.kernel.version < _BTF_REFUSES:
        return
    if case.kernel.configuration is None:
        yield _Lack(".config")
    elif _on(case, "DEBUG_INFO_BTF_MODULES", False) and not _on(case, "MODULE_ALLOW_BTF_MISMATCH", False):
        yield findings.KMOD_BTF(kmod=case.name, got=release, kernel=case.kernel.release)


def _name(case: _Case) -> _Told:
    """(11, 18) The module's own name, which need not be its file's."""
    key = case.kmod.name.replace("-", "_")
    if key in case.kernel.with_parameters:
        yield findings.KMOD_NAME_BUILT_IN(kmod=case.name, name=case.kmod.name, kernel=case.kernel.release)
    elif key in case.kernel.in_tree - case.around.removed:
        yield findings.KMOD_NAME_IN_TREE(kmod=case.name, name=case.kmod.name)


_CHECKS: tuple[Callable[[_Case], _Told], ...] = (
    _object,
    _layout,
    _versions,
    _vermagic,
    _livepatch,
    _sections,
    _symbols,
    _relocations,
    _exports,
    _btf,
    _name,
)
