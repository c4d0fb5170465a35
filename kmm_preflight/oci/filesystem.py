"""The file system of an image: the merged view of its layers, as a node's overlay shows it.

Lookups open layers from the top, and only as many as they need. Whiteouts and opaque folders hide entries of lower
layers. Links are followed inside the image's root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.oci.index import LayerEntry, LayerIndex
from kmm_preflight.oci.tar import EntryKind

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
LINKS_IN_A_PATH = 40  # the kernel's bound (ELOOP)
FOLDERS_THROUGH_LINKS = 64
FOLDERS_REMEMBERED = 10_000
LOOKUPS = 2_000_000  # each of a single name in a single layer


@dataclass(frozen=True)
class Located:
    """An entry of the image's file system."""

    path: str
    """The path from the root of the image, without a leading slash."""
    entry: LayerEntry
    """The entry in its layer."""
    layer: int
    """The number of the layer that has the entry; 0 is the top layer."""


def link_parts(link: str) -> list[str]:
    """Split a link into names. A link that ends with a slash must lead to a folder, so its last name is `.`."""
    names = [name for name in link.split("/") if name]
    return [*names, "."] if link.endswith("/") else names


class LinkBroken(Exception):
    """A link in a path leads nowhere."""

    def __init__(self, path: str, target: str, problem: str) -> None:
        self.path, self.target, self.problem = path, target, problem
        super().__init__(f"{path} -> {target}: {problem}")


class _Hidden(Exception):
    """The layer hides the path in all lower layers."""


class Layer:
    """A layer whose index is opened at first use."""

    def __init__(self, open_index: Callable[[], LayerIndex]) -> None:
        self._open = open_index

    @cached_property
    def index(self) -> LayerIndex:
        """The layer's index. Raise PreflightError if the layer cannot be read."""
        return self._open()

    def lookup(self, path: str) -> LayerEntry | None:
        """Return the entry at the path, or a folder if only names below the path exist, or None. Raise _Hidden."""
        if entry := self.index.find(path):
            return entry
        if self.index.has_below(path):
            return LayerEntry(path, EntryKind.FOLDER)
        parts = path.split("/")
        for depth in range(len(parts)):
            parent, name = "/".join(parts[:depth]), parts[depth]
            prefix = f"{parent}/" if parent else ""
            if depth and (above := self.index.find(parent)) and above.kind is not EntryKind.FOLDER:
                raise _Hidden
            if self.index.find(f"{prefix}{WHITEOUT}{name}") or self.index.find(f"{prefix}{OPAQUE}"):
                raise _Hidden
        return None


class FileSystem:
    """The merged view of layers."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        """Layers come top first."""
        self._layers = layers
        self._lookups = 0
        self._folders: dict[str, Located | None] = {}

    def __len__(self) -> int:
        return len(self._layers)

    def entry(self, path: str) -> Located | None:
        """Return the entry at the path, or None. Do not follow links, neither at the path nor in its parents."""
        if path not in self._folders:
            located = self._entry(path)
            if (located and located.entry.kind is not EntryKind.FOLDER) or len(self._folders) >= FOLDERS_REMEMBERED:
                return located
            self._folders[path] = located
        return self._folders[path]

    def _entry(self, path: str) -> Located | None:
        for number, layer in enumerate(self._layers):
            self._count_lookups(path, 1)
            try:
                entry = layer.lookup(path)
            except _Hidden:
                return None
            if entry:
                return Located(path, entry, number)
        return None

    def _count_lookups(self, path: str, layers: int) -> None:
        self._lookups += layers * (path.count("/") + 1)
        if self._lookups > LOOKUPS:
            raise BoundExceeded(f"/{path[:200]}: too many names in too many layers")

    def resolve(self, path: str) -> Located | None:
        """Return the entry that the path leads to, or None if a name in the path is missing. Follow links.

        Raise LinkBroken if the missing name was reached through a link, or if links go in circles.
        """
        todo, done, links = [part for part in path.split("/") if part], "", 0
        folder = Located("", LayerEntry("", EntryKind.FOLDER), 0)
        here: Located | None = folder
        broken, after = ("", ""), -1  # the first link, and how many parts of the path follow it
        while todo:
            part = todo.pop(0)
            step = _next_path(done, part)
            here = self._child(step, here) if part not in (".", "..") else _if_folder(here)
            if here is None:
                if links and len(todo) >= after:
                    raise LinkBroken(*broken, f"/{step} is not in the image")
                return None
            if here.entry.kind is not EntryKind.SYMLINK:
                done = step
                continue
            if not links or len(todo) < after:
                broken, after = (step, here.entry.link), len(todo)
            links += 1
            if links > LINKS_IN_A_PATH:
                raise LinkBroken(*broken, "links go in circles")
            todo = link_parts(here.entry.link) + todo
            done = "" if here.entry.link.startswith("/") else done
            here = folder
        return self.entry(done) if done else folder

    def file(self, path: str) -> Located | None:
        """Return the file that the path leads to, or None for anything else. Follow links and hard links."""
        try:
            located = self.resolve(path)
        except LinkBroken:
            return None
        if located and located.entry.kind is EntryKind.HARDLINK:
            located = self.hardlink_target(located)
        return located if located and located.entry.kind is EntryKind.FILE else None

    def _child(self, path: str, parent: Located | None) -> Located | None:
        return self.entry(path) if _if_folder(parent) else None

    def below(self, folder: str, matches: Callable[[str], bool]) -> Iterator[Located]:
        """Yield the visible entries below a folder (a resolved path) whose last name matches.

        Go through the layers from the top. If the caller stops early, lower layers are not read.
        """
        for number, layer in enumerate(self._layers):
            for entry in layer.index.below(folder):
                name = entry.path.rpartition("/")[2]
                if not name.startswith(WHITEOUT) and matches(name) and self._visible(entry.path, number):
                    yield Located(entry.path, entry, number)
            if self._ends_at(folder, layer):
                return

    def _ends_at(self, folder: str, layer: Layer) -> bool:
        try:
            entry = layer.lookup(folder)
        except _Hidden:
            return True
        if entry and entry.kind is not EntryKind.FOLDER:
            return True
        return bool(layer.index.find(f"{folder}/{OPAQUE}" if folder else OPAQUE))

    def _visible(self, path: str, number: int) -> bool:
        self._count_lookups(path, number)
        try:
            return all(layer.lookup(path) is None for layer in self._layers[:number])
        except _Hidden:
            return False

    def hidden(self, folder: str, matches: Callable[[str], bool]) -> Iterator[Located]:
        """Yield the entries below a folder that a layer has but higher layers hide, if their last name matches."""
        for number, layer in enumerate(self._layers):
            for entry in layer.index.below(folder):
                if matches(entry.path.rpartition("/")[2]) and not self._visible(entry.path, number):
                    yield Located(entry.path, entry, number)

    def children(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted."""
        depth = len(folder) + 1 if folder else 0
        names: set[str] = set()
        for number, layer in enumerate(self._layers):
            for entry in layer.index.below(folder):
                name = entry.path[depth:].partition("/")[0]
                if name in names or name.startswith(WHITEOUT) or not self._visible(entry.path, number):
                    continue
                if not entry.path.rpartition("/")[2].startswith(WHITEOUT):
                    names.add(name)
        return sorted(names)

    def hardlink_target(self, located: Located) -> Located | None:
        """Return the file that a hard link names, or None. The file must be in the same layer."""
        entry, seen = located.entry, 0
        while entry.kind is EntryKind.HARDLINK and seen < LINKS_IN_A_PATH:
            target = self._layers[located.layer].index.find(entry.link)
            if target is None:
                return None
            entry, seen = target, seen + 1
        return Located(entry.path, entry, located.layer) if entry.kind is not EntryKind.HARDLINK else None


def _if_folder(located: Located | None) -> Located | None:
    """Return the entry if it is a folder, else None."""
    return located if located and located.entry.kind is EntryKind.FOLDER else None


def _next_path(path: str, part: str) -> str:
    if part == "..":
        return path.rpartition("/")[0]
    return path if part == "." else f"{path}/{part}".lstrip("/")
