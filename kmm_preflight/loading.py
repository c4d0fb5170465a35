"""What an image's kmod meets beyond its path: KMM's worker, modprobe, and the loader of the target kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from kmm_preflight import findings
from kmm_preflight.build.sources import Sources
from kmm_preflight.errors import PreflightError
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import judge_chain, read_kmod_file
from kmm_preflight.kmod.lookup import INDEX, LookedUp, Place, look_up
from kmm_preflight.kmod.names import is_kmod_file
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.model import Finding, Plan, TargetKernel
from kmm_preflight.oci.filesystem import LinkBroken, Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.tar import Kind
from kmm_preflight.proof import Depth, Proving
from kmm_preflight.signatures import judge_required, judge_signed, judge_unasked

# Of the image's other kmods, for who exports what.
_BESIDE = 256


class Kernels(Protocol):
    """Where the target kernels' own files come from."""

    def files(self, kernel: TargetKernel) -> KernelFiles:
        """What is known of the kernel; raises as errors.py says."""


class Loading:
    """Judges what lies beyond the path, as deep as the run asks."""

    def __init__(self, proving: Proving, kernels: Kernels, sources: Sources) -> None:
        """sources has the Secrets in which certificates of sign sections are."""
        self._proving, self._kernels, self._sources = proving, kernels, sources

    def judge(self, plan: Plan, image: Image) -> tuple[Finding, ...]:
        """All that speaks against the plan's kmods in the image, and what there is to tell of them.

        Raises what reading the image raises.
        """
        return self._judge(plan, image, signed=True)

    def judge_unsigned(self, plan: Plan, image: Image) -> tuple[Finding, ...]:
        """The same of an image whose kmods are still to be signed."""
        return self._judge(plan, image, signed=False)

    def _judge(self, plan: Plan, image: Image, signed: bool) -> tuple[Finding, ...]:
        if not self._proving.depth.reaches(Depth.NODE) or plan.kmod is None:
            return ()
        found = _look_up(plan, plan.kmod, image)
        if isinstance(found, Finding):
            return (found,)
        if not self._proving.depth.reaches(Depth.KERNEL):
            return found.notes
        signatures = self._judge_signatures(plan, image, found.paths) if signed else ()
        return (*found.notes, *signatures, *self._judge_kmods(plan, image, found.paths))

    def _judge_signatures(self, plan: Plan, image: Image, paths: tuple[str, ...]) -> tuple[Finding, ...]:
        if plan.sign:
            return judge_signed(plan, plan.sign, image, self._sources)
        return judge_required(image, paths) if self._proving.require_signature else judge_unasked(image, paths)

    def _judge_kmods(self, plan: Plan, image: Image, paths: tuple[str, ...]) -> tuple[Finding, ...]:
        try:
            kernel = self._kernels.files(plan.kernel)
        except PreflightError as exc:
            toolkit = plan.kernel.driver_toolkit
            return (findings.TOOLKIT_UNREAD(kernel=plan.kernel.version, toolkit=toolkit, problem=exc.message),)
        chain: list[tuple[str, KernelObject]] = []
        for path in paths:
            kmod = _read(path, image, kernel)
            if isinstance(kmod, Finding):
                return (kmod,)
            chain.append((f"/{path}", kmod))
        told = judge_chain(chain, kernel, (), self._proving.assume_loaded)
        if any(one.id == findings.KMOD_SYMBOLS_ABSENT.id for one in told):
            beside = tuple(_beside(plan, image, kernel, frozenset(paths)))
            told = judge_chain(chain, kernel, beside, self._proving.assume_loaded)
        return told


@dataclass(frozen=True)
class _Files:
    image: Image

    def at(self, path: str) -> Located | None:
        try:
            located = self.image.files.resolve(path)
        except LinkBroken:
            return None
        if located and located.entry.kind is Kind.HARDLINK:
            return self.image.files.hardlink_target(located)
        return located


def _look_up(plan: Plan, name: str, image: Image) -> LookedUp | Finding:
    files = _Files(image)
    folder = image.files.resolve(plan.folder)
    names = frozenset(image.files.children(folder.path)) if folder else frozenset()
    located = files.at(f"{plan.folder}/{INDEX}")
    index = image.content(located).read_bytes() if located and located.entry.kind is Kind.FILE else None
    place = Place(plan.directory, plan.kernel.version, plan.folder)
    return look_up(place, name, index, names, lambda path: files.at(path) is not None)


def _read(path: str, image: Image, kernel: KernelFiles) -> KernelObject | Finding:
    located = _Files(image).at(path)
    assert located  # it was looked up
    return read_kmod_file(f"/{path}", image.content(located), kernel)


def _beside(plan: Plan, image: Image, kernel: KernelFiles, but: frozenset[str]) -> Iterator[KernelObject]:
    """The image's other kmods in the kernel's folder that can be read."""
    folder = image.files.resolve(plan.folder)
    assert folder
    for number, located in enumerate(image.files.below(folder.path, is_kmod_file)):
        if number >= _BESIDE:
            return
        if located.path in but or located.entry.kind is not Kind.FILE:
            continue
        kmod = read_kmod_file(located.path, image.content(located), kernel)
        if isinstance(kmod, KernelObject):
            yield kmod
