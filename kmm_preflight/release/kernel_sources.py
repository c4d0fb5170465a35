"""A target kernel's own files, by source: what its driver toolkit lacks, the OS image has that nodes boot.

The OS image is large: read only what a check needs and the toolkit lacks (docs/reference/openshift.md 2.2, 3.2).
Nothing else knows of both.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kmm_preflight.base.decompression import read_pieces
from kmm_preflight.errors import BoundExceeded, PreflightError
from kmm_preflight.kmod.kernel_files import KernelFiles, RawFiles, read_kernel_files
from kmm_preflight.kmod.packed import unpacked
from kmm_preflight.kmod.symvers import Symvers, SymversStore
from kmm_preflight.model import VERIFIED_HTTPS, Finding, TargetKernel
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import parse_name
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.release import findings
from kmm_preflight.release.kernel_image import OS_IMAGE, TOOLKIT, KernelFolders, KernelImage, ModuleLists

# In transfer, all layers together; those of releases have about 1 GB (docs/reference/openshift.md 3.2).
OS_IMAGE_BYTES = 4 << 30

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class KnownKernel:
    """A kernel as its files tell it, and what is to be said of where they came from."""

    files: KernelFiles
    told: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class OwnFile:
    """One of a kernel's own files; of_os_image where the driver toolkit lacks it."""

    path: Path
    of_os_image: bool


class KernelSources:
    """The files of target kernels. Each image is opened once, and a Module.symvers parsed once for all runs."""

    def __init__(self, images: ImageResolver, credentials: PullCredentials, store: SymversStore) -> None:
        """credentials is what the release is pulled with; the store keeps tables by digest."""
        self._images, self._credentials, self._store = images, credentials, store
        self._known: dict[TargetKernel, KnownKernel | PreflightError] = {}
        self._opened: dict[tuple[TargetKernel, KernelFolders], KernelImage] = {}

    def known(self, kernel: TargetKernel) -> KnownKernel:
        """What the kernel's files tell of it, without a toolkit nothing but its name.

        Raises what reading the toolkit raises; Malformed for a file that is not what it should be. An OS image that
        cannot be read is told instead: it may have had what the toolkit lacks.
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

    def own_file(self, kernel: TargetKernel, path: str) -> OwnFile | None:
        """A file below lib/modules/<kernel>, None where neither has it; raises what reading an image raises."""
        for image, of_os_image in ((self._toolkit, False), (self._os_image, True)):
            opened = image(kernel)
            if opened and (file := opened.own_file(path)):
                return OwnFile(file, of_os_image)
        return None

    def own_kmod(self, kernel: TargetKernel, name: str) -> str | None:
        """The path there of an in-tree kmod, by its name with _ for -; None where neither has it."""
        for image in (self._toolkit, self._os_image):
            opened = image(kernel)
            if opened and (path := opened.own_kmod(name)):
                return path
        return None

    def _toolkit(self, kernel: TargetKernel) -> KernelImage | None:
        return self._open(kernel, kernel.driver_toolkit, TOOLKIT)

    def _os_image(self, kernel: TargetKernel) -> KernelImage | None:
        return self._open(kernel, kernel.os_image, OS_IMAGE)

    def _open(self, kernel: TargetKernel, name: str, places: KernelFolders) -> KernelImage | None:
        """The image of that name, opened once; None for "". Of an OS image the size is looked at before."""
        if name and (kernel, places) not in self._opened:
            image = self._images.image(parse_name(name), kernel.arch, self._credentials, VERIFIED_HTTPS)
            if places is OS_IMAGE:
                _check_size(image)
            self._opened[kernel, places] = KernelImage(image, kernel, places)
        return self._opened.get((kernel, places))

    def _read(self, kernel: TargetKernel) -> KnownKernel:
        toolkit = self._toolkit(kernel)
        if toolkit is None:
            return KnownKernel(KernelFiles(kernel.version, kernel.arch, None, None))
        both = _Both(kernel, toolkit, self._os_image)
        symvers = both.first("Module.symvers", self._symvers)
        configuration = both.first(".config", KernelImage.configuration)
        lists = both.first("modules.builtin", KernelImage.lists) or ModuleLists()
        in_tree = toolkit.small_kmod()
        if in_tree is None and configuration is None:  # with either of them its version magic is known
            in_tree = both.of_os_image("an in-tree kmod", KernelImage.small_kmod)
        with unpacked(in_tree) if in_tree else nullcontext() as kmod:
            raw = RawFiles(configuration, kmod, lists.order, lists.built_in, lists.built_in_tags)
            return KnownKernel(read_kernel_files(kernel.version, kernel.arch, symvers, raw), both.told())

    def _symvers(self, image: KernelImage) -> Symvers | None:
        located = image.symvers()
        if located is None:
            return None
        digest = located.entry.content
        known = self._store.find(f"sha256:{digest}") if digest else None
        if known is not None:
            return known
        path = image.content(located)
        return self._store.find(f"sha256:{path.name}") or self._store.keep(f"sha256:{path.name}", read_pieces(path))


def _check_size(image: Image) -> None:
    size = sum(layer.size for layer in image.resolved.manifest.layers)
    if size > OS_IMAGE_BYTES:
        most = f"read at most {OS_IMAGE_BYTES >> 30} GiB"
        raise BoundExceeded(f"image {image.resolved.name}: got layers of {size >> 20} MiB, {most}")


class _Both:
    """A kernel's two sources, of which the second is opened when the first lacks something."""

    def __init__(
        self, kernel: TargetKernel, toolkit: KernelImage, os_image: Callable[[TargetKernel], KernelImage | None]
    ) -> None:
        self._kernel, self._toolkit, self._os_image = kernel, toolkit, os_image
        self._lent: list[str] = []
        self._unread: list[str] = []
        self._trouble = ""

    def first(self, name: str, ask: Callable[[KernelImage], _Answer | None]) -> _Answer | None:
        """What the toolkit answers, else the OS image; name is the file's in sentences."""
        found = ask(self._toolkit)
        return self.of_os_image(name, ask) if found is None else found

    def of_os_image(self, name: str, ask: Callable[[KernelImage], _Answer | None]) -> _Answer | None:
        """What the OS image answers. It is not asked again once it could not be read."""
        if self._trouble:
            self._unread.append(name)
            return None
        try:
            image = self._os_image(self._kernel)
            found = ask(image) if image else None
        except PreflightError as exc:
            self._trouble = exc.message
            self._unread.append(name)
            return None
        self._lent += [name] if found is not None else []
        return found

    def told(self) -> tuple[Finding, ...]:
        """What is not the toolkit's, and what might have been found."""
        words = {"kernel": self._kernel.version, "toolkit": self._kernel.driver_toolkit, "image": self._kernel.os_image}
        told = []
        if self._lent:
            told.append(findings.KERNEL_FILES_OS_IMAGE(files=", ".join(self._lent), **words))
        if self._unread:
            told.append(findings.OS_IMAGE_UNREAD(files=", ".join(self._unread), problem=self._trouble, **words))
        return tuple(told)
