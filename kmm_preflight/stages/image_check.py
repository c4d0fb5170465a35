"""The image stage: check that the image can be pulled, and that it has the kmod where modprobe looks on the new kernel.

Steps 1 and 2 are those of the documentation: (1) image existence and accessibility, (2) the kmod in the correct path,
<DirName>/lib/modules/<UpgradedKernel>/. Step 3 is ours: (3) what the node and the kernel's loader do with the kmod
(load_check.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kmm_preflight.cluster.credentials import Credentials
from kmm_preflight.errors import BoundExceeded, PreflightError
from kmm_preflight.kmod import findings as kmod_findings
from kmm_preflight.kmod.packed import elf_problem
from kmm_preflight.kmod.signed_file import compression_below_signature
from kmm_preflight.model import Finding, JudgedImage, Outcome, Severity, Stage, StageResult
from kmm_preflight.oci import findings as oci_findings
from kmm_preflight.oci.filesystem import LinkBroken, Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import ImageName
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.planning.plan import Plan, Recorded
from kmm_preflight.stages import findings
from kmm_preflight.stages.decision import Decision
from kmm_preflight.stages.held_images import with_held_images
from kmm_preflight.stages.kmod_folder import KmodFolder, broken_link, kind_words
from kmm_preflight.stages.node_pull import open_as_node, why_not_pulled
from kmm_preflight.stages.signature_check import judge_policies
from kmm_preflight.worker import findings as worker_findings

_KMODS_MOST = 10_000

FurtherCheck = Callable[[Plan, Image], tuple[Finding, ...] | None]
"""Step 3. Return findings, or None if the run requires no further check. Raise what reading the image raises."""


def no_further_check(plan: Plan, image: Image) -> None:
    """Return None: the run requires the kmod's path alone."""


def judge_image(
    plan: Plan, images: ImageResolver, credentials: Credentials, further: FurtherCheck = no_further_check
) -> StageResult:
    """Return VERIFIED, FAILED or UNDECIDED for the plan's image, with the findings.

    If an earlier run recorded the image and it still exists unchanged, return NOT_NEEDED without a look inside.
    """
    result = _judge(plan, plan.image, images, credentials, further)
    result = with_held_images(plan, result, lambda name: judge_built(plan, name, images, credentials, further))
    return replace(result, findings=(*result.findings, *plan.notes))


def judge_built(
    plan: Plan, name: ImageName, images: ImageResolver, credentials: Credentials, further: FurtherCheck
) -> StageResult:
    """Return VERIFIED, FAILED or UNDECIDED for an image that was built for the plan and has this name."""
    return _judge(replace(plan, recorded=None), name, images, credentials, further)


def _judge(
    plan: Plan, name: ImageName, images: ImageResolver, credentials: Credentials, further: FurtherCheck
) -> StageResult:
    if credentials.problem:
        return _result(plan, Decision(credentials.problem))
    image: Image | None = None
    try:
        if problem := images.refusal(name):
            return _result(plan, Decision(oci_findings.REGISTRY_BLOCKED(problem=problem)))
        image = open_as_node(plan, name, images, credentials)  # (1)
        if refused := judge_policies(credentials.policies, image, name, images.replaces_registries):
            return _result(plan, Decision(refused, credentials.notes), image.resolved.judged())
        if plan.recorded and plan.recorded.digest == image.resolved.digest:
            image.check_layers()
            return _carried(plan.recorded, image.resolved.judged())
        decision = _with_platform(plan, image, _judge_files(plan, image, further))  # (2) and (3)
        if decision.finding is None:
            image.check_unpacking()
            image.check_layers()  # (1) again: the registry must have what the cache has
    except PreflightError as exc:
        decision = Decision(why_not_pulled(exc, plan, name, images, credentials))
    decision = decision.with_notes(*credentials.notes)
    if image is None:
        return _result(plan, decision)
    return _result(plan, decision.with_notes(*_judged_again(plan, image)), image.resolved.judged())


def _with_platform(plan: Plan, image: Image, decision: Decision) -> Decision:
    """Return the decision with the platform that the image's config names.

    Nodes pull an image whose config names another platform. If the image is refuted, that platform is the reason.
    """
    problem = image.other_platform(plan.kernel.arch)
    if problem is None:
        return decision
    values = {"problem": problem, "kernel": plan.kernel.version}
    if decision.outcome is Outcome.FAILED:
        return Decision(oci_findings.IMAGE_PLATFORM_MISSING(**values))
    return decision.with_notes(oci_findings.IMAGE_PLATFORM_LABEL(**values))


def _judge_files(plan: Plan, image: Image, further: FurtherCheck) -> Decision:
    if plan.kmod is None and (found := further(plan, image)) is not None:
        return Decision.of(found)  # it knows which kmods rawArgs name
    path = _judge_path(plan, image)
    if path.finding is None or path.finding.id == findings.KMOD_ABSENT.id:
        return _with_further(path, further(plan, image) if plan.kmod else None)
    return path


def _with_further(path: Decision, further: tuple[Finding, ...] | None) -> Decision:
    """Return the decision of both checks. An absent kmod still refutes, unless modprobe finds its name as an alias."""
    if further is None:
        return path
    decision = Decision.of(further)
    if path.finding and decision.finding and decision.finding.severity is Severity.REFUTES:
        return path
    return decision.with_notes(*path.notes)


def _carried(recorded: Recorded, judged: JudgedImage) -> StageResult:
    reason = f"verified on {recorded.date} by an earlier run, and nothing has changed since that its record covers"
    return StageResult(Stage.IMAGE, Outcome.NOT_NEEDED, reason, (), judged)


def _judged_again(plan: Plan, image: Image) -> tuple[Finding, ...]:
    """Return the note for a recorded plan whose image has another digest by now."""
    if plan.recorded is None:
        return ()
    now, then = image.resolved.digest, plan.recorded
    got = f"the image name points to {now}, not to {then.digest} as on {then.date}"
    return (findings.JUDGED_AGAIN(object="an earlier run", got=got),)


def _result(plan: Plan, decision: Decision, judged: JudgedImage | None = None) -> StageResult:
    reason = decision.finding.sentence if decision.finding else _verified_words(plan, judged)
    return StageResult(Stage.IMAGE, decision.outcome, reason, decision.findings, judged)


def _verified_words(plan: Plan, judged: JudgedImage | None) -> str:
    kmod = f"kmod {plan.kmod}" if plan.kmod else "kmods"
    mirror = f", read from its mirror {judged.read_from}" if judged and judged.read_from else ""
    return f"image accessible and verified: {kmod} in /{plan.folder}{mirror}"


def _judge_path(plan: Plan, image: Image) -> Decision:
    """Return the decision about the kmod's path and file. With rawArgs, every kmod of the folder must be good."""
    folder = KmodFolder(plan, image)
    first: Finding | None = None
    count = 0
    for located in folder.kmods():
        finding = _judge_file(image, located)
        count += 1
        if count > _KMODS_MOST:
            where = f"image {image.resolved.name}"
            raise BoundExceeded(f"{where}: more than {_KMODS_MOST} kmods to look at in /{plan.folder}")
        if plan.kmod and finding is None:
            return Decision()
        first = first or finding
    if not count:
        return Decision(folder.why_none())
    if plan.kmod:
        return Decision(first)
    return Decision(first, (findings.MODPROBE_ARGUMENTS(count=count, folder=plan.folder),))


def _judge_file(image: Image, located: Located) -> Finding | None:
    try:
        target = image.files.resolve(located.path)
    except LinkBroken as exc:
        return broken_link(exc)
    if target and target.entry.kind is EntryKind.HARDLINK:
        linked = image.files.hardlink_target(target)
        if linked is None:
            problem = "the layer does not hold that file"
            return findings.KMOD_LINK_BROKEN(path=located.path, target=target.entry.link, problem=problem)
        target = linked
    if target is None or target.entry.kind is not EntryKind.FILE:
        kind = kind_words(target or located)
        return worker_findings.KMOD_NOT_A_FILE(path=located.path, got=kind, expected="a regular file")
    file = image.content(target)
    if packed := compression_below_signature(file):
        return kmod_findings.SIGNATURE_COMPRESSED(path=located.path, packed=packed)
    got = elf_problem(file)
    return findings.KMOD_NOT_ELF(path=located.path, got=got) if got else None
