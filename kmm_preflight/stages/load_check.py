"""What an image's kmod meets beyond its path: KMM's worker, modprobe, and the loader of the target kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from kmm_preflight.catalogue import heaviest_first
from kmm_preflight.cluster.sections import SectionObjects
from kmm_preflight.depth import Depth, ProofOptions
from kmm_preflight.errors import BoundExceeded, PreflightError
from kmm_preflight.kmod import findings as kmod_findings
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import judge_chain, read_kmod_file
from kmm_preflight.kmod.names import is_kmod_file, module_key
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.model import Finding, Severity, TargetKernel
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.planning.plan import Plan
from kmm_preflight.release.kernel_sources import ReadKernelFiles
from kmm_preflight.stages import findings
from kmm_preflight.stages.image_check import kmods_of
from kmm_preflight.stages.signatures import judge_required, judge_signed, judge_unasked, signed_files
from kmm_preflight.text import listed
from kmm_preflight.worker.firmware import judge_firmware
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.prepare import NodeContents, prepare_node
from kmm_preflight.worker.program import ImageFiles

# Of the image's other kmods, for who exports what.
_BESIDE = 256
# What changes only what modprobe prints, and where.
_HARMLESS = frozenset(("-v", "--verbose", "-q", "--quiet", "-s", "--syslog"))


TrialCheck = Callable[[Plan, Image], tuple[Finding, ...]]
"""What a kernel says that is booted for it (docs/trial-load.md)."""


class Kernels(Protocol):
    """Where the target kernels' own files come from."""

    def read(self, kernel: TargetKernel) -> ReadKernelFiles:
        """What is known of the kernel; raises as errors.py says."""


@dataclass(frozen=True)
class _Kmods:
    """What a node loads of an image for a plan, and before which kernel."""

    plan: Plan
    image: Image
    kernel: KernelFiles
    node: NodeContents


class LoadCheck:
    """Judges what lies beyond the path, as deep as the run asks."""

    def __init__(
        self, proving: ProofOptions, kernels: Kernels, sources: SectionObjects, trials: TrialCheck | None = None
    ) -> None:
        """sources has the Secrets in which certificates of sign sections are; trials is None where none is made."""
        self._proving, self._kernels, self._sources, self._trials = proving, kernels, sources, trials
        self._worker = Worker.of_version(proving.kmm_version)

    def judge(self, plan: Plan, image: Image) -> tuple[Finding, ...] | None:
        """All that speaks against the plan's kmods in the image, and what there is to tell of them; None at depth path.

        Raises what reading the image raises.
        """
        return self._judge(plan, image, signed=True)

    def judge_unsigned(self, plan: Plan, image: Image) -> tuple[Finding, ...] | None:
        """The same of an image whose kmods are still to be signed."""
        return self._judge(plan, image, signed=False)

    def _judge(self, plan: Plan, image: Image, signed: bool) -> tuple[Finding, ...] | None:
        if not self._proving.depth.reaches(Depth.NODE):
            return None
        told = self._from_files(plan, image, signed)
        if self._trials is None or _deciding(told):
            return told  # a trial knows less of what nodes have loaded than what was left undecided
        return (*told, *self._trials(plan, image))

    def _from_files(self, plan: Plan, image: Image, signed: bool) -> tuple[Finding, ...]:
        if plan.kmod is None:
            return self._of_every_kmod(plan, image, signed)
        return (*_options(plan), *self._of_named(plan, image, signed))

    def _of_every_kmod(self, plan: Plan, image: Image, signed: bool) -> tuple[Finding, ...]:
        """For rawArgs, which may name any: proved only where each kmod of the folder is, refuted where none is."""
        told = {name: self._of_named(replace(plan, kmod=name), image, signed) for name in _names(plan, image)}
        bad = {name: one for name, many in told.items() if (one := _deciding(many))}
        if not bad:
            return tuple(dict.fromkeys(one for many in told.values() for one in many))
        name, problem = next(iter(bad.items()))
        if len(bad) == len(told) and all(one.severity is Severity.REFUTES for one in bad.values()):
            return told[name]
        values = {"count": len(bad), "all": len(told), "kmod": name, "problem": problem.sentence}
        return (findings.MODPROBE_ARGUMENTS_OPEN(folder=plan.folder, **values),)

    def _of_named(self, plan: Plan, image: Image, signed: bool) -> tuple[Finding, ...]:
        files = ImageFiles(image.files, image.content, image.config().search_path or None)
        if not self._proving.depth.reaches(Depth.KERNEL):
            return prepare_node(plan, files, self._worker).findings
        try:
            known = self._kernels.read(plan.kernel)
        except PreflightError as exc:
            toolkit = plan.kernel.driver_toolkit
            unread = findings.TOOLKIT_UNREAD(kernel=plan.kernel.version, toolkit=toolkit, problem=exc.message)
            return (unread, *prepare_node(plan, files, self._worker).findings)
        node = prepare_node(plan, files, self._worker, known.files)
        if any(one.severity is Severity.REFUTES for one in node.findings):
            return (*node.findings, *known.findings)
        kmods = _Kmods(plan, image, known.files, node)
        signatures = self._judge_signatures(plan, image, node) if signed else ()
        return (*node.findings, *signatures, *self._judge_kmods(kmods), *known.findings)

    def _judge_signatures(self, plan: Plan, image: Image, node: NodeContents) -> tuple[Finding, ...]:
        paths = [located.path for located in node.sequence]
        told: tuple[Finding, ...] = ()
        if plan.sign:
            asked = signed_files(plan, plan.sign, image)
            told = judge_signed(plan, plan.sign, image, self._sources)
            paths = [path for path in paths if path not in asked]
        judge = judge_required if self._proving.require_signature else judge_unasked
        return (*told, *judge(image, paths))

    def _judge_kmods(self, kmods: _Kmods) -> tuple[Finding, ...]:
        chain: list[tuple[str, KernelObject]] = []
        for located in kmods.node.sequence:
            kmod = read_kmod_file(f"/{located.path}", kmods.image.content(located), kmods.kernel)
            if isinstance(kmod, Finding):
                return (kmod,)
            chain.append((f"/{located.path}", kmod))
        in_tree = kmods.node.in_tree | self._proving.assume_loaded
        told = judge_chain(chain, kmods.kernel, (), in_tree, kmods.node.removed)
        if any(one.id == kmod_findings.KMOD_SYMBOLS_ABSENT.id for one in told):
            told = judge_chain(chain, kmods.kernel, tuple(_beside(kmods)), in_tree, kmods.node.removed)
        return (*told, *_firmware(kmods, chain))


def _deciding(told: tuple[Finding, ...]) -> Finding | None:
    """The finding that withholds green."""
    first = next(iter(heaviest_first(told)), None)
    return first if first and first.severity in (Severity.REFUTES, Severity.UNDECIDED) else None


def _options(plan: Plan) -> Iterator[Finding]:
    strange = [one for one in plan.load_options if one not in _HARMLESS]
    if strange:
        yield findings.MODPROBE_OPTIONS_OPEN(options=listed(strange))


def _names(plan: Plan, image: Image) -> list[str]:
    """The names of all kmods of the folder, with _ for -; BoundExceeded for more than 256."""
    names = sorted({module_key(located.path.rpartition("/")[2]) for located in kmods_of(plan, image)})
    if len(names) > _BESIDE:
        raise BoundExceeded(
            f"/{plan.folder}: {len(names)} kmods, of which rawArgs may name any; read at most {_BESIDE}"
        )
    return names


def _beside(kmods: _Kmods) -> Iterator[KernelObject]:
    """The image's other kmods in the kernel's folder that can be read."""
    folder = kmods.image.files.resolve(kmods.plan.folder)
    loaded = {located.path for located in kmods.node.sequence}
    for number, located in enumerate(kmods.image.files.below(folder.path, is_kmod_file) if folder else ()):
        if number >= _BESIDE:
            return
        if located.path in loaded or located.entry.kind is not EntryKind.FILE:
            continue
        kmod = read_kmod_file(located.path, kmods.image.content(located), kmods.kernel)
        if isinstance(kmod, KernelObject):
            yield kmod


def _firmware(kmods: _Kmods, chain: list[tuple[str, KernelObject]]) -> Iterator[Finding]:
    for name, kmod in chain:
        yield from judge_firmware(kmods.plan, kmods.image.files, name, kmod.modinfo.all("firmware"))
