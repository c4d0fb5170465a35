"""Build and sign stages: what they need is looked at, the builder makes it, and what it made is proved.

Nothing here trusts that a build ended well: the image stage's check runs on its result (the operator itself only looks
whether the job passed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from kmm_preflight.build import findings
from kmm_preflight.build.builder import Builder, BuildRequest, BuildResult
from kmm_preflight.build.prepare import BuildPolicy, PreparedBuild, prepare_build, refused, request_id
from kmm_preflight.build.push import why_not_push
from kmm_preflight.build.signing import SignInput, prepare_sign
from kmm_preflight.catalogue import heaviest_first
from kmm_preflight.cluster.credentials import Credentials
from kmm_preflight.cluster.sections import SectionObjects
from kmm_preflight.errors import AccessDenied, Malformed, NotFound, PreflightError
from kmm_preflight.model import VERIFIED_HTTPS, Finding, JudgedImage, Outcome, RegistryTLS, Severity, Stage, StageResult
from kmm_preflight.oci import findings as oci_findings
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import Reference, parse_name
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.decision import Decision
from kmm_preflight.stages.image_check import FurtherCheck, judge_built
from kmm_preflight.stages.signatures import ImageSignatures


class SharedResults(Protocol):
    """What the processes of a run share, by a name that is also a file's."""

    def once(self, name: str, make: Callable[[], object]) -> object:
        """The value of the first process that asked; the others wait for it."""

    def known(self, name: str) -> object | None:
        """The value, None when nobody has asked for it yet."""


class Watcher(Protocol):
    """Whoever shows what goes on."""

    def doing(self, plan: Plan, words: str) -> None:
        """What the plan's builder does right now, in a few words."""


@dataclass(frozen=True)
class BuildContext:
    """With what a run builds: the builder, None with the reason why there is none, and the policy.

    credentials of builds by plan id; plans are all plans of the run. What was made is proved as deep as images
    are, what is still to be signed without signatures. logs is the folder among the artifacts.
    """

    builder: Builder | None
    why: str
    policy: BuildPolicy
    sources: SectionObjects
    images: ImageResolver
    credentials: Mapping[str, Credentials] = field(repr=False)
    plans: tuple[Plan, ...]
    load_check: FurtherCheck
    load_check_unsigned: FurtherCheck
    signatures_checked: bool
    """True if load_check checks the signatures of sign sections."""
    logs: Path
    now: Callable[[], datetime]


class BuildStage:
    """Starts and judges what sections make; every process of a run has one, over the same memory."""

    def __init__(self, context: BuildContext, memory: SharedResults, watcher: Watcher) -> None:
        self._context = context
        self._memory = memory
        self._watcher = watcher

    def start(self, plan: Plan, stage: Stage) -> None:
        """Starts what the stage needs, once in a run, and returns; what speaks against it the stage will say."""
        if self._context.builder:
            self._prepared_once(plan, stage)

    def judge(self, plan: Plan, stage: Stage) -> StageResult:
        """The stage's result: waits for the builder, and proves what it made. VERIFIED, FAILED or UNDECIDED."""
        builder = self._context.builder
        if builder is None:
            kind = findings.BUILDER_NONE if stage is Stage.BUILD else findings.SIGNER_NONE
            return _concluded(stage, (kind(image=plan.image.name, why=self._context.why),))
        prepared = self._prepared_once(plan, stage)
        if prepared.request is None:
            return _concluded(stage, prepared.findings)
        try:
            result = self._prove(plan, prepared.request, builder)
        except PreflightError as exc:
            result = _concluded(stage, (findings.BUILDER_FAILED(problem=exc.message),))
        return replace(result, findings=(*result.findings, *prepared.findings))

    def _prepared_once(self, plan: Plan, stage: Stage) -> PreparedBuild:
        """The request, handed to the builder the first time that it is asked for."""

        def begin() -> PreparedBuild:
            try:
                prepared = self._prepare(plan, stage)
            except Malformed as exc:
                return refused(findings.SOURCE_INVALID(problem=exc.message))
            except PreflightError as exc:
                return refused(findings.SOURCE_UNREAD(problem=exc.message))
            if prepared.request and self._context.builder:
                try:
                    self._context.builder.start(prepared.request)
                except PreflightError as exc:
                    return refused(findings.BUILDER_FAILED(problem=exc.message))
            return prepared

        prepared = self._memory.once(f"{request_id(plan, stage)}.request", begin)
        assert isinstance(prepared, PreparedBuild)
        return prepared

    def _prepare(self, plan: Plan, stage: Stage) -> PreparedBuild:
        prepared = self._prepare_build(plan) if stage is Stage.BUILD else self._prepare_sign(plan)
        if prepared.request is None:
            return prepared
        request = prepared.request
        problem = self._unpullable(request)
        if problem is None and request.push and request.makes_image:
            problem = self._why_not_push(request)
        return replace(prepared, request=None, findings=(problem, *prepared.findings)) if problem else prepared

    def _prepare_build(self, plan: Plan) -> PreparedBuild:
        assert plan.build  # else the stage is not needed
        credentials = self._context.credentials[plan.id]
        if credentials.problem:
            return refused(credentials.problem)
        return prepare_build(plan, plan.build, self._context.sources, credentials.pull, self._context.policy)

    def _prepare_sign(self, plan: Plan) -> PreparedBuild:
        assert plan.sign
        credentials = self._context.credentials[plan.id]
        if credentials.problem:
            return refused(credentials.problem)
        taken = self._input(plan, credentials.pull)
        if isinstance(taken, Finding):
            return refused(taken)
        context = self._context
        return prepare_sign(plan, plan.sign, taken, context.sources, credentials.pull, context.policy, context.now())

    def _input(self, plan: Plan, credentials: PullCredentials) -> SignInput | Finding:
        """What is signed: the build's output, else unsignedImage."""
        assert plan.sign
        builder = self._context.builder
        assert builder
        if plan.build:
            if not (builder.keeps or self._context.policy.push):
                return findings.SIGN_INPUT_ABSENT()
            build_result = self._memory.known(f"{request_id(plan, Stage.BUILD)}.built")
            if not isinstance(build_result, BuildResult) or not build_result.image:
                return findings.SIGN_INPUT_ABSENT()
            return SignInput(build_result.image, self._image(build_result.image, plan, credentials, plan.tls))
        if not plan.sign.unsigned_image:
            return findings.SIGN_IMAGE_NONE()
        name, tls = plan.sign.unsigned_image, plan.sign.unsigned_image_registry_tls
        try:
            return SignInput(name, self._image(name, plan, credentials, tls))
        except PreflightError as exc:
            return _unavailable(exc, "the sign section", plan, credentials)

    def _image(self, name: str, plan: Plan, credentials: PullCredentials, tls: RegistryTLS) -> Image:
        return self._context.images.image(parse_name(name), plan.kernel.arch, credentials, tls)

    def _unpullable(self, request: BuildRequest) -> Finding | None:
        """The first image that the Dockerfile takes and that cannot be had here with these credentials."""
        section = "the Dockerfile" if request.stage is Stage.BUILD else "the sign section"
        for name in request.images:
            if request.stage is Stage.SIGN and name == request.images[0]:
                continue  # the input, which was looked into
            try:
                reference = Reference.parse(name)
            except Malformed as exc:  # a builder would take layouts and archives from its own disk, too
                return findings.BASE_IMAGE_UNRESOLVED(got=exc.message)
            try:
                arch = request.platforms.get(name, request.plan.kernel.arch)
                self._context.images.image(reference, arch, request.credentials, request.pull_tls).check_layers()
            except PreflightError as exc:
                return _unavailable(exc, section, request.plan, request.credentials)
        return None

    def _prove(self, plan: Plan, request: BuildRequest, builder: Builder) -> StageResult:
        build_result = builder.result(request, lambda words: self._watcher.doing(plan, words))
        self._memory.once(f"{request.id}.built", lambda: build_result)
        log = self._keep_log(request, build_result.log)
        told = (findings.PUSHED_BEFORE_PROOF(builder=builder.name, image=request.image),) if build_result.pushed else ()
        if build_result.finding:
            return replace(_concluded(request.stage, (build_result.finding, *told)), log=log)
        if not build_result.image:
            return replace(self._unproved(plan, request, builder), log=log)
        result = self._judged(plan, request, build_result)
        if result.outcome is Outcome.VERIFIED and request.push and not build_result.pushed and request.makes_image:
            result = self._published(request, build_result, result, builder)
        return replace(result, findings=(*result.findings, *told), log=log)

    def _unproved(self, plan: Plan, request: BuildRequest, builder: Builder) -> StageResult:
        """A build of which only the builder's word is known: never green by itself (design 1)."""
        if request.stage is Stage.BUILD and plan.sign:
            warning = findings.BUILD_UNPROVED_UNSIGNED(builder=builder.name)
            return StageResult(request.stage, Outcome.VERIFIED, f"{_WORDS[request.stage]}; sign decides", (warning,))
        return _concluded(request.stage, (findings.BUILD_UNPROVED(builder=builder.name),))

    def _judged(self, plan: Plan, request: BuildRequest, build_result: BuildResult) -> StageResult:
        """The image stage's own check on the result, and of a signed one its signatures."""
        tls = plan.tls if build_result.pushed else VERIFIED_HTTPS
        judged = self._judge_result(replace(plan, tls=tls), request, build_result)
        image = _as(judged.image, request, build_result)
        if judged.outcome is not Outcome.VERIFIED:
            reason = f"{_WORDS[request.stage]}, but its result is not good: {judged.reason}"
            return replace(judged, stage=request.stage, reason=reason, image=image)
        if request.stage is Stage.SIGN and not self._context.signatures_checked:
            signatures = self._judge_signatures(replace(plan, tls=tls), request, build_result)
            judged = replace(judged, findings=tuple(dict.fromkeys((*signatures.findings, *judged.findings))))
            if signatures.finding:
                return replace(_concluded(request.stage, judged.findings), image=image)
        if request.makes_image and (problem := self._not_for_others(plan, request, build_result, tls)):
            return replace(_concluded(request.stage, (problem, *judged.findings)), image=image)
        where = f"pushed to {request.image}" if build_result.pushed else "not pushed"
        reason = f"{_WORDS[request.stage]}, its result has the kmod where modprobe looks ({where})"
        return StageResult(request.stage, Outcome.VERIFIED, reason, judged.findings, image)

    def _judge_result(self, plan: Plan, request: BuildRequest, build_result: BuildResult) -> StageResult:
        """Return what the image stage says about the result, if the plan's nodes pulled it."""
        name, credentials = parse_name(build_result.image), Credentials(request.credentials)
        return judge_built(plan, name, self._context.images, credentials, self._load_check(plan, request))

    def _judge_signatures(self, plan: Plan, request: BuildRequest, build_result: BuildResult) -> Decision:
        signed = self._image(build_result.image, plan, request.credentials, plan.tls)
        return Decision.of(ImageSignatures(plan, signed, self._context.sources).judge_section(plan.kmod))

    def _load_check(self, plan: Plan, request: BuildRequest) -> FurtherCheck:
        """What proves a result beyond the path: one that is still to be signed has no signatures."""
        return (
            self._context.load_check_unsigned
            if plan.sign and request.stage is Stage.BUILD
            else self._context.load_check
        )

    def _why_not_push(self, request: BuildRequest) -> Finding | None:
        if self._context.policy.overwrite:
            return None
        if (
            self._context.builder and self._context.builder.pushes_first
        ):  # then it cannot be looked at whom it would serve
            plan = request.plan
            others = [one for one in self._context.plans if one.image == plan.image and one.kernel != plan.kernel]
            if others:
                problem = f"its name is the same for {others[0].id}, whose nodes would load what is made for another"
                return findings.PUSH_REFUSED(image=request.image, problem=problem)
        return why_not_push(request, self._context.images)

    def _not_for_others(
        self, plan: Plan, request: BuildRequest, build_result: BuildResult, tls: RegistryTLS
    ) -> Finding | None:
        """The first plan of the run that takes the same name and would not find its kmod in what was made."""
        if self._context.policy.overwrite:
            return None
        for other in self._context.plans:
            if other.image != plan.image or other.id == plan.id:
                continue
            judged = self._judge_result(replace(other, tls=tls), request, build_result)
            if judged.outcome is not Outcome.VERIFIED:
                return findings.IMAGE_SHARED(image=plan.image.name, other=other.id, problem=judged.reason)
        return None

    def _published(
        self, request: BuildRequest, build_result: BuildResult, proved: StageResult, builder: Builder
    ) -> StageResult:
        """The result with what became of the push; looked at once more whose tag it is, just before."""
        try:
            problem = self._why_not_push(request) or builder.publish(request, build_result).finding
            if problem is None:
                found = self._image(
                    request.image, request.plan, request.credentials, request.push_tls
                ).resolved.judged()
        except PreflightError as exc:
            problem = findings.PUSH_FAILED(image=request.image, problem=exc.message)
        if problem:
            return replace(_concluded(request.stage, (problem, *proved.findings)), image=proved.image)
        return replace(proved, reason=f"{_WORDS[request.stage]}, proved and pushed to {request.image}", image=found)

    def _keep_log(self, request: BuildRequest, log: str) -> str | None:
        """Keep the log. Return its name among the artifacts, or None for an empty log."""
        if not log:
            return None
        self._context.logs.mkdir(parents=True, exist_ok=True)
        file = self._context.logs / f"{request.id}.log"
        file.write_text(log, encoding="utf-8", errors="replace")
        return f"{self._context.logs.name}/{file.name}"


_WORDS = {Stage.BUILD: "the build ended well", Stage.SIGN: "signing ended well"}


def _as(image: JudgedImage | None, request: BuildRequest, build_result: BuildResult) -> JudgedImage | None:
    """The judged image by the name that it was made for; a layout of this run is nowhere when the run has ended."""
    return replace(image, reference=request.image, stored=build_result.pushed) if image else None


def _unavailable(exc: PreflightError, section: str, plan: Plan, credentials: PullCredentials) -> Finding:
    kernel = plan.kernel.version
    if isinstance(exc, AccessDenied):
        return findings.BASE_IMAGE_DENIED(section=section, problem=exc.message, credentials=credentials)
    if isinstance(exc, NotFound):
        return findings.BASE_IMAGE_ABSENT(section=section, problem=exc.message, kernel=kernel)
    return oci_findings.finding_of(exc, kernel)


def _concluded(stage: Stage, told: Iterable[Finding]) -> StageResult:
    """A stage that the first finding of the heaviest decides."""
    every = tuple(heaviest_first(told))
    undecided = every[0].severity is Severity.UNDECIDED
    outcome = Outcome.UNDECIDED if undecided else Outcome.FAILED
    return StageResult(stage, outcome, every[0].sentence, every)
