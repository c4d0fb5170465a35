"""An image in which a target kernel's own files stand: a driver toolkit, or the OS image that nodes boot."""

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
    r"(usr/src/(kernels/|linux-headers-)[^/]+/(Module\.symvers|\.config))"
    r"|((usr/)?lib/modules/[^/]+/(symvers\.(gz|xz|zst)|config|modules\.(order|builtin|builtin\.modinfo)"
    rf"|{SMALL_KMODS}/[^/]+\.ko(\.gz|\.xz|\.zst)?))"
)
"""Paths whose bytes are kept of such images; of in-tree kmods some that are small are enough."""

_PACKED = frozenset(("symvers.gz", "symvers.xz", "symvers.zst"))
_FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class KernelFolders:
    """Where an image has a kernel's files: folders beside its headers, and of its modules, {0} being the release."""

    headers: tuple[str, ...]
    modules: tuple[str, ...]


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
    """What a kernel has as files and built in: modules.order, modules.builtin, modules.builtin.modinfo."""

    order: bytes | None = None
    built_in: bytes | None = None
    built_in_tags: bytes | None = None


class KernelImage:
    """One image and the kernel that is looked for in it; each question raises what reading an image raises."""

    def __init__(self, image: Image, kernel: TargetKernel, places: KernelFolders) -> None:
        self._image, self._kernel, self._places = image, kernel, places

    def symvers(self) -> Located | None:
        """Module.symvers in any of its forms, plain before packed; packed it is whichever form the layers have."""
        if found := self._first(self._places.headers, "Module.symvers"):
            return found
        for folder in self._folders("."):
            # By name rather than path: asking for one form after the other would open every layer for each.
            for located in self._image.files.below(folder, _PACKED.__contains__):
                beside = located.path.rpartition("/")[0] == folder
                if beside and (found := self._image.files.file(located.path)):
                    return found
        return None

    def configuration(self) -> bytes | None:
        """The .config."""
        beside = self._first(self._places.headers, ".config")
        return self._bytes(beside or self._first(self._places.modules, "config"))

    def lists(self) -> ModuleLists | None:
        """All lists of one image; None where it has neither of those that every kernel has."""
        order, built_in = self._list("modules.order"), self._list("modules.builtin")
        if order is None and built_in is None:
            return None
        return ModuleLists(order, built_in, self._list("modules.builtin.modinfo"))

    def own_file(self, path: str) -> Path | None:
        """A file by its path below the folder of the kernel's modules."""
        located = self._first(self._places.modules, path)
        return self.content(located) if located else None

    def own_kmod(self, name: str) -> str | None:
        """The path there of an in-tree kmod, by its name with _ for -."""
        for folder in self._folders("."):
            found = self._image.files.below(folder, lambda file: is_kmod_file(file) and module_key(file) == name)
            for located in found:
                return located.path[len(folder) + 1 :]
        return None

    def small_kmod(self) -> Path | None:
        """One of the kernel's own kmods, packed or not; None where there is none, or none to read."""
        for folder in self._folders(SMALL_KMODS):
            for below in self._image.files.below(folder, is_kmod_file):
                located = self._image.files.file(below.path)
                if located is None or below.entry.kind is EntryKind.SYMLINK:
                    continue
                with suppress(PreflightError):  # it is one source of several: what it would have told may be in others
                    path = self.content(located)
                    with unpacked(path) as data:
                        read_object(data, MACHINES[self._kernel.arch])
                    return path
        return None

    def content(self, located: Located) -> Path:
        """The bytes of a file that was found, as a file."""
        return self._image.content(located)

    def _first(self, folders: tuple[str, ...], name: str) -> Located | None:
        """The first of the paths that leads to a file."""
        paths = (f"{folder.format(self._kernel.version)}/{name}" for folder in folders)
        return next((found for path in paths if (found := self._image.files.file(path))), None)

    def _folders(self, name: str) -> Iterator[str]:
        """Where a folder of the kernel's own modules stands, links followed."""
        for folder in self._places.modules:
            with suppress(LinkBroken):
                if found := self._image.files.resolve(f"{folder.format(self._kernel.version)}/{name}"):
                    yield found.path

    def _list(self, name: str) -> bytes | None:
        return self._bytes(self._first(self._places.modules, name))

    def _bytes(self, located: Located | None) -> bytes | None:
        if located is None:
            return None
        if located.entry.size > _FILE_BYTES:
            name = self._image.resolved.name
            raise BoundExceeded(f"/{located.path} of {name}: more than {_FILE_BYTES >> 20} MiB")
        return self.content(located).read_bytes()
