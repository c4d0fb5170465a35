"""Resolution of the symbols that a kmod needs, and the loader's refusals (docs/reference/loader.md 1.3, 1.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.names import module_key
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.kmod.sections import SINCE_STRINGS
from kmm_preflight.kmod.symbols import NeededSymbol
from kmm_preflight.kmod.symvers import VMLINUX, ExportedSymbol, Symvers

# Releases since which a kmod inherits the taint of a proprietary provider, since which symbols have namespaces, and
# since which a namespace can name the kmods that may use its symbols.
_INHERITED, _NAMESPACES, SINCE_RESERVED = (5, 9), (5, 4), (6, 16)
RESERVED = "module:"


@dataclass(frozen=True)
class OtherKmods:
    """Kmods besides the one that is judged. Names have _ for -."""

    before: tuple[KernelObject, ...] = ()
    """Kmods of the image that are loaded before it, in the order of loading."""
    not_loaded: tuple[KernelObject, ...] = ()
    """Kmods of the image that are not loaded before it."""
    in_tree: frozenset[str] = frozenset()
    """The kernel's own kmods that the image's index, or the node, loads before it."""
    removed: frozenset[str] = frozenset()
    """The kernel's own kmods that KMM unloads first (inTreeModulesToRemove)."""


NO_OTHERS = OtherKmods()


@dataclass(frozen=True)
class ResolvedSymbol:
    """A needed symbol at its provider."""

    crc: int | None
    """CRC of the symbol, or None without symbol versions."""
    gpl: bool
    """True if only GPL-compatible kmods may use the symbol."""
    namespace: str | None
    """Namespace that users of the symbol must import, or None."""
    proprietary: bool = False
    """True if the provider is a proprietary kmod."""


@dataclass
class SymbolProblems:
    """Symbols of a kmod that the loader refuses or warns about. Each list is in the loader's order.

    The entries are words for a sentence: a name, some with a detail.
    """

    absent: list[str] = field(default_factory=list)
    """Symbols that nothing exports."""
    gpl: list[str] = field(default_factory=list)
    """GPL-only symbols that a proprietary kmod needs."""
    mixed: list[str] = field(default_factory=list)
    """Symbols of a proprietary kmod, needed by a kmod that uses GPL-only symbols."""
    differing: list[str] = field(default_factory=list)
    """Symbols with another CRC, with both CRCs."""
    unversioned: list[str] = field(default_factory=list)
    """Symbols that the kmod's versions do not name."""
    namespaces: list[str] = field(default_factory=list)
    """Symbols of namespaces that the kmod does not import, with the namespace."""
    reserved: list[str] = field(default_factory=list)
    """Symbols that only kmods of other names may use, with the namespace."""
    order: list[str] = field(default_factory=list)
    """Symbols of the image's kmods that are not loaded before, with the kmod."""
    in_tree: dict[str, list[str]] = field(default_factory=dict)
    """Symbols of the kernel's own kmods that are not loaded, by the name of the kmod."""


def read_crcs(kmod: KernelObject, kernel: KernelFiles) -> Mapping[str, int] | None:
    """Return the CRCs that the kernel reads from the kmod, or None if it finds no versions."""
    extended = kmod.versions.extended if kernel.version >= SINCE_STRINGS else None
    return extended if extended is not None else kmod.versions.basic


def resolve(kmod: KernelObject, kernel: KernelFiles, symvers: Symvers, others: OtherKmods) -> SymbolProblems:
    """Resolve the needed symbols in the loader's order: a symbol that is used can hide later ones from the kmod."""
    return _Resolver(kmod, kernel, symvers, others).problems()


def is_reserved_for(namespace: str, kmod: str) -> bool:
    """True if the namespace names the kmod among those that may use its symbols, as in `module:kvm-amd,kvm*`."""
    name = kmod.replace("-", "_")
    patterns = namespace.removeprefix(RESERVED).replace("-", "_").split(",") if namespace.startswith(RESERVED) else []
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns if pattern
    )


def provider_key(exported: ExportedSymbol) -> str:
    """Return the name of the in-tree kmod that exports the symbol, with _ for -."""
    return module_key(exported.provider.rpartition("/")[2])


class _Resolver:
    """The loader's work on one kmod, which can become proprietary or a user of GPL-only symbols on the way."""

    def __init__(self, kmod: KernelObject, kernel: KernelFiles, symvers: Symvers, others: OtherKmods) -> None:
        self._kmod, self._kernel, self._symvers, self._others = kmod, kernel, symvers, others
        self._crcs = read_crcs(kmod, kernel) if kernel.versioned else None
        self._proprietary = kmod.proprietary
        self._uses_gpl = False
        self._problems = SymbolProblems()

    def problems(self) -> SymbolProblems:
        for needed in self._kmod.needed:
            self._resolve(needed)
        return self._problems

    def _resolve(self, needed: NeededSymbol) -> None:
        candidates = list(self._candidates(needed.name))
        visible = next((symbol for symbol in candidates if not (symbol.gpl and self._proprietary)), None)
        if visible is not None:
            self._use(needed.name, visible)
        elif needed.weak:
            return
        elif candidates:
            self._problems.gpl.append(needed.name)
        else:
            self._resolve_unloaded(needed.name)

    def _candidates(self, name: str) -> Iterator[ResolvedSymbol]:
        """Yield the loaded providers in the loader's order: vmlinux, kmods of the image, the kernel's own kmods."""
        exported = self._symvers.find(name)
        if exported and exported.provider == VMLINUX:
            yield _resolved(exported)
        for kmod in self._others.before:
            if export := kmod.exports.get(name):
                yield ResolvedSymbol(export.crc, export.gpl, export.namespace, kmod.proprietary)
        if exported and exported.provider != VMLINUX and provider_key(exported) in self._others.in_tree:
            yield _resolved(exported)

    def _use(self, name: str, symbol: ResolvedSymbol) -> None:
        self._uses_gpl |= symbol.gpl
        if symbol.proprietary and self._kernel.version >= _INHERITED:
            if self._uses_gpl:
                self._problems.mixed.append(name)
                return
            self._proprietary = True
        self._compare(name, symbol)

    def _compare(self, name: str, symbol: ResolvedSymbol) -> None:
        """Compare the CRC first, then the namespace."""
        expected = self._crcs.get(name) if self._crcs is not None else None
        if self._crcs is not None and symbol.crc is not None and expected != symbol.crc:
            if expected is None:
                self._problems.unversioned.append(name)
                if self._kernel.refuses_incomplete_versions:
                    return
            else:
                self._problems.differing.append(f"{name} {expected:#010x} instead of {symbol.crc:#010x}")
                return
        if symbol.namespace and not self._is_open(symbol.namespace):
            self._add_namespace(name, symbol.namespace)

    def _is_open(self, namespace: str) -> bool:
        """True if the kmod may use the symbols of a namespace: it has an allowed name, or imports the namespace."""
        if self._kernel.version >= SINCE_RESERVED and is_reserved_for(namespace, self._kmod.name):
            return True
        return namespace in self._kmod.modinfo.namespaces

    def _add_namespace(self, name: str, namespace: str) -> None:
        configuration = self._kernel.configuration
        allowed = configuration is not None and configuration.on("MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS")
        if self._kernel.version >= _NAMESPACES and not allowed:
            reserved = namespace.startswith(RESERVED) and self._kernel.version >= SINCE_RESERVED
            names = self._problems.reserved if reserved else self._problems.namespaces
            names.append(f"{name} of {namespace}")

    def _resolve_unloaded(self, name: str) -> None:
        """Look for the symbol in kmods that are not loaded: those of the image, then the kernel's own."""
        other = next((kmod for kmod in self._others.not_loaded if name in kmod.exports), None)
        exported = self._symvers.find(name)
        if other is not None:
            self._problems.order.append(f"{name} of {other.name}")
        elif exported is None:
            self._problems.absent.append(name)
        elif exported.gpl and self._proprietary:
            self._problems.gpl.append(name)
        else:
            self._problems.in_tree.setdefault(provider_key(exported), []).append(name)
            self._use(name, _resolved(exported))


def _resolved(exported: ExportedSymbol) -> ResolvedSymbol:
    return ResolvedSymbol(exported.crc, exported.gpl, exported.namespace)
