"""The folder of kmods in an image, as modprobe finds it on the node."""

from __future__ import annotations

import posixpath
from functools import cached_property

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.lookup import ModprobeFolder
from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import FileSystem, LinkBroken, Located
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.planning.plan import Plan
from kmm_preflight.worker import findings
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.program import ImageFiles
from kmm_preflight.worker.view import InTreeFile, MountedFolder, ResolvedPath

_VOLUME = "tmp"
_UNPACKED = "unpacked image"  # a name that no link in an image has


class NodeFolder:
    """The folder in which modprobe looks for the plan's kmods."""

    def __init__(self, plan: Plan, image: ImageFiles, worker: Worker, kernel: KernelFiles | None) -> None:
        """Open only the layers that the folder's parents need. kernel: None if its files are unknown."""
        self._image, self._worker, self._kernel = image, worker, kernel
        self._parent = _parent(plan, image.files)
        release = plan.kernel.version
        match worker:
            case Worker.POD:
                self._view, node = MountedFolder(image.files, "", "", release), plan.folder
            case Worker.UNPACKED:
                self._view, node = MountedFolder(image.files, "", _UNPACKED, release), f"{_UNPACKED}/{plan.folder}"
            case Worker.COPIED:
                node = f"{_VOLUME}/{plan.folder}"
                self._view = MountedFolder(image.files, f"{self._parent}/{release}".lstrip("/"), node, release)
        self.place = ModprobeFolder(plan.directory, release, plan.folder, node)

    def problem(self) -> Finding | None:
        """Return the finding if modprobe does not look into the image's folder."""
        reached = self.reach(self.place.on_node)
        got = None
        if self._worker is Worker.COPIED and f"{self._parent}/".startswith(f"{_VOLUME}/"):
            got = "KMM mounts an empty volume over /tmp"
        elif isinstance(reached.file, InTreeFile):
            got = f"{_link(reached)} leads to the node's own modules"
        elif reached.file is None:
            got = f"{_link(reached)} leads to nothing"
        elif reached.file.entry.kind is not EntryKind.FOLDER:
            got = f"{_link(reached)} does not lead to a folder"
        return findings.NODE_FOLDER(folder=self.place.folder, got=got) if got else None

    def reach(self, path: str) -> ResolvedPath:
        """Follow a path in modprobe's root, given without a leading slash."""
        return self._view.reach(path)

    def exists(self, path: str) -> bool:
        """True if the path leads to a file or folder, or to a kmod that the node may have itself."""
        file = self.reach(path).file
        if not isinstance(file, InTreeFile) or file.name is None:
            return file is not None
        return self.has_in_tree(file.name) is not False

    def has_in_tree(self, name: str) -> bool | None:
        """True if the node has a kmod of its own with this name, None if this is unknown."""
        return self._kernel.has_in_tree(name) if self._kernel else None

    def read(self, name: str, most: int) -> bytes | None:
        """Return the bytes of a file in the folder, or None without such a file.

        Raise BoundExceeded if there are more than most.
        """
        file = self.reach(f"{self.place.on_node}/{name}").file
        if not isinstance(file, Located) or file.entry.kind is not EntryKind.FILE:
            return None
        if file.entry.size > most:
            raise BoundExceeded(f"/{file.path}: {file.entry.size} bytes, expected at most {most}")
        return self._image.content(file).read_bytes()

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all entries in the folder. Every layer of the image is opened for them."""
        file = self.reach(self.place.on_node).file
        return frozenset(self._image.files.children(file.path)) if isinstance(file, Located) else frozenset()


def _parent(plan: Plan, files: FileSystem) -> str:
    """Return the parent of the kernel's folder in the image, with links followed: cp follows them too."""
    above = posixpath.dirname(plan.folder)
    try:
        located = files.resolve(above)
    except LinkBroken:
        located = None
    return located.path if located else above


def _link(reached: ResolvedPath) -> str:
    return f"the link to {reached.link.entry.link}" if reached.link else "this path"
