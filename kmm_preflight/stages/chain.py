"""The kmods that a node loads for a plan, one after the other: read, judged alone, and as a set for other Modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from kmm_preflight.depth import Depth, ProofOptions
from kmm_preflight.errors import PreflightError
from kmm_preflight.kmod import findings as kmod_findings
from kmm_preflight.kmod.code_digest import code_digest
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import absent_symbols, judge_chain, read_kmod_file
from kmm_preflight.kmod.names import module_key, wanted_key
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.model import Finding, Severity, TargetKernel
from kmm_preflight.oci.filesystem import Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.planning.plan import Plan
from kmm_preflight.release.kernel_sources import ReadKernelFiles
from kmm_preflight.stages.kmod_folder import KmodFolder
from kmm_preflight.stages.node_set import LoadedKmod, LoadedSet
from kmm_preflight.worker.call_check import Place, check_call
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.prepare import NodeContents, prepare_node
from kmm_preflight.worker.program import ImageFiles

OTHER_KMODS = 256
"""Most kmods of an image that are read besides those that are loaded."""


class Kernels(Protocol):
    """Files of the target kernels."""

    def read(self, kernel: TargetKernel) -> ReadKernelFiles:
        """Return the kernel's own files. Raise PreflightError if they cannot be read."""

    def users(self, kernel: TargetKernel) -> Mapping[str, tuple[str, ...]]:
        """Map names of in-tree kmods to the in-tree kmods that need them. Raise PreflightError like read."""


@dataclass(frozen=True)
class ImageKmods:
    """The files that a node loads for a plan, and the kernel that loads them."""

    plan: Plan
    """The plan."""
    image: Image
    """The image with the files."""
    kernel: KernelFiles
    """The kernel."""
    node: NodeContents
    """The files in the order of loading."""
    assume_loaded: frozenset[str] = frozenset()
    """In-tree kmods that nodes have loaded, with _ for -."""

    @property
    def in_tree(self) -> frozenset[str]:
        """The kernel's own kmods that are loaded before."""
        return self.node.in_tree | self.assume_loaded

    @cached_property
    def chain(self) -> tuple[tuple[Located, KernelObject], ...] | Finding:
        """The kmods in the order of loading, or the finding for the first that the kernel cannot read."""
        chain = []
        for located in self.node.sequence:
            kmod = read_kmod_file(f"/{located.path}", self.image.content(located), self.kernel)
            if isinstance(kmod, Finding):
                return kmod
            chain.append((located, kmod))
        return tuple(chain)

    def names(self) -> frozenset[str]:
        """Return the names of all kmod files in the folder, with _ for -."""
        files = KmodFolder(self.plan, self.image).every_kmod()
        return frozenset(module_key(located.path.rpartition("/")[2]) for located in files)


def named(chain: Sequence[tuple[Located, KernelObject]]) -> list[tuple[str, KernelObject]]:
    """Return the kmods with their paths in the image."""
    return [(f"/{located.path}", kmod) for located, kmod in chain]


def judge_alone(kmods: ImageKmods, chain: Sequence[tuple[str, KernelObject]]) -> tuple[Finding, ...]:
    """Return the loader's findings about the kmods if no other Module loads any."""
    found = judge_chain(chain, kmods.kernel, (), kmods.in_tree, kmods.node.removed)
    if any(finding.id == kmod_findings.KMOD_SYMBOLS_ABSENT.id for finding in found):
        found = judge_chain(chain, kmods.kernel, tuple(_other_kmods(kmods)), kmods.in_tree, kmods.node.removed)
    return found


def loaded_set(
    kmods: ImageKmods, chain: Sequence[tuple[Located, KernelObject]], alone: tuple[Finding, ...]
) -> LoadedSet:
    """Return the kmods as a set for other Modules. alone: the findings of judge_alone. Raise the errors of reading."""
    lacking = kmod_findings.KMOD_SYMBOLS_ABSENT.id
    refuting = [finding for finding in alone if finding.severity is Severity.REFUTES and finding.id != lacking]
    lacks = any(finding.id == lacking for finding in alone)
    absent = absent_symbols(named(chain), kmods.kernel, kmods.in_tree, kmods.node.removed) if lacks else {}
    return LoadedSet(
        tuple(LoadedKmod(f"/{of.path}", code_digest(kmods.image.content(of)), kmod) for of, kmod in chain),
        kmods.in_tree,
        kmods.node.removed,
        bool(refuting),
        absent,
        {path: _foreign(kmods, kmod) for path, kmod in named(chain) if path in absent},
    )


def _foreign(kmods: ImageKmods, kmod: KernelObject) -> frozenset[str]:
    """Return names in the tag depends that neither the kernel nor the image has (docs/reference/loader.md 8)."""
    names = frozenset(wanted_key(name) for name in (kmod.modinfo.first("depends") or "").split(",") if name)
    return names - kmods.kernel.in_tree - kmods.kernel.built_in - kmods.names()


class SetReader:
    """Reads the kmods of a plan as a set for other Modules."""

    def __init__(self, options: ProofOptions, kernels: Kernels) -> None:
        self._options, self._kernels = options, kernels
        self._worker = Worker.of_version(options.kmm_version)

    def read(self, plan: Plan, image: Image) -> LoadedSet:
        """Return the kmods that a node loads from the image. Raise the errors of reading the image or the kernel."""
        checked = check_call(plan, self._worker, self._options.kmm_version is not None)
        if checked.refuted or checked.place is not Place.IMAGE or not self._options.depth.reaches(Depth.KERNEL):
            return LoadedSet(refuted=checked.refuted)
        kernel = self._kernels.read(plan.kernel).files
        sets = [self._of_name(replace(plan, kmod=name), image, kernel) for name in checked.call.names]
        return LoadedSet(
            tuple({kmod.path: kmod for of in sets for kmod in of.kmods}.values()),
            frozenset().union(*(of.in_tree for of in sets)),
            frozenset().union(*(of.removed for of in sets)),
            any(of.refuted for of in sets),
            {path: names for of in sets for path, names in of.absent.items()},
            {path: names for of in sets for path, names in of.depends.items()},
        )

    def _of_name(self, plan: Plan, image: Image, kernel: KernelFiles) -> LoadedSet:
        files = ImageFiles(image.files, image.content, image.config().search_path)
        node = prepare_node(plan, files, self._worker, kernel)
        kmods = ImageKmods(plan, image, kernel, node, self._options.assume_loaded)
        refused = any(finding.severity is Severity.REFUTES for finding in node.findings)
        if refused or isinstance(kmods.chain, Finding):
            return LoadedSet(refuted=True)
        return loaded_set(kmods, kmods.chain, judge_alone(kmods, named(kmods.chain)))


def unknown_because(exc: PreflightError) -> LoadedSet:
    """Return the set of a plan whose image or kernel cannot be read."""
    return LoadedSet(unknown=exc.message)


def _other_kmods(kmods: ImageKmods) -> Iterator[KernelObject]:
    """Yield the other kmods of the folder that can be read, for the symbols that they export."""
    loaded = {located.path for located in kmods.node.sequence}
    for number, located in enumerate(KmodFolder(kmods.plan, kmods.image).every_kmod()):
        if number >= OTHER_KMODS:
            return
        if located.path in loaded or located.entry.kind is not EntryKind.FILE:
            continue
        kmod = read_kmod_file(located.path, kmods.image.content(located), kmods.kernel)
        if isinstance(kmod, KernelObject):
            yield kmod
