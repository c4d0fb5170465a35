"""Rules between stages: the whole table of the documentation."""

from __future__ import annotations

import pytest

from kmm_preflight.model import Flavour, ModuleName, Outcome, Stage, StageResult, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning import findings as planning_findings
from kmm_preflight.planning.plan import Build, Plan, Sign, Unresolved
from kmm_preflight.stages import findings as stages_findings
from kmm_preflight.stages.rules import (
    conclude,
    lost,
    settle_build,
    settle_image,
    settle_sign,
    why_no_build,
    why_no_sign,
)
from kmm_preflight.stages.verdict import Conclusion, Verdict

KERNEL = TargetKernel("5.14.0-570.el9.x86_64", "amd64", None, Flavour.STANDARD, None, "")
IMAGE, BUILD, SIGN = Stage.IMAGE, Stage.BUILD, Stage.SIGN
VERIFIED, FAILED, UNDECIDED = Outcome.VERIFIED, Outcome.FAILED, Outcome.UNDECIDED
NOT_NEEDED, FALLS_THROUGH = Outcome.NOT_NEEDED, Outcome.FALLS_THROUGH


def _plan(sections: str) -> Plan:
    build = Build() if "build" in sections else None
    return Plan(
        ModuleName("ns", "m"), KERNEL, Reference.parse("r/i"), build=build, sign=Sign() if "sign" in sections else None
    )


def _result(stage: Stage, outcome: Outcome) -> StageResult:
    return StageResult(stage, outcome, f"{stage.value} {outcome.value}")


@pytest.mark.parametrize(
    ("sections", "judged", "settled", "reason"),
    [
        ("", VERIFIED, VERIFIED, "Image verified"),
        ("build sign", VERIFIED, VERIFIED, "Image verified"),
        ("", FAILED, FAILED, "Image failed"),
        ("build", FAILED, FALLS_THROUGH, "Image failed; the build section decides"),
        ("sign", FAILED, FALLS_THROUGH, "Image failed; the sign section decides"),
        ("build sign", FAILED, FALLS_THROUGH, "Image failed; the build and sign section decides"),
        ("", UNDECIDED, UNDECIDED, "Image undecided"),
        ("build sign", UNDECIDED, UNDECIDED, "Image undecided"),
    ],
)
def test_settle_image(sections: str, judged: Outcome, settled: Outcome, reason: str) -> None:
    assert settle_image(_plan(sections), lambda _: _result(IMAGE, judged)) == StageResult(IMAGE, settled, reason)


def test_a_module_without_an_image_fails_with_the_reason_and_the_notes() -> None:
    reason = planning_findings.NO_MAPPING(kernel="k", tried="nothing")
    note = stages_findings.JUDGED_AGAIN(object="an earlier run", got="nothing")
    case = Unresolved(ModuleName("ns", "m"), KERNEL, reason, notes=(note,))
    result = settle_image(case, lambda plan: pytest.fail(f"{plan.id} was judged"))
    assert result == StageResult(IMAGE, FAILED, reason.sentence, (reason, note))
    assert why_no_build(case, result) == BAD
    assert conclude(case, {IMAGE: result}).conclusion is Conclusion.REFUTED


def test_a_module_whose_kernel_is_unknown_is_undecided() -> None:
    case = Unresolved(ModuleName("ns", "m"), KERNEL, stages_findings.MODULE_APPEARED())
    result = settle_image(case, lambda plan: pytest.fail(f"{plan.id} was judged"))
    assert conclude(case, {IMAGE: result}).conclusion is Conclusion.UNDECIDED


NO_BUILD = "the Module has no build section for this kernel"
NO_SIGN = "the Module has no sign section for this kernel"
GOOD, BAD = "the image is verified", "the image stage failed"
UNKNOWN = "the image stage is undecided; nothing is built on that"


@pytest.mark.parametrize(
    ("sections", "image", "build", "no_build", "no_sign"),
    [
        ("build sign", VERIFIED, NOT_NEEDED, GOOD, GOOD),
        ("build sign", UNDECIDED, NOT_NEEDED, UNKNOWN, UNKNOWN),
        ("build sign", FAILED, NOT_NEEDED, BAD, BAD),
        ("", FAILED, NOT_NEEDED, BAD, BAD),
        ("build", FALLS_THROUGH, VERIFIED, None, NO_SIGN),
        ("build", FALLS_THROUGH, FAILED, None, NO_SIGN),
        ("sign", FALLS_THROUGH, NOT_NEEDED, NO_BUILD, None),
        ("build sign", FALLS_THROUGH, VERIFIED, None, None),
        ("build sign", FALLS_THROUGH, FAILED, None, "the build stage did not pass: failed"),
        ("build sign", FALLS_THROUGH, UNDECIDED, None, "the build stage did not pass: undecided"),
    ],
)
def test_next_stages(sections: str, image: Outcome, build: Outcome, no_build: str | None, no_sign: str | None) -> None:
    plan, judged = _plan(sections), _result(IMAGE, image)
    assert why_no_build(plan, judged) == no_build
    assert why_no_sign(plan, judged, _result(BUILD, build)) == no_sign
    built, signed = _result(BUILD, VERIFIED), _result(SIGN, VERIFIED)
    not_needed = StageResult(BUILD, NOT_NEEDED, no_build or ""), StageResult(SIGN, NOT_NEEDED, no_sign or "")
    assert settle_build(plan, judged, lambda _: built) == (not_needed[0] if no_build else built)
    assert settle_sign(plan, judged, _result(BUILD, build), lambda _: signed) == (not_needed[1] if no_sign else signed)


@pytest.mark.parametrize(
    ("sections", "outcomes", "conclusion", "stage"),
    [
        ("", {IMAGE: VERIFIED, BUILD: NOT_NEEDED, SIGN: NOT_NEEDED}, Conclusion.VERIFIED, IMAGE),
        ("build sign", {IMAGE: VERIFIED}, Conclusion.VERIFIED, IMAGE),
        ("", {IMAGE: FAILED, BUILD: NOT_NEEDED, SIGN: NOT_NEEDED}, Conclusion.REFUTED, IMAGE),
        ("", {IMAGE: UNDECIDED, BUILD: NOT_NEEDED, SIGN: NOT_NEEDED}, Conclusion.UNDECIDED, IMAGE),
        ("build", {IMAGE: FALLS_THROUGH, BUILD: VERIFIED, SIGN: NOT_NEEDED}, Conclusion.VERIFIED, BUILD),
        ("build", {IMAGE: FALLS_THROUGH, BUILD: FAILED, SIGN: NOT_NEEDED}, Conclusion.REFUTED, BUILD),
        ("build sign", {IMAGE: FALLS_THROUGH, BUILD: FAILED, SIGN: NOT_NEEDED}, Conclusion.REFUTED, BUILD),
        ("build sign", {IMAGE: FALLS_THROUGH, BUILD: UNDECIDED, SIGN: NOT_NEEDED}, Conclusion.UNDECIDED, BUILD),
        ("build sign", {IMAGE: FALLS_THROUGH, BUILD: VERIFIED, SIGN: VERIFIED}, Conclusion.VERIFIED, SIGN),
        ("build sign", {IMAGE: FALLS_THROUGH, BUILD: VERIFIED, SIGN: FAILED}, Conclusion.REFUTED, SIGN),
        ("sign", {IMAGE: FALLS_THROUGH, BUILD: NOT_NEEDED, SIGN: VERIFIED}, Conclusion.VERIFIED, SIGN),
        ("sign", {IMAGE: FALLS_THROUGH, BUILD: NOT_NEEDED, SIGN: UNDECIDED}, Conclusion.UNDECIDED, SIGN),
    ],
)
def test_conclude(sections: str, outcomes: dict[Stage, Outcome], conclusion: Conclusion, stage: Stage) -> None:
    plan = _plan(sections)
    results = {stage: _result(stage, outcome) for stage, outcome in outcomes.items()}
    assert conclude(plan, results) == Verdict(
        plan, conclusion, stage, results[stage].reason, tuple(results[stage] for stage in Stage if stage in results)
    )


@pytest.mark.parametrize(
    ("sections", "outcomes", "stage"),
    [
        ("", {}, IMAGE),
        ("build", {IMAGE: FALLS_THROUGH}, IMAGE),
        ("build sign", {IMAGE: FALLS_THROUGH, BUILD: VERIFIED}, BUILD),
        ("build sign", {IMAGE: FALLS_THROUGH, BUILD: VERIFIED, SIGN: NOT_NEEDED}, SIGN),
        ("", {BUILD: NOT_NEEDED, SIGN: NOT_NEEDED}, SIGN),
    ],
)
def test_an_unneeded_stage_verifies_nothing(sections: str, outcomes: dict[Stage, Outcome], stage: Stage) -> None:
    results = {stage: _result(stage, outcome) for stage, outcome in outcomes.items()}
    for ended, reason in (("", "its deciding step did not run"), ("-x ended the run", "-x ended the run")):
        verdict = conclude(_plan(sections), results, ended)
        assert (verdict.conclusion, verdict.stage, verdict.reason) == (Conclusion.NOT_VERIFIED, stage, reason)


def test_a_lost_stage_is_undecided() -> None:
    result = lost(BUILD)
    assert (result.stage, result.outcome, result.findings) == (BUILD, UNDECIDED, (stages_findings.WORKER_LOST(),))
