"""The further check of an image's kmods: KMM's worker, modprobe, and the loader of the target kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from kmm_preflight.cluster.sections import SectionObjects
from kmm_preflight.depth import Depth, ProofOptions
from kmm_preflight.errors import BoundExceeded, PreflightError
from kmm_preflight.kmod.findings import KMOD_SYMBOLS_ABSENT
from kmm_preflight.kmod.loader import judge_chain
from kmm_preflight.kmod.names import module_key, wanted_key
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.kmod.parameters import judge_parameters
from kmm_preflight.model import Finding, Severity
from kmm_preflight.oci.filesystem import Located
from kmm_preflight.oci.image import Image
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages import findings
from kmm_preflight.stages.boot_check import BootedKernel, JudgeSignature, judge_boot
from kmm_preflight.stages.chain import OTHER_KMODS, ImageKmods, Kernels, judge_alone, loaded_set, named
from kmm_preflight.stages.decision import Decision
from kmm_preflight.stages.kmod_folder import KmodFolder
from kmm_preflight.stages.node_set import LoadedSet, Neighbour, judge_together
from kmm_preflight.stages.signatures import ImageSignatures
from kmm_preflight.text import listed
from kmm_preflight.worker import findings as worker_findings
from kmm_preflight.worker.call_check import CheckedCall, Place, check_call, node_directory
from kmm_preflight.worker.firmware import judge_firmware
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.modprobe_call import ModprobeCall
from kmm_preflight.worker.prepare import prepare_node
from kmm_preflight.worker.program import ImageFiles

TrialCheck = Callable[[Plan, Image], tuple[Finding, ...]]
"""Load the plan's kmod in a virtual machine with the target kernel. Return what the kernel says."""


class NodeNeighbours(Protocol):
    """Other Modules of the run on the nodes of a plan."""

    def of(self, plan: Plan) -> tuple[Neighbour, ...]:
        """Return the Modules that may share a node with the plan."""


class LoadCheck:
    """The further check, to the depth of proof that the run requires."""

    def __init__(
        self,
        options: ProofOptions,
        kernels: Kernels,
        sources: SectionObjects,
        trial: TrialCheck | None = None,
        neighbours: NodeNeighbours | None = None,
    ) -> None:
        """Prepare the check. sources has the Secrets with the certificates of sign sections.

        neighbours: other Modules whose kmods are judged together with those of a plan.
        """
        self._options, self._kernels, self._sources, self._trial = options, kernels, sources, trial
        self._worker = Worker.of_version(options.kmm_version)
        self._neighbours = neighbours

    @property
    def checks_signatures(self) -> bool:
        """True if judge checks the signatures of sign sections."""
        return self._options.depth.reaches(Depth.KERNEL)

    def judge(self, plan: Plan, image: Image) -> tuple[Finding, ...] | None:
        """Return all findings about the plan's kmods in the image, or None at depth path.

        Raise what reading the image raises.
        """
        required = self._options.require_signature
        return self._judge(plan, image, ImageSignatures(plan, image, self._sources, required))

    def judge_unsigned(self, plan: Plan, image: Image) -> tuple[Finding, ...] | None:
        """Return all findings about kmods that are still to be signed: check everything but signatures."""
        return self._judge(plan, image, None)

    def _judge(self, plan: Plan, image: Image, signatures: ImageSignatures | None) -> tuple[Finding, ...] | None:
        if not self._options.depth.reaches(Depth.NODE):
            return None
        checked = check_call(plan, self._worker, self._options.kmm_version is not None)
        found = self._judge_call(plan, checked, image, signatures)
        if self._trial is None or Decision.of(found).finding:
            return found  # a trial does not know what nodes have loaded: it cannot decide what the files leave open
        return (*found, *self._trial(_tried(plan, checked), image))

    def _judge_call(
        self, plan: Plan, checked: CheckedCall, image: Image, signatures: ImageSignatures | None
    ) -> tuple[Finding, ...]:
        found = [*checked.findings, *_judge_options(checked.call)]
        if checked.refuted:
            return tuple(found)
        if checked.place is Place.NODE and not self._options.depth.reaches(Depth.KERNEL):
            return (*found, *self._judge_every_kmod(plan, image, signatures))
        for name in checked.call.names:
            of_name = replace(plan, kmod=name, parameters=checked.call.parameters)
            if checked.place is Place.NODE:
                found += self._judge_node_kmod(of_name, name)
            else:
                found += self._judge_kmod(of_name, name, image, signatures)
        return tuple(dict.fromkeys(found))

    def _judge_node_kmod(self, plan: Plan, name: str) -> tuple[Finding, ...]:
        """Return the findings about a name that modprobe looks up among the node's own kmods."""
        directory, kernel = node_directory(plan, self._worker), plan.kernel.version
        try:
            known = self._kernels.read(plan.kernel).files.has_in_tree(wanted_key(name))
        except PreflightError as exc:
            return (_unread(plan, exc),)
        if known is None:
            return (worker_findings.NODE_IN_TREE_UNKNOWN(kernel=kernel, names=name),)
        if known:
            return (worker_findings.MODPROBE_NODE_KMOD(name=name, directory=directory),)
        return (worker_findings.MODPROBE_NODE_ABSENT(name=name, directory=directory, kernel=kernel),)

    def _judge_every_kmod(self, plan: Plan, image: Image, signatures: ImageSignatures | None) -> tuple[Finding, ...]:
        """Check all kmods, since rawArgs may name any. All must be good for a proof, and all bad for a refutation."""
        names = _names(plan, image)
        if not names:
            return (KmodFolder(plan, image).why_none(),)
        found = {name: self._judge_kmod(replace(plan, kmod=name), name, image, signatures) for name in names}
        decisions = {name: Decision.of(of_kmod).finding for name, of_kmod in found.items()}
        bad = {name: finding for name, finding in decisions.items() if finding}
        if not bad:
            note = findings.MODPROBE_ARGUMENTS(count=len(names), folder=plan.folder)
            return tuple(dict.fromkeys(finding for of_kmod in (*found.values(), (note,)) for finding in of_kmod))
        name, problem = next(iter(bad.items()))
        if len(bad) == len(found) and all(finding.severity is Severity.REFUTES for finding in bad.values()):
            return found[name]
        values = {"count": len(bad), "all": len(found), "kmod": name, "problem": problem.sentence}
        return (findings.MODPROBE_ARGUMENTS_OPEN(folder=plan.folder, **values),)

    def _judge_kmod(
        self, plan: Plan, kmod: str, image: Image, signatures: ImageSignatures | None
    ) -> tuple[Finding, ...]:
        files = ImageFiles(image.files, image.content, image.config().search_path)
        if not self._options.depth.reaches(Depth.KERNEL):
            return prepare_node(plan, files, self._worker).findings
        try:
            kernel = self._kernels.read(plan.kernel)
            if plan.in_tree_modules_to_remove:
                users = self._kernels.users(plan.kernel)
                kernel = replace(kernel, files=replace(kernel.files, users=users))
        except PreflightError as exc:
            return (_unread(plan, exc), *prepare_node(plan, files, self._worker).findings)
        node = prepare_node(plan, files, self._worker, kernel.files)
        if any(finding.severity is Severity.REFUTES for finding in node.findings):
            return (*node.findings, *kernel.findings)
        kmods = ImageKmods(plan, image, kernel.files, node, self._options.assume_loaded)
        if signatures:
            signatures.use_configuration(kernel.files)
        signed = signatures.judge_loaded(kmod, [located.path for located in node.sequence]) if signatures else ()
        enforced = partial(signatures.judge_enforced, kmod) if signatures else None
        return (*node.findings, *signed, *self._judge_objects(kmods, enforced), *kernel.findings)

    def _judge_objects(self, kmods: ImageKmods, signature: JudgeSignature | None) -> tuple[Finding, ...]:
        if isinstance(kmods.chain, Finding):
            return (kmods.chain,)
        chain = named(kmods.chain)
        booted = BootedKernel(kmods.kernel, kmods.plan.boot_arguments)
        at_boot = judge_boot(booted, chain, sorted(kmods.node.in_tree), signature, kmods.plan.kmod)
        loader = self._judge_set(kmods, kmods.chain, judge_alone(kmods, chain))
        return (*at_boot, *loader, *_judge_parameters(kmods.plan, booted, chain), *_judge_firmware(kmods, chain))

    def _judge_set(
        self, kmods: ImageKmods, chain: Sequence[tuple[Located, KernelObject]], alone: tuple[Finding, ...]
    ) -> tuple[Finding, ...]:
        """Return the loader's findings, together with the kmods of other Modules on the same nodes."""
        others = self._neighbours.of(kmods.plan) if self._neighbours else ()
        if not others and not any(finding.id == KMOD_SYMBOLS_ABSENT.id for finding in alone):
            return alone
        own = loaded_set(kmods, chain, alone)
        if own.refuted:
            return alone

        def resolve(of: LoadedSet, before: tuple[KernelObject, ...]) -> tuple[Finding, ...]:
            pairs = [(kmod.path, kmod.kmod) for kmod in of.kmods]
            return judge_chain(pairs, kmods.kernel, (), of.in_tree, of.removed, before)

        return judge_together(own, alone, others, resolve)


def _judge_options(call: ModprobeCall) -> Iterator[Finding]:
    if call.unsimulated:
        yield findings.MODPROBE_OPTIONS_OPEN(options=listed(list(call.unsimulated)))


def _unread(plan: Plan, exc: PreflightError) -> Finding:
    kernel = plan.kernel
    return findings.TOOLKIT_UNREAD(kernel=kernel.version, toolkit=kernel.driver_toolkit, problem=exc.message)


def _tried(plan: Plan, checked: CheckedCall) -> Plan:
    """Return the plan to try. A single name of rawArgs in the image's folder is tried like a moduleName."""
    if plan.kmod is not None or checked.place is not Place.IMAGE or len(checked.call.names) != 1:
        return plan
    return replace(plan, kmod=checked.call.names[0], parameters=checked.call.parameters)


def _names(plan: Plan, image: Image) -> list[str]:
    """Return the names of all kmods of the folder, with _ instead of -. Raise BoundExceeded for too many."""
    kmods = KmodFolder(plan, image).kmods()
    names = sorted({module_key(located.path.rpartition("/")[2]) for located in kmods})
    if len(names) > OTHER_KMODS:
        raise BoundExceeded(
            f"/{plan.folder}: {len(names)} kmods, of which rawArgs may name any; read at most {OTHER_KMODS}"
        )
    return names


def _judge_parameters(plan: Plan, booted: BootedKernel, chain: list[tuple[str, KernelObject]]) -> tuple[Finding, ...]:
    """Return findings for parameters of the Module, and for those of the kernel's command line (NAME.PARAMETER)."""
    own = judge_parameters(*chain[-1], plan.parameters) if chain else ()
    at_boot = (
        finding
        for _, line in booted.lines
        for path, kmod in chain
        for finding in judge_parameters(path, kmod, line.parameters.get(module_key(path.rpartition("/")[2]), ()))
    )
    return tuple(dict.fromkeys((*own, *at_boot)))


def _judge_firmware(kmods: ImageKmods, chain: list[tuple[str, KernelObject]]) -> Iterator[Finding]:
    for name, kmod in chain:
        yield from judge_firmware(kmods.plan, kmods.image.files, name, kmod.modinfo.all("firmware"))
