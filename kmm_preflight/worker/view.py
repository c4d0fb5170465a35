"""The file system in which modprobe runs on a node: a folder of the image, and the node's own modules."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from kmm_preflight.kmod.names import is_kmod_file, module_key
from kmm_preflight.oci.filesystem import LINKS_IN_A_PATH, FileSystem, Located, link_parts
from kmm_preflight.oci.index import LayerEntry
from kmm_preflight.oci.tar import EntryKind

NODE_MODULES = ("lib/modules", "usr/lib/modules")
"""Paths at which the node's own modules are mounted."""
_FOLDER = Located("", LayerEntry("", EntryKind.FOLDER), 0)


@dataclass(frozen=True)
class InTreeFile:
    """A file or folder of the kernel's own modules on the node."""

    path: str
    """Path below /lib/modules/<kernel>; empty for that folder itself."""

    @property
    def name(self) -> str | None:
        """The kmod's name with _ for -, or None if the file is not a kmod."""
        file = self.path.rpartition("/")[2]
        return module_key(file) if is_kmod_file(file) else None


@dataclass(frozen=True)
class ResolvedPath:
    """The end of a path on the node."""

    file: Located | InTreeFile | None
    """The file or folder to which the path leads, or None."""
    link: Located | None = None
    """The first symbolic link of the image on the way, or None."""


@dataclass(frozen=True)
class MountedFolder:
    """A folder of an image as it is on the node. Paths have no leading slash.

    Links stay links, and the node follows them. So most links that lead out of the folder lead nowhere.
    """

    files: FileSystem
    """The image."""
    source: str
    """Path of the folder in the image."""
    mount: str
    """Path of the folder on the node."""
    kernel: str
    """Release of the kernel that the node runs. The node has this kernel's own modules."""

    def reach(self, path: str) -> ResolvedPath:
        """Follow the path and its links as the node does. A hard link leads to the file behind it."""
        todo, done, links = [part for part in path.split("/") if part], "", 0
        first: Located | None = None
        while todo:
            part = todo.pop(0)
            step = posixpath.normpath(f"/{done}/{part}").lstrip("/")
            here = self._entry(step)
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
        return ResolvedPath(self._behind_hard_link(self._entry(done)), first)

    def _entry(self, path: str) -> Located | InTreeFile | None:
        """Return the entry at a path whose parent folders are not links."""
        for mount in NODE_MODULES:
            if _is_in(path, f"{mount}/{self.kernel}"):
                return InTreeFile(path[len(f"{mount}/{self.kernel}/") :])
            if path == mount:
                return _FOLDER
            if _is_in(path, mount):
                return None  # modules of another kernel, which the node does not have
        mounts = [self.mount, *NODE_MODULES]
        is_parent = any(mount != path and _is_in(mount, path) for mount in mounts)
        return self._image_entry(path) or (_FOLDER if is_parent else None)

    def _image_entry(self, path: str) -> Located | None:
        if not self.mount:
            return self.files.entry(path) if path else _FOLDER
        if not _is_in(path, self.mount):
            return None
        below = f"{self.source}{path[len(self.mount) :]}".lstrip("/")
        return self.files.entry(below) if below else _FOLDER

    def _behind_hard_link(self, file: Located | InTreeFile | None) -> Located | InTreeFile | None:
        if isinstance(file, Located) and file.entry.kind is EntryKind.HARDLINK:
            return self.files.hardlink_target(file)
        return file


def _is_in(path: str, folder: str) -> bool:
    return path == folder or not folder or path.startswith(f"{folder}/")
