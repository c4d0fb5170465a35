"""The file system that the layers of an image make together, as a node's overlay shows it.

Layers are opened from the top and only as far down as a question needs. Whiteouts and opaque folders hide what lies
below them; links are followed inside the image's root.
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
LINKS_IN_A_PATH = 40  # as the kernel counts them (ELOOP)
FOLDERS_THROUGH_LINKS = 64
FOLDERS_REMEMBERED = 10_000
LOOKUPS = 2_000_000  # of one name in one layer


@dataclass(frozen=True)
class Located:
    """A visible entry: its path in the image, and the layer (0 = top) that has it."""

    path: str
    entry: LayerEntry
    layer: int


def link_parts(link: str) -> list[str]:
    """The names that a link leads through; one that ends with a slash leads to a folder only, as if . came last."""
    names = [name for name in link.split("/") if name]
    return [*names, "."] if link.endswith("/") else names


class LinkBroken(Exception):
    """A link on the way leads nowhere."""

    def __init__(self, path: str, target: str, problem: str) -> None:
        self.path, self.target, self.problem = path, target, problem
        super().__init__(f"{path} -> {target}: {problem}")


class _Hidden(Exception):
    """This layer hides the path from all layers below it."""


class Layer:
    """A layer that is opened when first asked."""

    def __init__(self, open_index: Callable[[], LayerIndex]) -> None:
        self._open = open_index

    @cached_property
    def index(self) -> LayerIndex:
        """The layer's index; raises what reading the layer raises."""
        return self._open()

    def at(self, path: str) -> LayerEntry | None:
        """The entry at the path, a folder where only names below it stand, None; raises _Hidden."""
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
    """The merged view; layers are given top first."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._lookups = 0
        self._folders: dict[str, Located | None] = {}

    def __len__(self) -> int:
        return len(self._layers)

    def entry(self, path: str) -> Located | None:
        """What stands at the path itself, without following a link there or on the way."""
        if path not in self._folders:
            located = self._entry(path)
            if (located and located.entry.kind is not EntryKind.FOLDER) or len(self._folders) >= FOLDERS_REMEMBERED:
                return located
            self._folders[path] = located
        return self._folders[path]

    def _entry(self, path: str) -> Located | None:
        for number, layer in enumerate(self._layers):
            self._look_up(path, 1)
            try:
                found = layer.at(path)
            except _Hidden:
                return None
            if found:
                return Located(path, found, number)
        return None

    def _look_up(self, path: str, layers: int) -> None:
        self._lookups += layers * (path.count("/") + 1)
        if self._lookups > LOOKUPS:
            raise BoundExceeded(f"/{path[:200]}: too many names in too many layers to look through")

    def resolve(self, path: str) -> Located | None:
        """What the path leads to, links followed in the image's root; None when a name on the way is missing.

        LinkBroken when the missing name was reached through a link, or links go in circles.
        """
        todo, done, links = [part for part in path.split("/") if part], "", 0
        folder = Located("", LayerEntry("", EntryKind.FOLDER), 0)
        here: Located | None = folder
        broken, behind = ("", ""), -1  # the first link, and how many parts of the path follow it
        while todo:
            part = todo.pop(0)
            step = _stepped(done, part)
            here = self._step(step, here) if part not in (".", "..") else _if_folder(here)
            if here is None:
                if links and len(todo) >= behind:
                    raise LinkBroken(*broken, f"/{step} is not in the image")
                return None
            if here.entry.kind is not EntryKind.SYMLINK:
                done = step
                continue
            if not links or len(todo) < behind:
                broken, behind = (step, here.entry.link), len(todo)
            links += 1
            if links > LINKS_IN_A_PATH:
                raise LinkBroken(*broken, "links go in circles")
            todo = link_parts(here.entry.link) + todo
            done = "" if here.entry.link.startswith("/") else done
            here = folder
        return self.entry(done) if done else folder

    def file(self, path: str) -> Located | None:
        """The file that the path leads to, links and hard links followed; None for anything else."""
        try:
            located = self.resolve(path)
        except LinkBroken:
            return None
        if located and located.entry.kind is EntryKind.HARDLINK:
            located = self.hardlink_target(located)
        return located if located and located.entry.kind is EntryKind.FILE else None

    def _step(self, path: str, parent: Located | None) -> Located | None:
        return self.entry(path) if _if_folder(parent) else None

    def below(self, folder: str, wanted: Callable[[str], bool]) -> Iterator[Located]:
        """Visible entries below a folder (a resolved path) whose names are wanted: layer by layer from the top.

        The caller that stops early leaves the lower layers unread.
        """
        for number, layer in enumerate(self._layers):
            for entry in layer.index.below(folder):
                name = entry.path.rpartition("/")[2]
                if not name.startswith(WHITEOUT) and wanted(name) and self._visible(entry.path, number):
                    yield Located(entry.path, entry, number)
            if self._ends_at(folder, layer):
                return

    def _ends_at(self, folder: str, layer: Layer) -> bool:
        try:
            found = layer.at(folder)
        except _Hidden:
            return True
        if found and found.kind is not EntryKind.FOLDER:
            return True
        return bool(layer.index.find(f"{folder}/{OPAQUE}" if folder else OPAQUE))

    def _visible(self, path: str, number: int) -> bool:
        self._look_up(path, number)
        try:
            return all(layer.at(path) is None for layer in self._layers[:number])
        except _Hidden:
            return False

    def hidden(self, folder: str, wanted: Callable[[str], bool]) -> Iterator[Located]:
        """Entries below a folder that a layer has but layers above it hide."""
        for number, layer in enumerate(self._layers):
            for entry in layer.index.below(folder):
                if wanted(entry.path.rpartition("/")[2]) and not self._visible(entry.path, number):
                    yield Located(entry.path, entry, number)

    def children(self, folder: str) -> list[str]:
        """Names in a folder, sorted."""
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
        """The file that a hard link is another name of: it must be in the same layer."""
        entry, seen = located.entry, 0
        while entry.kind is EntryKind.HARDLINK and seen < LINKS_IN_A_PATH:
            target = self._layers[located.layer].index.find(entry.link)
            if target is None:
                return None
            entry, seen = target, seen + 1
        return Located(entry.path, entry, located.layer) if entry.kind is not EntryKind.HARDLINK else None


def _if_folder(here: Located | None) -> Located | None:
    """What stands here, if names below it can be."""
    return here if here and here.entry.kind is EntryKind.FOLDER else None


def _stepped(path: str, part: str) -> str:
    if part == "..":
        return path.rpartition("/")[0]
    return path if part == "." else f"{path}/{part}".lstrip("/")
