"""A target kernel's own files: from its driver toolkit, or else from the OS image that nodes boot.

The OS image is large: read only what a check needs and the toolkit lacks (docs/reference/openshift.md 2.2, 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kmm_preflight.base.decompression import read_pieces
from kmm_preflight.errors import BoundExceeded, PreflightError
from kmm_preflight.kmod.kernel_files import KernelFiles, RawFiles, parse_users, read_kernel_files
from kmm_preflight.kmod.packed import unpacked
from kmm_preflight.kmod.symvers import Symvers, SymversStore
from kmm_preflight.model import VERIFIED_HTTPS, Finding, TargetKernel
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import parse_name
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.release import findings
from kmm_preflight.release.kernel_image import OS_IMAGE, TOOLKIT, KernelFolders, KernelImage, ModuleLists

# The compressed size of all layers. The OS images of releases have about 1 GB (docs/reference/openshift.md 3.2).
OS_IMAGE_BYTES = 4 << 30

_Content = TypeVar("_Content")


@dataclass(frozen=True)
class ReadKernelFiles:
    """A target kernel's own files, as they were read."""

    files: KernelFiles
    """The files."""
    findings: tuple[Finding, ...] = ()
    """Findings about files that the driver toolkit lacks."""


@dataclass(frozen=True)
class OwnFile:
    """A file of a kernel."""

    path: Path
    """The file with its bytes."""
    from_os_image: bool
    """True if the driver toolkit lacks the file."""


class KernelSources:
    """Files of target kernels. Each image is opened once; each Module.symvers is parsed once for all runs."""

    def __init__(self, images: ImageResolver, credentials: PullCredentials, store: SymversStore) -> None:
        """Take the credentials that pull the release, and the store of parsed tables by digest."""
        self._images, self._credentials, self._store = images, credentials, store
        self._read: dict[TargetKernel, ReadKernelFiles | PreflightError] = {}
        self._opened: dict[tuple[TargetKernel, KernelFolders], KernelImage] = {}

    def read(self, kernel: TargetKernel) -> ReadKernelFiles:
        """Return the files of a kernel. Without a driver toolkit, return its version alone.

        Raise the errors of reading the toolkit. If the OS image cannot be read, add a finding.
        """
        if kernel not in self._read:
            try:
                self._read[kernel] = self._read_files(kernel)
            except PreflightError as exc:
                self._read[kernel] = exc
        result = self._read[kernel]
        if isinstance(result, PreflightError):
            raise result
        return result

    def users(self, kernel: TargetKernel) -> Mapping[str, tuple[str, ...]]:
        """Map names of in-tree kmods to the in-tree kmods that need them, by modules.dep of the driver toolkit.

        The OS image is not read for this: it is large, and the result is only reported.
        """
        toolkit = self._toolkit(kernel)
        return parse_users(toolkit.dependencies()) if toolkit else {}

    def own_file(self, kernel: TargetKernel, path: str) -> OwnFile | None:
        """Return a file below lib/modules/<kernel>, or None if the file is in neither image."""
        for open_image, from_os_image in ((self._toolkit, False), (self._os_image, True)):
            image = open_image(kernel)
            if image and (file := image.own_file(path)):
                return OwnFile(file, from_os_image)
        return None

    def own_kmod(self, kernel: TargetKernel, name: str) -> str | None:
        """Return the path of an in-tree kmod below lib/modules/<kernel>, by its name with _ for -.

        Return None if the kmod is in neither image.
        """
        for open_image in (self._toolkit, self._os_image):
            image = open_image(kernel)
            if image and (path := image.own_kmod(name)):
                return path
        return None

    def _toolkit(self, kernel: TargetKernel) -> KernelImage | None:
        return self._open(kernel, kernel.driver_toolkit, TOOLKIT)

    def _os_image(self, kernel: TargetKernel) -> KernelImage | None:
        return self._open(kernel, kernel.os_image, OS_IMAGE)

    def _open(self, kernel: TargetKernel, name: str | None, folders: KernelFolders) -> KernelImage | None:
        """Open an image once. Raise BoundExceeded for an OS image that is too large."""
        if name and (kernel, folders) not in self._opened:
            image = self._images.image(parse_name(name), kernel.arch, self._credentials, VERIFIED_HTTPS)
            if folders is OS_IMAGE:
                _check_size(image)
            self._opened[kernel, folders] = KernelImage(image, kernel, folders)
        return self._opened.get((kernel, folders))

    def _read_files(self, kernel: TargetKernel) -> ReadKernelFiles:
        toolkit = self._toolkit(kernel)
        if toolkit is None:
            return ReadKernelFiles(KernelFiles(kernel.version, kernel.arch, None, None))
        images = _ToolkitThenOSImage(kernel, toolkit, self._os_image)
        symvers = images.first("Module.symvers", self._symvers)
        configuration = images.first(".config", KernelImage.configuration)
        lists = images.first("modules.builtin", KernelImage.lists) or ModuleLists()
        in_tree = toolkit.small_kmod()
        if in_tree is None and configuration is None:  # either has the version magic
            in_tree = images.from_os_image("an in-tree kmod", KernelImage.small_kmod)
        with unpacked(in_tree) if in_tree else nullcontext() as kmod:
            raw = RawFiles(configuration, kmod, lists.order, lists.built_in, lists.built_in_tags, toolkit.vmlinux())
            return ReadKernelFiles(read_kernel_files(kernel.version, kernel.arch, symvers, raw), images.findings())

    def _symvers(self, image: KernelImage) -> Symvers | None:
        located = image.symvers()
        if located is None:
            return None
        digest = located.entry.content
        stored = self._store.find(f"sha256:{digest}") if digest else None
        if stored is not None:
            return stored
        path = image.content(located)
        return self._store.find(f"sha256:{path.name}") or self._store.keep(f"sha256:{path.name}", read_pieces(path))


def _check_size(image: Image) -> None:
    size = sum(layer.size for layer in image.resolved.manifest.layers)
    if size > OS_IMAGE_BYTES:
        most = f"at most {OS_IMAGE_BYTES >> 30} GiB are read"
        raise BoundExceeded(f"image {image.resolved.name}: its layers have {size >> 20} MiB, {most}")


class _ToolkitThenOSImage:
    """A kernel's two images. The OS image is opened only if the toolkit lacks something."""

    def __init__(
        self, kernel: TargetKernel, toolkit: KernelImage, open_os_image: Callable[[TargetKernel], KernelImage | None]
    ) -> None:
        self._kernel, self._toolkit, self._open_os_image = kernel, toolkit, open_os_image
        self._from_os_image: list[str] = []
        self._unread: list[str] = []
        self._problem: str | None = None

    def first(self, name: str, read: Callable[[KernelImage], _Content | None]) -> _Content | None:
        """Read from the toolkit, or else from the OS image. name is the file's name in findings."""
        content = read(self._toolkit)
        return self.from_os_image(name, read) if content is None else content

    def from_os_image(self, name: str, read: Callable[[KernelImage], _Content | None]) -> _Content | None:
        """Read from the OS image. After the first error, return None: the image is not read again."""
        if self._problem is not None:
            self._unread.append(name)
            return None
        try:
            image = self._open_os_image(self._kernel)
            content = read(image) if image else None
        except PreflightError as exc:
            self._problem = exc.message
            self._unread.append(name)
            return None
        self._from_os_image += [name] if content is not None else []
        return content

    def findings(self) -> tuple[Finding, ...]:
        """Return a finding for the files from the OS image, and a finding for the files that could not be read."""
        kernel = self._kernel
        words = {"kernel": kernel.version, "toolkit": kernel.driver_toolkit, "image": kernel.os_image}
        result = []
        if self._from_os_image:
            result.append(findings.KERNEL_FILES_OS_IMAGE(files=", ".join(self._from_os_image), **words))
        if self._unread:
            result.append(findings.OS_IMAGE_UNREAD(files=", ".join(self._unread), problem=self._problem, **words))
        return tuple(result)
