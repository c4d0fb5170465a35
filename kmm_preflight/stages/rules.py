"""Which stage applies, and what it concludes: the documentation's rules, in its order.

Image validation is always first; when it succeeds nothing else runs. Build runs only if image failed and there is a
build section. Sign runs only if image failed, there is a sign section, and build, if there is one, passed. Undecided is
not failed: on an image that could not be judged nothing is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from kmm_preflight.model import Conclusion, Outcome, Plan, Stage, StageResult, Verdict
from kmm_preflight.stages import findings


def settle_image(plan: Plan, judged: StageResult) -> StageResult:
    """The image stage's own result: FALLS_THROUGH where the image is not good but a section may make a good one."""
    if judged.outcome is not Outcome.FAILED or plan.unresolved or not (plan.build or plan.sign):
        return judged
    sections = " and ".join(name for name, there in (("build", plan.build), ("sign", plan.sign)) if there)
    return replace(judged, outcome=Outcome.FALLS_THROUGH, reason=f"{judged.reason}; the {sections} section decides")


def build_needed(plan: Plan, image: StageResult) -> str:
    """Nothing when the build stage must run, else the reason why not."""
    return _not_needed(image) or ("" if plan.build else "the Module has no build section for this kernel")


def sign_needed(plan: Plan, image: StageResult, build: StageResult) -> str:
    """Nothing when the sign stage must run, else the reason why not."""
    if reason := _not_needed(image):
        return reason
    if not plan.sign:
        return "the Module has no sign section for this kernel"
    if plan.build and build.outcome is not Outcome.VERIFIED:
        return f"the build stage did not pass: {build.outcome.value}"
    return ""


def _not_needed(image: StageResult) -> str:
    match image.outcome:
        case Outcome.FALLS_THROUGH:
            return ""
        case Outcome.VERIFIED:
            return "the image is verified"
        case Outcome.UNDECIDED:
            return "the image stage is undecided; nothing is built on that"
        case Outcome.NOT_NEEDED:
            return "the image was verified by an earlier run"
        case _:
            return "the image stage failed"


def settle_build(plan: Plan, image: StageResult, judge: Callable[[], StageResult]) -> StageResult:
    """The build stage: not needed, or what its builder's result was judged to be."""
    if reason := build_needed(plan, image):
        return StageResult(Stage.BUILD, Outcome.NOT_NEEDED, reason)
    return judge()


def settle_sign(plan: Plan, image: StageResult, build: StageResult, judge: Callable[[], StageResult]) -> StageResult:
    """The sign stage: not needed, or what its builder's result was judged to be."""
    if reason := sign_needed(plan, image, build):
        return StageResult(Stage.SIGN, Outcome.NOT_NEEDED, reason)
    return judge()


def lost(stage: Stage) -> StageResult:
    """The result of a stage whose worker ended before it had one."""
    finding = findings.WORKER_LOST()
    return StageResult(stage, Outcome.UNDECIDED, finding.sentence, (finding,))


_BY_WEIGHT = (
    (Conclusion.REFUTED, Outcome.FAILED),
    (Conclusion.UNDECIDED, Outcome.UNDECIDED),
    (Conclusion.VERIFIED, Outcome.VERIFIED),
)


def conclude(plan: Plan, results: Mapping[Stage, StageResult], ended: str = "") -> Verdict:
    """The verdict from the stages that were settled; ended says why some were not.

    A stage that failed refutes; else one that is undecided, be it behind one that decided, leaves the Module undecided.
    A Module whose stages stepped aside without one of them deciding is not verified, never green; the image stage
    steps aside for nothing but the record of an earlier run.
    """
    settled = tuple(results[stage] for stage in Stage if stage in results)
    for conclusion, outcome in _BY_WEIGHT:
        for result in settled:
            if result.outcome is outcome and (outcome is not Outcome.VERIFIED or _decides(plan, result.stage)):
                return Verdict(plan, conclusion, result.stage, result.reason, settled)
    if settled and settled[0].stage is Stage.IMAGE and settled[0].outcome is Outcome.NOT_NEEDED:
        return Verdict(plan, Conclusion.VERIFIED, Stage.IMAGE, settled[0].reason, settled)
    stage = settled[-1].stage if settled else Stage.IMAGE
    return Verdict(plan, Conclusion.NOT_VERIFIED, stage, ended or "its deciding step did not run", settled)


def _decides(plan: Plan, stage: Stage) -> bool:
    """A good image decides; a good build only where no sign section follows."""
    return stage is not Stage.BUILD or plan.sign is None
