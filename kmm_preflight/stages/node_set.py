"""Kmods of several Modules on one node: they are one set for the kernel (docs/reference/loader.md 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kmm_preflight.kmod import findings as kmod_findings
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.model import Finding, ModuleName, Severity
from kmm_preflight.stages import findings
from kmm_preflight.text import listed


@dataclass(frozen=True)
class LoadedKmod:
    """A kmod that a node loads for a Module."""

    path: str
    """Path in the image, with the first slash."""
    digest: str
    """Digest of its code (kmod/code_digest.py)."""
    kmod: KernelObject
    """The kmod."""

    @property
    def name(self) -> str:
        """The kmod's own name, with _ for -."""
        return self.kmod.name.replace("-", "_")


@dataclass(frozen=True)
class LoadedSet:
    """The kmods that a node loads for a Module, in order, and whether they load without other Modules."""

    kmods: tuple[LoadedKmod, ...] = ()
    """The kmods of the image."""
    in_tree: frozenset[str] = frozenset()
    """The kernel's own kmods that are loaded with them."""
    removed: frozenset[str] = frozenset()
    """The kernel's own kmods that KMM unloads first."""
    refuted: bool = False
    """True if the kmods do not load, whatever other Modules load."""
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Symbols that neither the kernel nor the image exports, by the path of the kmod that needs them."""
    depends: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Names of other images' kmods that the build of a kmod knew, by the path of a kmod that lacks symbols."""
    unknown: str | None = None
    """The reason why the kmods are not known, in words, or None."""

    @property
    def all_absent(self) -> tuple[str, ...]:
        """All symbols that neither the kernel nor the image exports, each once."""
        return tuple(dict.fromkeys(name for names in self.absent.values() for name in names))


@dataclass(frozen=True)
class Neighbour:
    """Another Module that may load its kmods on the same nodes."""

    module: ModuleName
    """Its name."""
    loaded: LoadedSet = field(default_factory=LoadedSet)
    """Its kmods."""
    certain: bool = True
    """True if a node loads the kmods of both Modules. False if that is only possible."""
    covers: bool = True
    """True if each node of this Module loads the other Module's kmods too."""


Resolve = Callable[[LoadedSet, tuple[KernelObject, ...]], tuple[Finding, ...]]
"""Return the loader's findings about a set of kmods if other kmods are loaded before."""


def judge_together(
    own: LoadedSet, alone: tuple[Finding, ...], neighbours: Sequence[Neighbour], resolve: Resolve
) -> tuple[Finding, ...]:
    """Return the findings about a Module's kmods next to those of other Modules. alone: the findings without them."""
    loading = _loading(neighbours, resolve)
    resolved = _resolved(own, alone, neighbours, loading, resolve)
    return (*_clashes(own, loading), *resolved)


def _loading(neighbours: Sequence[Neighbour], resolve: Resolve) -> list[Neighbour]:
    """Return the Modules whose kmods load, alone or after those of others."""
    loading = [other for other in neighbours if _known(other) and not other.loaded.absent]
    waiting = [other for other in neighbours if _known(other) and other.loaded.absent]
    while waiting:
        before = tuple(kmod.kmod for other in loading for kmod in other.loaded.kmods)
        able = [other for other in waiting if not _refuted(resolve(other.loaded, before))]
        if not able:
            break
        loading += able
        waiting = [other for other in waiting if other not in able]
    return loading


def _known(other: Neighbour) -> bool:
    return not other.loaded.refuted and other.loaded.unknown is None


def _refuted(found: Iterable[Finding]) -> bool:
    return any(finding.severity is Severity.REFUTES for finding in found)


def _resolved(
    own: LoadedSet,
    alone: tuple[Finding, ...],
    neighbours: Sequence[Neighbour],
    loading: Sequence[Neighbour],
    resolve: Resolve,
) -> tuple[Finding, ...]:
    """Return the findings about symbols, with the kmods of other Modules that export them."""
    if not own.absent:
        return alone
    providers = [
        (other, kmod, names)
        for other in loading
        for kmod in other.loaded.kmods
        if (names := [name for name in own.all_absent if name in kmod.kmod.exports])
    ]
    found = resolve(own, tuple(kmod.kmod for _, kmod, _ in providers)) if providers else alone
    if any(finding.id == kmod_findings.KMOD_SYMBOLS_ABSENT.id for finding in found):
        found = _unless_foreign(own, found, neighbours)
    return (*found, *(_provided(own, *provider) for provider in providers))


def _unless_foreign(own: LoadedSet, found: tuple[Finding, ...], neighbours: Sequence[Neighbour]) -> tuple[Finding, ...]:
    """Return the findings, undecided instead of refuted if kmods that this run does not know may export the symbols.

    These are kmods of Modules that could not be read, and kmods that the build of the kmod knew (its tag depends) and
    that neither the kernel, the image nor a Module of the run has.
    """
    unknown = [f"{other.module} ({other.loaded.unknown})" for other in neighbours if other.loaded.unknown]
    theirs = {kmod.name for other in neighbours for kmod in other.loaded.kmods}
    foreign = {path: own.depends.get(path, frozenset()) - theirs for path in own.absent}
    if not unknown and not all(foreign.values()):
        return found
    kmods = sorted({f"kmod {name}" for names in foreign.values() for name in names})
    others = [finding for finding in found if finding.id != kmod_findings.KMOD_SYMBOLS_ABSENT.id]
    values = {"kmod": next(iter(own.absent)), "symbols": listed(list(own.all_absent))}
    return (*others, findings.NODE_SYMBOLS_OPEN(others=listed(unknown + kmods), **values))


def _provided(own: LoadedSet, other: Neighbour, provider: LoadedKmod, names: list[str]) -> Finding:
    kind = findings.NODE_SYMBOLS_PROVIDED if other.covers else findings.NODE_SYMBOLS_ELSEWHERE
    values = {"kmod": own.kmods[-1].path, "symbols": listed(names), "other": provider.name, "module": other.module}
    return kind(**values)


def _clashes(own: LoadedSet, loading: Iterable[Neighbour]) -> Iterator[Finding]:
    """Yield findings for kmods that the kernel does not load next to each other."""
    for other in loading:
        for mine in own.kmods:
            for theirs in other.loaded.kmods:
                yield from _clash(mine, theirs, other)


def _clash(mine: LoadedKmod, theirs: LoadedKmod, other: Neighbour) -> Iterator[Finding]:
    if mine.digest == theirs.digest:
        return
    values = {"kmod": mine.path, "other": theirs.path, "module": other.module}
    if mine.name == theirs.name:
        if other.certain:
            yield findings.NODE_NAME_CLASH(name=mine.name, **values)
        else:
            yield findings.NODE_CLASH_OPEN(got=f"both have the name {mine.name}", **values)
    elif both := [name for name in mine.kmod.exports if name in theirs.kmod.exports]:
        if other.certain:
            yield findings.NODE_EXPORTS_CLASH(symbols=listed(both), **values)
        else:
            yield findings.NODE_CLASH_OPEN(got=f"both export {listed(both)}", **values)
