"""A target kernel's own files, as its driver toolkit has them (openshift-reference 2.2): read once, kept on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from kmm_preflight.errors import BoundExceeded, PreflightError
from kmm_preflight.kmod.kernel_files import KernelFiles, RawFiles, read_kernel_files
from kmm_preflight.kmod.machine import MACHINES
from kmm_preflight.kmod.names import is_kmod_file, module_key
from kmm_preflight.kmod.object import read_object
from kmm_preflight.kmod.symvers import Symvers, SymversStore
from kmm_preflight.kmod.unpacked import Bytes, unpacked
from kmm_preflight.model import VERIFIED_HTTPS, RegistryTLS, TargetKernel
from kmm_preflight.oci.compression import pieces_of
from kmm_preflight.oci.filesystem import LinkBroken, Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.keyring import Keyring
from kmm_preflight.oci.tar import Kind

_BESIDE_HEADERS = (
    "usr/src/kernels/{0}",
    "lib/modules/{0}/build",
    "usr/lib/modules/{0}/build",
    "usr/src/linux-headers-{0}",
)
_MODULES = ("lib/modules/{0}", "usr/lib/modules/{0}")
_SMALL_KMODS = "kernel/lib"
KERNEL_FILES = re.compile(
    r"(usr/src/(kernels/|linux-headers-)[^/]+/(Module\.symvers|\.config))"
    r"|((usr/)?lib/modules/[^/]+/(symvers\.(gz|xz|zst)|config|modules\.(order|builtin|builtin\.modinfo)"
    rf"|{_SMALL_KMODS}/[^/]+\.ko(\.gz|\.xz|\.zst)?))"
)
"""Paths that are read of a driver toolkit; of in-tree kmods some that are small are enough."""

_FILE_BYTES = 64 << 20


class Images(Protocol):
    """Where images come from."""

    def image(self, name: str, arch: str | None, keyring: Keyring, tls: RegistryTLS) -> Image:
        """The image for linux/arch; raises as errors.py says."""


class Toolkits:
    """The files of target kernels. Each toolkit is opened once, and its Module.symvers parsed once for all runs."""

    def __init__(self, images: Images, keyring: Keyring, store: SymversStore) -> None:
        """keyring is what the release is pulled with; the store keeps tables by digest."""
        self._images, self._keyring, self._store = images, keyring, store
        self._known: dict[TargetKernel, KernelFiles | PreflightError] = {}
        self._opened: dict[TargetKernel, _Toolkit] = {}

    def files(self, kernel: TargetKernel) -> KernelFiles:
        """What the kernel's toolkit tells of it, without a toolkit nothing but its name.

        Raises what reading an image raises; Malformed for a file that is not what it should be.
        """
        if kernel not in self._known:
            try:
                self._known[kernel] = self._read(kernel)
            except PreflightError as exc:
                self._known[kernel] = exc
        known = self._known[kernel]
        if isinstance(known, PreflightError):
            raise known
        return known

    def own_file(self, kernel: TargetKernel, path: str) -> Path | None:
        """A file below lib/modules/<kernel>, None where there is none; raises what reading an image raises."""
        toolkit = self._open(kernel)
        located = toolkit.located(*toolkit.modules(path)) if toolkit else None
        return toolkit.image.content(located) if toolkit and located else None

    def own_kmod(self, kernel: TargetKernel, name: str) -> str | None:
        """The path there of an in-tree kmod, by its name with _ for -; None where there is none."""
        toolkit = self._open(kernel)
        return toolkit.kmod(name) if toolkit else None

    def _open(self, kernel: TargetKernel) -> _Toolkit | None:
        if not kernel.driver_toolkit:
            return None
        if kernel not in self._opened:
            image = self._images.image(kernel.driver_toolkit, kernel.arch, self._keyring, VERIFIED_HTTPS)
            self._opened[kernel] = _Toolkit(image, kernel)
        return self._opened[kernel]

    def _read(self, kernel: TargetKernel) -> KernelFiles:
        toolkit = self._open(kernel)
        if toolkit is None:
            return KernelFiles(kernel.version, kernel.arch, None, None)
        with ExitStack() as stack:
            raw = RawFiles(
                configuration=toolkit.content(*toolkit.beside_headers(".config"), *toolkit.modules("config")),
                in_tree=toolkit.in_tree(stack),
                order=toolkit.content(*toolkit.modules("modules.order")),
                built_in=toolkit.content(*toolkit.modules("modules.builtin")),
                built_in_tags=toolkit.content(*toolkit.modules("modules.builtin.modinfo")),
            )
            return read_kernel_files(kernel.version, kernel.arch, self._symvers(toolkit), raw)

    def _symvers(self, toolkit: _Toolkit) -> Symvers | None:
        packed = [path for suffix in ("gz", "xz", "zst") for path in toolkit.modules(f"symvers.{suffix}")]
        located = toolkit.located(*toolkit.beside_headers("Module.symvers"), *packed)
        if located is None:
            return None
        digest = located.entry.content
        known = self._store.find(f"sha256:{digest}") if digest else None
        if known is not None:
            return known
        path = toolkit.image.content(located)
        return self._store.keep(f"sha256:{path.name}", pieces_of(path))


class _Toolkit:
    """One toolkit image and the kernel that is looked for in it."""

    def __init__(self, image: Image, kernel: TargetKernel) -> None:
        self.image, self._kernel = image, kernel

    def beside_headers(self, name: str) -> Iterator[str]:
        return (f"{folder.format(self._kernel.version)}/{name}" for folder in _BESIDE_HEADERS)

    def modules(self, name: str) -> Iterator[str]:
        return (f"{folder.format(self._kernel.version)}/{name}" for folder in _MODULES)

    def kmod(self, name: str) -> str | None:
        """The path of an in-tree kmod below the kernel's folder."""
        for folder in self._folders("."):
            found = self.image.files.below(folder, lambda file: is_kmod_file(file) and module_key(file) == name)
            for located in found:
                return located.path[len(folder) + 1 :]
        return None

    def _folders(self, name: str) -> Iterator[str]:
        """Where a folder of the kernel's own modules stands, links followed."""
        for path in self.modules(name):
            with suppress(LinkBroken):
                if found := self.image.files.resolve(path):
                    yield found.path

    def located(self, *paths: str) -> Located | None:
        """The first of the paths that leads to a file."""
        return next((found for path in paths if (found := self.image.files.file(path))), None)

    def content(self, *paths: str) -> bytes | None:
        located = self.located(*paths)
        if located is None:
            return None
        if located.entry.size > _FILE_BYTES:
            raise BoundExceeded(f"/{located.path} of {self._kernel.driver_toolkit}: more than {_FILE_BYTES >> 20} MiB")
        return self.image.content(located).read_bytes()

    def in_tree(self, stack: ExitStack) -> Bytes | None:
        """One of the kernel's own kmods, open as long as the stack; None where there is none, or none to read."""
        for folder in self._folders(_SMALL_KMODS):
            for located in self.image.files.below(folder, is_kmod_file):
                if located.entry.kind is not Kind.FILE:
                    continue
                with suppress(PreflightError):  # it is one source of several: what it would have told may be in others
                    data = stack.enter_context(unpacked(self.image.content(located)))
                    read_object(data, MACHINES[self._kernel.arch])
                    return data
        return None
