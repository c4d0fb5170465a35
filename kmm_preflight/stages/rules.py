"""Rules of the documentation: the stages that run, and the verdict that follows from their results.

1. The image stage always runs first. If the image is good, nothing else runs.
2. The build stage runs if the image is bad and the Module has a build section.
3. The sign stage runs if the image is bad, the Module has a sign section, and a build, if any, passed.

If the image stage is undecided, nothing is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from kmm_preflight.model import Outcome, Stage, StageResult
from kmm_preflight.planning.plan import Build, Case, Plan, Sign, Unresolved
from kmm_preflight.stages import findings
from kmm_preflight.stages.decision import Decision
from kmm_preflight.stages.verdict import Conclusion, Verdict


def settle_image(case: Case, judge: Callable[[Plan], StageResult]) -> StageResult:
    """Return the result of the image stage. FALLS_THROUGH: the image is bad, but a section may make a good one."""
    if isinstance(case, Unresolved):
        return _without_image(case)
    result = judge(case)
    sections = [name for name, section in (("build", case.build), ("sign", case.sign)) if section]
    if result.outcome is not Outcome.FAILED or not sections:
        return result
    reason = f"{result.reason}; the {' and '.join(sections)} section decides"
    return replace(result, outcome=Outcome.FALLS_THROUGH, reason=reason)


def _without_image(case: Unresolved) -> StageResult:
    decision = Decision(case.finding, case.notes)
    return StageResult(Stage.IMAGE, decision.outcome, case.finding.sentence, decision.findings)


def why_no_build(case: Case, image: StageResult) -> str | None:
    """Return why the build stage does not run, or None if it must."""
    if reason := _why_no_section(image):
        return reason
    return None if _build(case) else "the Module has no build section for this kernel"


def why_no_sign(case: Case, image: StageResult, build: StageResult) -> str | None:
    """Return why the sign stage does not run, or None if it must."""
    if reason := _why_no_section(image):
        return reason
    if not _sign(case):
        return "the Module has no sign section for this kernel"
    if _build(case) and build.outcome is not Outcome.VERIFIED:
        return f"the build stage did not pass: {build.outcome.value}"
    return None


def _build(case: Case) -> Build | None:
    return case.build if isinstance(case, Plan) else None


def _sign(case: Case) -> Sign | None:
    return case.sign if isinstance(case, Plan) else None


def _why_no_section(image: StageResult) -> str | None:
    match image.outcome:
        case Outcome.FALLS_THROUGH:
            return None
        case Outcome.VERIFIED:
            return "the image is verified"
        case Outcome.UNDECIDED:
            return "the image stage is undecided; nothing is built on that"
        case Outcome.NOT_NEEDED:
            return "the image was verified by an earlier run"
        case _:
            return "the image stage failed"


def settle_build(case: Case, image: StageResult, judge: Callable[[Plan], StageResult]) -> StageResult:
    """Return the result of the build stage: NOT_NEEDED, or the judgement on the built image."""
    if reason := why_no_build(case, image):
        return StageResult(Stage.BUILD, Outcome.NOT_NEEDED, reason)
    assert isinstance(case, Plan)  # only a Plan has sections
    return judge(case)


def settle_sign(
    case: Case, image: StageResult, build: StageResult, judge: Callable[[Plan], StageResult]
) -> StageResult:
    """Return the result of the sign stage: NOT_NEEDED, or the judgement on the signed image."""
    if reason := why_no_sign(case, image, build):
        return StageResult(Stage.SIGN, Outcome.NOT_NEEDED, reason)
    assert isinstance(case, Plan)  # only a Plan has sections
    return judge(case)


def lost(stage: Stage) -> StageResult:
    """Return the result of a stage whose worker ended before it had a result."""
    finding = findings.WORKER_LOST()
    return StageResult(stage, Outcome.UNDECIDED, finding.sentence, (finding,))


_BY_WEIGHT = (
    (Conclusion.REFUTED, Outcome.FAILED),
    (Conclusion.UNDECIDED, Outcome.UNDECIDED),
    (Conclusion.VERIFIED, Outcome.VERIFIED),
)


def conclude(case: Case, results: Mapping[Stage, StageResult], ended: str | None = None) -> Verdict:
    """Return the verdict from the results of the stages that ran. ended: why some stages did not run.

    - A failed stage refutes the Module.
    - Otherwise an undecided stage leaves the Module undecided, also if another stage passed.
    - A Module is verified only if the deciding stage passed, or if an earlier run verified the image.
    """
    settled = tuple(results[stage] for stage in Stage if stage in results)
    for conclusion, outcome in _BY_WEIGHT:
        for result in settled:
            if result.outcome is outcome and (outcome is not Outcome.VERIFIED or _decides(case, result.stage)):
                return Verdict(case, conclusion, result.stage, result.reason, settled)
    if settled and settled[0].stage is Stage.IMAGE and settled[0].outcome is Outcome.NOT_NEEDED:
        return Verdict(case, Conclusion.VERIFIED, Stage.IMAGE, settled[0].reason, settled)
    stage = settled[-1].stage if settled else Stage.IMAGE
    return Verdict(case, Conclusion.NOT_VERIFIED, stage, ended or "its deciding step did not run", settled)


def _decides(case: Case, stage: Stage) -> bool:
    """True if this stage proves the Module when it passes. A build does not if a sign section follows."""
    return stage is not Stage.BUILD or _sign(case) is None
