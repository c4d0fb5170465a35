"""modprobe's search for a module in an image's folder, and the findings if it fails (docs/reference/loader.md 5)."""

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
    """The folder in which modprobe looks for modules."""

    directory: str
    """Option -d of modprobe."""
    kernel: str
    """Option -S of modprobe."""
    folder: str
    """Path of the folder in the image, without a leading slash."""
    node: str | None = None
    """Path of the folder in modprobe's root, without a leading slash. None if it is the path in the image."""

    @property
    def on_node(self) -> str:
        """Path of the folder in modprobe's root."""
        return self.node or self.folder


@dataclass(frozen=True)
class LookupResult:
    """The files that modprobe loads."""

    paths: tuple[str, ...]
    """Paths in modprobe's root, in the order of loading, the wanted module last."""
    notes: tuple[Finding, ...] = ()
    """Findings that do not stop modprobe."""


def look_up(
    place: ModprobeFolder, name: str, index: bytes | None, names: frozenset[str], exists: Callable[[str], bool]
) -> LookupResult | Finding:
    """Return the files that modprobe loads for the name, or the finding that stops it.

    index: the bytes of modules.dep.bin, or None if the file is absent. names: names of the folder's files.
    exists: True if a path in modprobe's root leads to a file or folder.
    """
    if index is None:
        got = f"{INDEX} is missing" + (f", and the text file {_TEXT} does not count" if _TEXT in names else "")
        return _finding(findings.INDEX_ABSENT, place, got=got)
    try:
        opened = ModuleIndex(index)
        order = load_order(opened, name, lambda path: exists(_rooted(place, path)))
        if order is None:
            return _finding(findings.INDEX_LACKS_KMOD, place, kmod=name, got=_names(opened))
    except Malformed as exc:
        return _finding(findings.INDEX_DAMAGED, place, got=exc.message)
    return _result(place, name, order, exists)


def _result(
    place: ModprobeFolder, name: str, order: LoadOrder, exists: Callable[[str], bool]
) -> LookupResult | Finding:
    paths = tuple(_rooted(place, path) for path in order.paths)
    if not paths or not exists(paths[-1]):
        got = order.paths[-1] if paths else "an empty path"
        return _finding(findings.INDEX_STALE, place, kmod=name, path=got)
    if not order.missing:
        return LookupResult(paths)
    missing = listed(list(order.missing))
    return LookupResult(paths, (_finding(findings.INDEX_DEPENDENCY_MISSING, place, kmod=name, paths=missing),))


def _rooted(place: ModprobeFolder, path: str) -> str:
    """Return a path of the index as a path in modprobe's root, without a leading slash."""
    return in_folder(f"/{place.on_node}", path).lstrip("/")


def _names(index: ModuleIndex) -> str:
    """Return the names in the index, or other words if it is damaged elsewhere."""
    try:
        return listed([name for name, _ in index.lines()])
    except (Malformed, BoundExceeded):
        return "other names"


def _finding(kind: FindingKind, place: ModprobeFolder, **values: object) -> Finding:
    return kind(folder=place.folder, directory=place.directory, kernel=place.kernel, **values)
