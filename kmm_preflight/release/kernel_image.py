"""Read a target kernel's own files from an image: a driver toolkit, or the OS image that nodes boot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kmm_preflight.errors import BoundExceeded, PreflightError
from kmm_preflight.kmod.machine import MACHINES
from kmm_preflight.kmod.names import is_kmod_file, module_key
from kmm_preflight.kmod.object import read_object
from kmm_preflight.kmod.packed import unpacked
from kmm_preflight.model import TargetKernel
from kmm_preflight.oci.filesystem import LinkBroken, Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.tar import EntryKind

SMALL_KMODS = "kernel/lib"
KERNEL_FILES = re.compile(
    r"(usr/src/(kernels/|linux-headers-)[^/]+/(Module\.symvers|\.config|vmlinux))"
    r"|((usr/)?lib/modules/[^/]+/(symvers\.(gz|xz|zst)|config|modules\.(order|dep|builtin|builtin\.modinfo)"
    rf"|{SMALL_KMODS}/[^/]+\.ko(\.gz|\.xz|\.zst)?))"
)
"""Paths whose bytes are kept from these images. Of the in-tree kmods, some small kmods are enough."""

_PACKED = frozenset(("symvers.gz", "symvers.xz", "symvers.zst"))
_FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class KernelFolders:
    """Folders of a kernel's files in an image; {0} is the kernel version."""

    headers: tuple[str, ...]
    """Folders of the kernel's headers."""
    modules: tuple[str, ...]
    """Folders of the kernel's own kmods."""


TOOLKIT = KernelFolders(
    headers=(
        "usr/src/kernels/{0}",
        "lib/modules/{0}/build",
        "usr/lib/modules/{0}/build",
        "usr/src/linux-headers-{0}",
    ),
    modules=("lib/modules/{0}", "usr/lib/modules/{0}"),
)
"""A driver toolkit (docs/reference/openshift.md 2.2)."""

OS_IMAGE = KernelFolders(headers=(), modules=("usr/lib/modules/{0}",))
"""A node image (docs/reference/openshift.md 3.2). It has no headers, and its lib is a link, so it has no file there."""


@dataclass(frozen=True)
class ModuleLists:
    """Lists of a kernel's own kmods. A list that the image does not have is None."""

    order: bytes | None = None
    """modules.order: kmods that are files."""
    built_in: bytes | None = None
    """modules.builtin: kmods that are built in."""
    built_in_tags: bytes | None = None
    """modules.builtin.modinfo: modinfo tags of built-in kmods."""


class KernelImage:
    """A kernel's files in one image. Every method raises the errors of reading an image."""

    def __init__(self, image: Image, kernel: TargetKernel, folders: KernelFolders) -> None:
        self._image, self._kernel, self._folders = image, kernel, folders

    def symvers(self) -> Located | None:
        """Return Module.symvers: plain, or else compressed in any format."""
        if symvers := self._first(self._folders.headers, "Module.symvers"):
            return symvers
        for folder in self._module_folders("."):
            # Search all names in one pass: a search for each path would open every layer each time.
            for located in self._image.files.below(folder, _PACKED.__contains__):
                in_folder = located.path.rpartition("/")[0] == folder
                if in_folder and (symvers := self._image.files.file(located.path)):
                    return symvers
        return None

    def configuration(self) -> bytes | None:
        """Return the bytes of .config."""
        with_headers = self._first(self._folders.headers, ".config")
        return self._bytes(with_headers or self._first(self._folders.modules, "config"))

    def vmlinux(self) -> bytes | None:
        """Return the bytes of the vmlinux with the headers, for the kernel's type data. None if it is large."""
        located = self._first(self._folders.headers, "vmlinux")
        return self._bytes(located) if located and located.entry.size <= _FILE_BYTES else None

    def lists(self) -> ModuleLists | None:
        """Return the lists of this image, or None if it has neither modules.order nor modules.builtin."""
        order, built_in = self._list("modules.order"), self._list("modules.builtin")
        if order is None and built_in is None:
            return None
        return ModuleLists(order, built_in, self._list("modules.builtin.modinfo"))

    def dependencies(self) -> bytes | None:
        """Return modules.dep, the kmods that each of the kernel's own kmods needs."""
        return self._list("modules.dep")

    def own_file(self, path: str) -> Path | None:
        """Return a file by its path below the folder of the kernel's own kmods."""
        located = self._first(self._folders.modules, path)
        return self.content(located) if located else None

    def own_kmod(self, name: str) -> str | None:
        """Return the path of an in-tree kmod below that folder, by its name with _ for -."""
        for folder in self._module_folders("."):
            kmods = self._image.files.below(folder, lambda file: is_kmod_file(file) and module_key(file) == name)
            for located in kmods:
                return located.path[len(folder) + 1 :]
        return None

    def small_kmod(self) -> Path | None:
        """Return a small in-tree kmod, compressed or not, or None if no small kmod can be read."""
        for folder in self._module_folders(SMALL_KMODS):
            for kmod in self._image.files.below(folder, is_kmod_file):
                located = self._image.files.file(kmod.path)
                if located is None or kmod.entry.kind is EntryKind.SYMLINK:
                    continue
                with suppress(PreflightError):  # another kmod, or .config, has the same version magic
                    path = self.content(located)
                    with unpacked(path) as data:
                        read_object(data, MACHINES[self._kernel.arch])
                    return path
        return None

    def content(self, located: Located) -> Path:
        """Return the bytes of a located file, as a file."""
        return self._image.content(located)

    def _first(self, folders: tuple[str, ...], name: str) -> Located | None:
        """Return the first file of that name in the folders."""
        paths = (f"{folder.format(self._kernel.version)}/{name}" for folder in folders)
        return next((located for path in paths if (located := self._image.files.file(path))), None)

    def _module_folders(self, name: str) -> Iterator[str]:
        """Yield the resolved paths of a folder below the kernel's own kmods."""
        for folder in self._folders.modules:
            with suppress(LinkBroken):
                if located := self._image.files.resolve(f"{folder.format(self._kernel.version)}/{name}"):
                    yield located.path

    def _list(self, name: str) -> bytes | None:
        return self._bytes(self._first(self._folders.modules, name))

    def _bytes(self, located: Located | None) -> bytes | None:
        if located is None:
            return None
        if located.entry.size > _FILE_BYTES:
            name = self._image.resolved.name
            raise BoundExceeded(f"/{located.path} of {name}: more than {_FILE_BYTES >> 20} MiB")
        return self.content(located).read_bytes()
