"""Exit code, sentence and order that follow from a run's verdicts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kmm_preflight.model import Flavour, ModuleName, NotJudged, Stage, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.report import Problem, Report
from kmm_preflight.stages.verdict import Conclusion, Verdict

NOW = datetime(2026, 1, 2, tzinfo=UTC)
V, R, U, N = Conclusion.VERIFIED, Conclusion.REFUTED, Conclusion.UNDECIDED, Conclusion.NOT_VERIFIED


def _report(*conclusions: Conclusion) -> Report:
    """Return a report with one Module for each conclusion."""
    verdicts = tuple(_verdict(f"m{number}", conclusion) for number, conclusion in enumerate(conclusions))
    return Report("1", NOW, NOW, verdicts=verdicts)


def _verdict(name: str, conclusion: Conclusion, version: str = "k") -> Verdict:
    kernel = TargetKernel(version, "amd64", None, Flavour.STANDARD, None, "")
    plan = Plan(ModuleName("ns", name), kernel, Reference.parse("r/i:t"))
    return Verdict(plan, conclusion, Stage.IMAGE, "")


@pytest.mark.parametrize(
    ("report", "code", "sentence"),
    [
        pytest.param(
            _report(V, V),
            0,
            "Every Module is verified on every target kernel: 2 Modules (2 Module and kernel pairs).",
            id="green",
        ),
        pytest.param(_report(V, R), 1, "1 of 2 Modules will not load (1 of 2 Module and kernel pairs).", id="refuted"),
        pytest.param(
            _report(U, V, R, N),
            1,
            "1 of 4 Modules will not load (1 of 4 Module and kernel pairs); "
            "undecided: 1 of 4 Modules (1 of 4 Module and kernel pairs); "
            "not judged: 1 of 4 Modules (1 of 4 Module and kernel pairs).",
            id="refuted beats undecided",
        ),
        pytest.param(_report(U, V), 10, "Undecided: 1 of 2 Modules (1 of 2 Module and kernel pairs).", id="undecided"),
        pytest.param(
            replace(_report(V), not_judged=(NotJudged("Thing a/b", "no check reads a Thing"),)),
            10,
            "Verified: 1 of 1 Module (1 of 1 Module and kernel pair); 1 object, document or file not judged.",
            id="an object that was not judged",
        ),
        pytest.param(
            replace(_report(V), doubt="the nodes changed"),
            10,
            "Verified: 1 of 1 Module (1 of 1 Module and kernel pair); the nodes changed.",
            id="doubt",
        ),
        pytest.param(
            replace(_report(), not_judged=(NotJudged("a", "b"), NotJudged("c", "d")), allow_no_modules=True),
            10,
            "Verified: no Module; 2 objects, documents or files not judged.",
            id="nothing but what was not judged",
        ),
        pytest.param(_report(), 5, "Nothing was validated: no Module to validate.", id="nothing"),
        pytest.param(
            _report(N),
            5,
            "Nothing was validated: 1 not verified in this run (1 Module and kernel pair).",
            id="none was judged",
        ),
        pytest.param(
            replace(_report(), allow_no_modules=True),
            0,
            "Nothing to validate, as --allow-no-modules allows.",
            id="nothing is allowed",
        ),
        pytest.param(
            replace(_report(N), allow_no_modules=True),
            5,
            "Nothing was validated: 1 not verified in this run (1 Module and kernel pair).",
            id="a Module that was not judged is not allowed",
        ),
        pytest.param(
            replace(_report(R, N), interrupted=True),
            2,
            "Interrupted before the end: 1 refuted, 1 not verified in this run (2 Module and kernel pairs).",
            id="interrupted",
        ),
        pytest.param(
            replace(_report(V), interrupted=True),
            2,
            "Interrupted before the end: 1 verified (1 Module and kernel pair).",
            id="interrupted late",
        ),
        pytest.param(
            replace(_report(R), problem=Problem(4, "No such file.")), 4, "No such file.", id="a problem comes first"
        ),
        pytest.param(
            replace(_report(), problem=Problem(10, "No answer.")), 10, "No answer.", id="a problem with its own code"
        ),
    ],
)
def test_exit_code_and_sentence(report: Report, code: int, sentence: str) -> None:
    assert (report.exit_code, report.sentence) == (code, sentence)


def test_a_partial_run_says_so() -> None:
    assert _report(V, N).sentence == ("What was judged is verified: 1 of 2 Modules (1 of 2 Module and kernel pairs).")


def test_a_module_counts_as_judged_if_it_is_on_every_kernel() -> None:
    verdicts = (_verdict("a", V, "1"), _verdict("a", N, "2"), _verdict("b", V, "1"), _verdict("b", V, "2"))
    assert Report("1", NOW, NOW, verdicts=verdicts).partial == "partial: 1 of 2 Modules"


def test_worst_first_keeps_the_order_of_equals() -> None:
    report = _report(V, U, N, R, V, U)
    assert [verdict.case.module.name for verdict in report.worst_first()] == ["m3", "m1", "m5", "m2", "m0", "m4"]
