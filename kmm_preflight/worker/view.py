"""The file system in which modprobe runs on a node: parts of the image, and the node's own modules among them."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from kmm_preflight.kmod.names import is_kmod_file, module_key
from kmm_preflight.oci.filesystem import LINKS_IN_A_PATH, FileSystem, Located, link_parts
from kmm_preflight.oci.index import LayerEntry
from kmm_preflight.oci.tar import EntryKind

NODE_MODULES = ("lib/modules", "usr/lib/modules")
"""Where the node's own are mounted."""
_FOLDER = Located("", LayerEntry("", EntryKind.FOLDER), 0)


@dataclass(frozen=True)
class InTree:
    """A file of the kernel's own modules on the node; path is below /lib/modules/<kernel>, "" for that folder."""

    path: str

    @property
    def name(self) -> str | None:
        """The kmod's name with _ for -, None for a file that is no kmod."""
        file = self.path.rpartition("/")[2]
        return module_key(file) if is_kmod_file(file) else None


@dataclass(frozen=True)
class ResolvedPath:
    """What a path leads to on the node, and the first link of the image on the way."""

    file: Located | InTree | None
    link: Located | None = None


@dataclass(frozen=True)
class MountedFolder:
    """Where a folder of an image is on the node: source, a path of the image, stands at mount with all below it.

    Paths have no slash before them. Links are there as links: what they lead to is looked for on the node, so that most
    that lead out of the folder lead nowhere. kernel is the one that the node runs, whose modules it has itself.
    """

    files: FileSystem
    source: str
    mount: str
    kernel: str

    def reach(self, path: str) -> ResolvedPath:
        """What the path leads to, links followed as the node follows them; a hard link is the file behind it."""
        todo, done, links = [part for part in path.split("/") if part], "", 0
        first: Located | None = None
        while todo:
            part = todo.pop(0)
            step = posixpath.normpath(f"/{done}/{part}").lstrip("/")
            here = self._stands(step)
            if isinstance(here, Located) and here.entry.kind is EntryKind.SYMLINK:
                first, links = first or here, links + 1
                if links > LINKS_IN_A_PATH:
                    return ResolvedPath(None, first)
                todo = link_parts(here.entry.link) + todo
                done = "" if here.entry.link.startswith("/") else done
                continue
            if here is None or (todo and isinstance(here, Located) and here.entry.kind is not EntryKind.FOLDER):
                return ResolvedPath(None, first)
            done = step
        return ResolvedPath(self._whole(self._stands(done)), first)

    def _stands(self, path: str) -> Located | InTree | None:
        """What stands at the path, the folders above it being no links."""
        for mount in NODE_MODULES:
            if _is_in(path, f"{mount}/{self.kernel}"):
                return InTree(path[len(f"{mount}/{self.kernel}/") :])
            if path == mount:
                return _FOLDER
            if _is_in(path, mount):
                return None  # another kernel's, which the node does not have
        above = [self.mount, *NODE_MODULES]
        return self._of_image(path) or (_FOLDER if any(one != path and _is_in(one, path) for one in above) else None)

    def _of_image(self, path: str) -> Located | None:
        if not self.mount:
            return self.files.entry(path) if path else _FOLDER
        if not _is_in(path, self.mount):
            return None
        below = f"{self.source}{path[len(self.mount) :]}".lstrip("/")
        return self.files.entry(below) if below else _FOLDER

    def _whole(self, file: Located | InTree | None) -> Located | InTree | None:
        if isinstance(file, Located) and file.entry.kind is EntryKind.HARDLINK:
            return self.files.hardlink_target(file)
        return file


def _is_in(path: str, folder: str) -> bool:
    return path == folder or not folder or path.startswith(f"{folder}/")
