"""The image stage: can the image be had, and does it hold the kmod where modprobe will look on the new kernel?

The documentation's two steps: (1) image existence and accessibility, (2) the kmod in the correct path,
<DirName>/lib/modules/<UpgradedKernel>/, as the image's own file system shows it. Then (3), which the documentation does
not have: what the node and the kernel's loader will say (loading.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from kmm_preflight.catalogue import heaviest_first
from kmm_preflight.cluster.credentials import Credentials
from kmm_preflight.errors import AccessDenied, BoundExceeded, PreflightError
from kmm_preflight.kmod import findings as kmod_findings
from kmm_preflight.kmod.names import is_kmod_file, is_near, module_key, wanted_key
from kmm_preflight.kmod.packed import elf_problem
from kmm_preflight.kmod.signed_file import compression_below_signature
from kmm_preflight.model import Finding, JudgedImage, Outcome, Severity, Stage, StageResult
from kmm_preflight.oci import findings as oci_findings
from kmm_preflight.oci.filesystem import FOLDERS_THROUGH_LINKS, LinkBroken, Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import ImageName
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.planning.plan import Plan, Recorded
from kmm_preflight.stages import findings
from kmm_preflight.text import listed
from kmm_preflight.worker import findings as worker_findings

_KIND_WORDS = {
    EntryKind.FOLDER: "folder",
    EntryKind.DEVICE: "device",
    EntryKind.HARDLINK: "hard link",
    EntryKind.SYMLINK: "link",
}
_NODE_MODULES = "/lib/modules/"
_KMODS_LOOKED_AT = 10_000
_DECIDES = (Severity.REFUTES, Severity.UNDECIDED)


FurtherCheck = Callable[[Plan, Image], tuple[Finding, ...] | None]
"""What else speaks for or against an image, None when nothing more is asked; raises what reading the image raises."""


def path_alone(plan: Plan, image: Image) -> None:
    """Nothing: the kmod's path is all that is asked for."""


def judge_image(
    plan: Plan, images: ImageResolver, credentials: Credentials, deeper: FurtherCheck = path_alone
) -> StageResult:
    """Return VERIFIED, FAILED or UNDECIDED for the plan's image, with the findings.

    If an earlier run recorded the image and it still exists unchanged, return NOT_NEEDED without a look inside.
    """
    result = _judge(plan, plan.image, images, credentials, deeper)
    return replace(result, findings=(*result.findings, *plan.notes))


def judge_built(
    plan: Plan, name: ImageName, images: ImageResolver, credentials: Credentials, deeper: FurtherCheck
) -> StageResult:
    """Return VERIFIED, FAILED or UNDECIDED for an image that was built for the plan and has this name."""
    return _judge(replace(plan, recorded=None), name, images, credentials, deeper)


def _judge(
    plan: Plan, name: ImageName, images: ImageResolver, credentials: Credentials, deeper: FurtherCheck
) -> StageResult:
    if credentials.problem:
        return _result(credentials.problem)
    image: Image | None = None
    try:
        if problem := images.refusal(name):
            return _result(oci_findings.REGISTRY_BLOCKED(problem=problem))
        image = images.image(name, plan.kernel.arch, credentials.pull, plan.tls)  # (1)
        if plan.recorded and plan.recorded.digest == image.resolved.digest:
            image.check_layers()
            return _carried(plan.recorded, image.resolved.judged())
        refuted, notes = _judge_kmod(plan, image)  # (2)
        if refuted is None or refuted.id == findings.KMOD_ABSENT.id:
            refuted, notes = _deepened(plan, refuted, notes, deeper(plan, image))  # (3)
        if refuted is None:
            image.check_layers()  # (1) again: what was read before, perhaps elsewhere, must be here for the node
    except AccessDenied as exc:
        refuted, notes = findings.IMAGE_ACCESS_DENIED(problem=exc.message, credentials=credentials), ()
    except PreflightError as exc:
        refuted, notes = oci_findings.finding_of(exc, plan.kernel.version), ()
    secret = (credentials.note,) if credentials.note else ()
    again = _again(plan, image) if image else ()
    return _result(refuted, (*notes, *secret, *again), image.resolved.judged() if image else None, plan)


def _deepened(
    plan: Plan, absent: Finding | None, notes: tuple[Finding, ...], told: tuple[Finding, ...] | None
) -> tuple[Finding | None, tuple[Finding, ...]]:
    """What decides after a deeper look, and the rest; absent stands unless modprobe finds the name as an alias."""
    if told is None or (absent and plan.kmod is None):
        return absent, notes
    every = heaviest_first(told)
    first = next((one for one in every if one.severity in _DECIDES), None)
    if absent and first and first.severity is Severity.REFUTES:
        return absent, notes
    return first, (*(one for one in every if one is not first), *notes)


def _carried(recorded: Recorded, judged: JudgedImage) -> StageResult:
    reason = f"verified on {recorded.date} by an earlier run, and nothing has changed since that its record covers"
    return StageResult(Stage.IMAGE, Outcome.NOT_NEEDED, reason, (), judged)


def _again(plan: Plan, image: Image) -> tuple[Finding, ...]:
    """Why a plan with a record was judged all the same: its name leads elsewhere."""
    if plan.recorded is None:
        return ()
    now, then = image.resolved.digest, plan.recorded
    got = f"the image name points to {now}, not to {then.digest} as on {then.date}"
    return (findings.JUDGED_AGAIN(object="an earlier run", got=got),)


def _result(
    finding: Finding | None,
    notes: tuple[Finding, ...] = (),
    judged: JudgedImage | None = None,
    plan: Plan | None = None,
) -> StageResult:
    if finding is None:
        kmod = f"kmod {plan.kmod}" if plan and plan.kmod else "kmods"
        mirror = f", read from its mirror {judged.read_from}" if judged and judged.read_from else ""
        where = f"image accessible and verified: {kmod} in /{plan.folder}{mirror}" if plan else ""
        return StageResult(Stage.IMAGE, Outcome.VERIFIED, where, notes, judged)
    outcome = Outcome.UNDECIDED if finding.severity is Severity.UNDECIDED else Outcome.FAILED
    return StageResult(Stage.IMAGE, outcome, finding.sentence, (finding, *notes), judged)


def _judge_kmod(plan: Plan, image: Image) -> tuple[Finding | None, tuple[Finding, ...]]:
    """The finding against the kmod, None when it is good, and notes."""
    try:
        folder = image.files.resolve(plan.folder)
    except LinkBroken as exc:
        return _broken(exc), ()
    if folder is None:
        return _absent(plan, image, None), ()
    if folder.entry.kind is not EntryKind.FOLDER:
        return worker_findings.KMOD_NOT_A_FILE(
            path=folder.path, kind=f"{_words(folder)} where the folder should be"
        ), ()
    worst: Finding | None = None
    count = 0
    for located in _candidates(image, folder.path, _wanted_name(plan)):
        finding = _judge_file(image, located)
        count += 1
        if count > _KMODS_LOOKED_AT:
            where = f"image {image.resolved.name}"
            raise BoundExceeded(f"{where}: more than {_KMODS_LOOKED_AT} kmods to look at in /{plan.folder}")
        if plan.kmod and finding is None:
            return None, ()
        worst = worst or finding
    if not count:
        return _absent(plan, image, folder.path), ()
    note = findings.MODPROBE_ARGUMENTS(count=count, folder=plan.folder)
    return worst, () if plan.kmod else (note,)


def kmods_of(plan: Plan, image: Image) -> list[Located]:
    """The files in the kernel's folder that modprobe may take for the plan's kmod; none where there is no folder."""
    try:
        folder = image.files.resolve(plan.folder)
    except LinkBroken:
        return []
    return list(_candidates(image, folder.path, _wanted_name(plan))) if folder else []


def _wanted_name(plan: Plan) -> Callable[[str], bool]:
    """Which file names are the plan's kmod; with rawArgs every kmod is."""
    if plan.kmod is None:
        return is_kmod_file
    key = wanted_key(plan.kmod)
    return lambda name: is_kmod_file(name) and module_key(name) == key


def _candidates(image: Image, folder: str, wanted: Callable[[str], bool]) -> Iterator[Located]:
    """Files of the wanted names below the folder, and below folders that links in it lead to, as depmod goes."""
    found = False
    for located in image.files.below(folder, wanted):
        found = True
        yield located
    if found:
        return
    for link in _folder_links(image, folder):
        yield from image.files.below(link, wanted)


def _folder_links(image: Image, folder: str) -> list[str]:
    targets: list[str] = []
    for link in image.files.below(folder, lambda name: not is_kmod_file(name)):
        if link.entry.kind is EntryKind.SYMLINK and len(targets) < FOLDERS_THROUGH_LINKS:
            if f"{link.entry.link.rstrip('/')}/".startswith(_NODE_MODULES):
                continue  # the documented link `host`: on the node it leads to the node's own modules
            try:
                target = image.files.resolve(link.path)
            except LinkBroken:
                continue
            if target and target.entry.kind is EntryKind.FOLDER:
                targets.append(target.path)
    return targets


def _judge_file(image: Image, located: Located) -> Finding | None:
    try:
        target = image.files.resolve(located.path)
    except LinkBroken as exc:
        return _broken(exc)
    if target and target.entry.kind is EntryKind.HARDLINK:
        linked = image.files.hardlink_target(target)
        if linked is None:
            problem = "the layer does not hold that file"
            return findings.KMOD_LINK_BROKEN(path=located.path, target=target.entry.link, problem=problem)
        target = linked
    if target is None or target.entry.kind is not EntryKind.FILE:
        return worker_findings.KMOD_NOT_A_FILE(path=located.path, kind=_words(target or located))
    file = image.content(target)
    if packed := compression_below_signature(file):
        return kmod_findings.SIGNATURE_COMPRESSED(path=located.path, packed=packed)
    got = elf_problem(file)
    return findings.KMOD_NOT_ELF(path=located.path, got=got) if got else None


def _words(located: Located) -> str:
    return _KIND_WORDS.get(located.entry.kind, "file")


def _broken(exc: LinkBroken) -> Finding:
    return findings.KMOD_LINK_BROKEN(path=exc.path, target=exc.target, problem=exc.problem)


def _absent(plan: Plan, image: Image, folder: str | None) -> Finding:
    """Why there is no kmod: removed by a layer, or never there; and what is."""
    hidden = next(iter(image.files.hidden(folder or plan.folder, _wanted_name(plan))), None)
    if hidden:
        layers = len(image.files)
        return findings.KMOD_REMOVED(
            path=hidden.path,
            layer=layers - hidden.layer,
            layers=layers,
            folder=plan.folder,
        )
    return findings.KMOD_ABSENT(
        folder=plan.folder,
        got=_what_is_there(plan, image, folder),
        expected=f"{plan.kmod}.ko (or .ko.gz, .ko.xz, .ko.zst)" if plan.kmod else "kmod",
        kernel=plan.kernel.version,
    )


def _what_is_there(plan: Plan, image: Image, folder: str | None) -> str:
    """Near names in the folder, else other kernels beside it, else kmods anywhere in the image."""
    if folder is not None:
        names = [one.path.rpartition("/")[2] for one in image.files.below(folder, is_kmod_file)]
        near = [name for name in names if plan.kmod and is_near(name, plan.kmod)]
        if near:
            return f"the folder has similar names: {listed(near)}"
        return f"the folder has kmods {listed(sorted(names))}" if names else "the folder has no kmod"
    parent = plan.folder.rpartition("/")[0]
    try:
        kernels = image.files.resolve(parent)
    except LinkBroken:
        kernels = None
    if kernels:
        names = image.files.children(kernels.path)
        return f"there is no such folder; the image has kernels {listed(names)}" if names else f"/{parent} is empty"
    anywhere = [f"/{one.path}" for one in image.files.below("", _wanted_name(plan))]
    elsewhere = f"the image has it at {listed(anywhere)}" if anywhere else "the image has it nowhere"
    return f"there is no folder /{parent}; {elsewhere}"
