"""Who provides each symbol that a kmod needs, and which ones the loader refuses (docs/reference/loader.md 1.3, 1.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.names import module_key
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.kmod.sections import SINCE_STRINGS
from kmm_preflight.kmod.symbols import NeededSymbol
from kmm_preflight.kmod.symvers import VMLINUX, Symvers

# Since when modules inherit a proprietary owner's taint, and symbols have namespaces.
_INHERITED, _NAMESPACES = (5, 9), (5, 4)


@dataclass(frozen=True)
class OtherKmods:
    """The kmods around the one that is judged.

    before: those of the image that are loaded before it, in that order; beside: the image's others. in_tree: names of
    the kernel's own kmods that the image's index, or the node, loads before it, with _ for -; removed: of those that
    KMM unloads first (inTreeModulesToRemove).
    """

    before: tuple[KernelObject, ...] = ()
    beside: tuple[KernelObject, ...] = ()
    in_tree: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()


ALONE = OtherKmods()


@dataclass(frozen=True)
class ResolvedSymbol:
    """A symbol where it is found; crc None where it has none."""

    crc: int | None
    gpl: bool
    namespace: str
    proprietary: bool = False


@dataclass
class SymbolProblems:
    """What came of a kmod's symbols, each list in the loader's order; entries are words for a sentence.

    in_tree is by the name of the in-tree kmod that is not loaded.
    """

    absent: list[str] = field(default_factory=list)
    gpl: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    unversioned: list[str] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    in_tree: dict[str, list[str]] = field(default_factory=dict)


def read_crcs(kmod: KernelObject, kernel: KernelFiles) -> Mapping[str, int] | None:
    """The CRCs that this kernel reads from the kmod, None when it sees none."""
    extended = kmod.versions.extended if kernel.version >= SINCE_STRINGS else None
    return extended if extended is not None else kmod.versions.basic


def resolve(kmod: KernelObject, kernel: KernelFiles, symvers: Symvers, around: OtherKmods) -> SymbolProblems:
    """All needed symbols, one after the other: using one may hide others from the kmod."""
    return _Resolver(kmod, kernel, symvers, around).refusals()


class _Resolver:
    """The loader at work on one kmod: it becomes proprietary, or a user of GPL-only symbols, as it goes."""

    def __init__(self, kmod: KernelObject, kernel: KernelFiles, symvers: Symvers, around: OtherKmods) -> None:
        self._kmod, self._kernel, self._symvers, self._around = kmod, kernel, symvers, around
        self._crcs = read_crcs(kmod, kernel) if kernel.versioned else None
        self._proprietary = kmod.proprietary
        self._uses_gpl = False
        self._found = SymbolProblems()

    def refusals(self) -> SymbolProblems:
        for needed in self._kmod.needed:
            self._resolve(needed)
        return self._found

    def _resolve(self, needed: NeededSymbol) -> None:
        candidates = list(self._candidates(needed.name))
        visible = next((one for one in candidates if not (one.gpl and self._proprietary)), None)
        if visible is not None:
            self._use(needed.name, visible)
        elif needed.weak:
            return
        elif candidates:
            self._found.gpl.append(needed.name)
        else:
            self._elsewhere(needed.name)

    def _candidates(self, name: str) -> Iterator[ResolvedSymbol]:
        """Where the loader looks, in its order: vmlinux, then what is loaded; an image's kmod before an in-tree one."""
        exported = self._symvers.find(name)
        mine = ResolvedSymbol(exported.crc or None, exported.gpl, exported.namespace) if exported else None
        if exported and mine and exported.provider == VMLINUX:
            yield mine
        for one in self._around.before:
            if export := one.exports.get(name):
                yield ResolvedSymbol(export.crc, export.gpl, export.namespace, one.proprietary)
        if exported and mine and exported.provider != VMLINUX and _key(exported.provider) in self._around.in_tree:
            yield mine

    def _use(self, name: str, provided: ResolvedSymbol) -> None:
        self._uses_gpl |= provided.gpl
        if provided.proprietary and self._kernel.version >= _INHERITED:
            if self._uses_gpl:
                self._found.mixed.append(name)
                return
            self._proprietary = True
        self._compare(name, provided)

    def _compare(self, name: str, provided: ResolvedSymbol) -> None:
        """CRC, then namespace."""
        expected = self._crcs.get(name) if self._crcs is not None else None
        if self._crcs is not None and provided.crc is not None and expected != provided.crc:
            if expected is None:
                self._found.unversioned.append(name)
                if self._kernel.refuses_incomplete_versions:
                    return
            else:
                self._found.differing.append(f"{name} {expected:#010x} instead of {provided.crc:#010x}")
                return
        if provided.namespace and provided.namespace not in self._kmod.modinfo.namespaces:
            self._namespace(name, provided.namespace)

    def _namespace(self, name: str, namespace: str) -> None:
        configuration = self._kernel.configuration
        allowed = configuration is not None and configuration.on("MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS")
        if self._kernel.version >= _NAMESPACES and not allowed:
            self._found.namespaces.append(f"{name} of {namespace}")

    def _elsewhere(self, name: str) -> None:
        """Nobody who is loaded has it: an in-tree kmod that is not, another kmod of the image, or nobody."""
        other = next((one for one in self._around.beside if name in one.exports), None)
        exported = self._symvers.find(name)
        if other is not None:
            self._found.order.append(f"{name} of {other.name}")
        elif exported is None:
            self._found.absent.append(name)
        elif exported.gpl and self._proprietary:
            self._found.gpl.append(name)
        else:
            self._found.in_tree.setdefault(_key(exported.provider), []).append(name)
            self._use(name, ResolvedSymbol(exported.crc or None, exported.gpl, exported.namespace))


def _key(provider: str) -> str:
    return module_key(provider.rpartition("/")[2])
