"""Find the files that modprobe loads for a name from a folder of an image (docs/reference/loader.md 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kmm_preflight.catalogue import FindingKind
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod import findings
from kmm_preflight.kmod.index import LoadOrder, ModuleIndex, in_folder, load_order
from kmm_preflight.model import Finding
from kmm_preflight.text import listed

INDEX = "modules.dep.bin"
_TEXT = "modules.dep"


@dataclass(frozen=True)
class ModprobeFolder:
    """Where modprobe looks: -d directory, -S kernel; folder is the two joined, without a slash before it.

    node is where the folder is for modprobe, "" when that is the same.
    """

    directory: str
    kernel: str
    folder: str
    node: str = ""


@dataclass(frozen=True)
class LookupResult:
    """The files to load, the wanted one last, as paths in modprobe's root; what there is to tell beside them."""

    paths: tuple[str, ...]
    notes: tuple[Finding, ...] = ()


def look_up(
    place: ModprobeFolder, name: str, index: bytes | None, names: frozenset[str], exists: Callable[[str], bool]
) -> LookupResult | Finding:
    """What modprobe loads for the name, or the finding for which it loads nothing.

    index: the bytes of modules.dep.bin, None when it is not there; names: what stands beside it. exists: whether a
    path in modprobe's root leads to something for the node, links followed.
    """
    if index is None:
        got = f"only the text {_TEXT}" if _TEXT in names else "none"
        return _finding(findings.INDEX_ABSENT, place, got=got)
    try:
        read = ModuleIndex(index)
        order = load_order(read, name, lambda path: exists(_rooted(place, path)))
        if order is None:
            return _finding(findings.INDEX_LACKS_KMOD, place, kmod=name, got=_names(read))
    except Malformed as exc:
        return _finding(findings.INDEX_DAMAGED, place, got=exc.message)
    return _found(place, name, order, exists)


def _found(place: ModprobeFolder, name: str, order: LoadOrder, exists: Callable[[str], bool]) -> LookupResult | Finding:
    paths = tuple(_rooted(place, path) for path in order.paths)
    if not paths or not exists(paths[-1]):
        got = order.paths[-1] if paths else "no path"
        return _finding(findings.INDEX_STALE, place, kmod=name, path=got)
    if not order.missing:
        return LookupResult(paths)
    missing = listed(list(order.missing))
    return LookupResult(paths, (_finding(findings.INDEX_DEPENDENCY_MISSING, place, kmod=name, paths=missing),))


def _rooted(place: ModprobeFolder, path: str) -> str:
    return in_folder(f"/{place.node or place.folder}", path).lstrip("/")


def _names(index: ModuleIndex) -> str:
    try:
        return listed([name for name, _ in index.lines()])
    except (Malformed, BoundExceeded):
        return "other names"


def _finding(kind: FindingKind, place: ModprobeFolder, **values: object) -> Finding:
    return kind(folder=place.folder, directory=place.directory, kernel=place.kernel, **values)
