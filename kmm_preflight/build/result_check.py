"""Check of a build's result, with the checks of the image stage, and the push after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kmm_preflight.build import findings
from kmm_preflight.build.builder import Builder, BuildRequest, BuildResult
from kmm_preflight.build.context import BuildContext
from kmm_preflight.build.push import check_push
from kmm_preflight.catalogue import heaviest_first
from kmm_preflight.cluster.credentials import Credentials
from kmm_preflight.errors import PreflightError
from kmm_preflight.model import VERIFIED_HTTPS, Finding, JudgedImage, Outcome, RegistryTLS, Severity, Stage, StageResult
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import parse_name
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.decision import Decision
from kmm_preflight.stages.image_check import FurtherCheck, judge_built
from kmm_preflight.stages.signatures import ImageSignatures

_SUCCEEDED = {Stage.BUILD: "the build succeeded", Stage.SIGN: "signing succeeded"}


def failed_stage(stage: Stage, reasons: Iterable[Finding]) -> StageResult:
    """Return a stage result that is FAILED or UNDECIDED, by the heaviest of its findings."""
    ordered = tuple(heaviest_first(reasons))
    outcome = Outcome.UNDECIDED if ordered[0].severity is Severity.UNDECIDED else Outcome.FAILED
    return StageResult(stage, outcome, ordered[0].sentence, ordered)


@dataclass(frozen=True)
class ResultCheck:
    """Checks the result of one request."""

    context: BuildContext
    """Context of the run."""
    builder: Builder
    """Builder that made the result."""
    request: BuildRequest
    """Request for the result."""

    def check(self, result: BuildResult) -> StageResult:
        """Return the stage's result: check the image, and push it if that is requested. Raise PreflightError."""
        request, log = self.request, self._write_log(result.log)
        notes = self._pushed_early() if result.pushed else ()
        if result.finding:
            return replace(failed_stage(request.stage, (result.finding, *notes)), log=log)
        if result.image is None:
            return replace(self._without_image(), log=log)
        checked = self._check_image(request.plan, result, result.image)
        if checked.outcome is Outcome.VERIFIED and request.push and not result.pushed and request.makes_image:
            checked = self._publish(result, checked)
        return replace(checked, findings=(*checked.findings, *notes), log=log)

    def _pushed_early(self) -> tuple[Finding, ...]:
        return (findings.PUSHED_BEFORE_PROOF(builder=self.builder.name, image=self.request.image),)

    def _without_image(self) -> StageResult:
        """Return the result of a build whose image cannot be read: only the builder reports success."""
        stage, name = self.request.stage, self.builder.name
        if stage is Stage.BUILD and self.request.plan.sign:
            warning = findings.BUILD_UNPROVED_UNSIGNED(builder=name)
            return StageResult(stage, Outcome.VERIFIED, f"{_SUCCEEDED[stage]}; sign decides", (warning,))
        return failed_stage(stage, (findings.BUILD_UNPROVED(builder=name),))

    def _check_image(self, plan: Plan, result: BuildResult, name: str) -> StageResult:
        """Return the result of the image stage's checks. For a signed image, check its signatures too."""
        request, stage = self.request, self.request.stage
        tls = plan.tls if result.pushed else VERIFIED_HTTPS
        judged = self._judge(replace(plan, tls=tls), name)
        image = _as_requested(judged.image, request, result)
        if judged.outcome is not Outcome.VERIFIED:
            reason = f"{_SUCCEEDED[stage]}, but its result is not good: {judged.reason}"
            return replace(judged, stage=stage, reason=reason, image=image)
        if stage is Stage.SIGN and not self.context.signatures_checked:
            signatures = self._judge_signatures(replace(plan, tls=tls), name)
            judged = replace(judged, findings=tuple(dict.fromkeys((*signatures.findings, *judged.findings))))
            if signatures.finding:
                return replace(failed_stage(stage, judged.findings), image=image)
        if request.makes_image and (problem := self._bad_for_other_plan(plan, name, tls)):
            return replace(failed_stage(stage, (problem, *judged.findings)), image=image)
        where = f"pushed to {request.image}" if result.pushed else "not pushed"
        reason = f"{_SUCCEEDED[stage]}, its result has the kmod where modprobe looks ({where})"
        return StageResult(stage, Outcome.VERIFIED, reason, judged.findings, image)

    def _judge(self, plan: Plan, name: str) -> StageResult:
        """Return what the image stage says about the result, if the plan's nodes pulled it."""
        credentials = Credentials(self.request.credentials)
        return judge_built(plan, parse_name(name), self.context.images, credentials, self._load_check(plan))

    def _judge_signatures(self, plan: Plan, name: str) -> Decision:
        signatures = ImageSignatures(plan, self._image(name, plan.tls), self.context.sources)
        return Decision.of(signatures.judge_section(plan.kmod))

    def _load_check(self, plan: Plan) -> FurtherCheck:
        is_signed_later = plan.sign and self.request.stage is Stage.BUILD
        return self.context.load_check_unsigned if is_signed_later else self.context.load_check

    def _bad_for_other_plan(self, plan: Plan, name: str, tls: RegistryTLS) -> Finding | None:
        """Return the finding for the first other plan with this image name whose kmod the result does not have."""
        if self.context.policy.overwrite:
            return None
        for other in self.context.plans:
            if other.image != plan.image or other.id == plan.id:
                continue
            judged = self._judge(replace(other, tls=tls), name)
            if judged.outcome is not Outcome.VERIFIED:
                return findings.IMAGE_SHARED(image=plan.image.name, other=other.id, problem=judged.reason)
        return None

    def _publish(self, result: BuildResult, checked: StageResult) -> StageResult:
        """Push the result and return the stage's result. Check once more that the push harms no other node."""
        request = self.request
        try:
            problem = check_push(request, self.context, self.builder)
            problem = problem or self.builder.publish(request, result).finding
            if problem is None:
                image = self._image(request.image, request.push_tls).resolved.judged()
        except PreflightError as exc:
            problem = findings.PUSH_FAILED(image=request.image, problem=exc.message)
        if problem:
            return replace(failed_stage(request.stage, (problem, *checked.findings)), image=checked.image)
        return replace(
            checked, reason=f"{_SUCCEEDED[request.stage]}, proved and pushed to {request.image}", image=image
        )

    def _image(self, name: str, tls: RegistryTLS) -> Image:
        arch = self.request.plan.kernel.arch
        return self.context.images.image(parse_name(name), arch, self.request.credentials, tls)

    def _write_log(self, log: str) -> str | None:
        """Write the log. Return its name among the artifacts, or None for an empty log."""
        if not log:
            return None
        self.context.logs.mkdir(parents=True, exist_ok=True)
        file = self.context.logs / f"{self.request.id}.log"
        file.write_text(log, encoding="utf-8", errors="replace")
        return f"{self.context.logs.name}/{file.name}"


def _as_requested(image: JudgedImage | None, request: BuildRequest, result: BuildResult) -> JudgedImage | None:
    """Return the judged image with the name that was requested. A result without a push is not stored."""
    return replace(image, reference=request.image, stored=result.pushed) if image else None
