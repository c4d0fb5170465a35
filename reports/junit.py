"""junit_preflight.xml: one test case for each step, with properties of the case and of the run.

The file is made from the report, not by pytest's --junitxml. So it is complete after a killed worker, after -x, and for
a run that ended before any case.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from fixtures.run import case_name
from kmm_preflight.model import Finding, Outcome, Stage, StageResult
from kmm_preflight.stages.report import EXIT_NOTHING, EXIT_USAGE, Report
from kmm_preflight.stages.verdict import Conclusion, Verdict
from kmm_preflight.text import clean
from reports.facts import facts, finding_ids

_CLASS = "preflight_tests.test_module"


def to_junit(report: Report) -> str:
    """Return the document as text."""
    suites = ET.Element("testsuites")
    suite = ET.SubElement(suites, "testsuite", name="kmm-preflight")
    result = [("verdict", report.sentence), ("exit code", str(report.exit_code))]
    _properties(suite, [*facts(report), *result])
    if report.problem:
        _problem(suite, report)
    for verdict in report.verdicts:
        _cases(suite, verdict)
    cases = suite.findall("testcase")
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    suite.set("timestamp", report.started.isoformat(timespec="seconds"))
    suite.set("time", f"{(report.finished - report.started).total_seconds():.3f}")
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _properties(parent: ET.Element, values: list[tuple[str, str]]) -> None:
    properties = ET.SubElement(parent, "properties")
    for name, value in values:
        ET.SubElement(properties, "property", name=name, value=clean(value))


def _problem(suite: ET.Element, report: Report) -> None:
    case = ET.SubElement(suite, "testcase", classname="preflight", name="run", time="0")
    kind = {EXIT_USAGE: "usage", EXIT_NOTHING: "nothing to validate"}.get(report.exit_code, "undecided")
    ET.SubElement(case, "error", type=kind, message=report.sentence).text = report.sentence


def _cases(suite: ET.Element, verdict: Verdict) -> None:
    for result in verdict.results:
        case = _case(suite, verdict, result.stage, result.seconds)
        if result.log:
            ET.SubElement(case[0], "property", name="log", value=result.log)
        _outcome(case, result)
    if verdict.conclusion is Conclusion.NOT_VERIFIED and not verdict.results:
        case = _case(suite, verdict, Stage.IMAGE, 0.0)
        ET.SubElement(case, "skipped", type="pytest.skip", message=f"{verdict.conclusion.value}: {verdict.reason}")


def _case(suite: ET.Element, verdict: Verdict, stage: Stage, seconds: float) -> ET.Element:
    name = case_name(verdict.case, stage)
    case = ET.SubElement(suite, "testcase", classname=_CLASS, name=name, time=f"{seconds:.3f}")
    image = verdict.image
    values = [
        ("module", str(verdict.case.module)),
        ("kernel", verdict.case.kernel.version),
        ("version", verdict.case.version or ""),
        ("nodes", ", ".join(verdict.case.nodes)),
        ("stage", stage.value),
        ("verdict", verdict.conclusion.value),
        ("finding", finding_ids(verdict)),
        ("image", verdict.case.image_name or ""),
        ("digest", image.digest if image else ""),
    ]
    _properties(case, values)
    return case


def _finding_text(finding: Finding) -> str:
    return "\n".join([f"{finding.id}: {finding.sentence}", *finding.lines, f"remedy: {finding.remedy}"])


def _outcome(case: ET.Element, result: StageResult) -> None:
    text = "\n".join(_finding_text(finding) for finding in result.findings)
    match result.outcome:
        case Outcome.FAILED:
            ET.SubElement(case, "failure", message=result.reason).text = text
        case Outcome.UNDECIDED:
            ET.SubElement(case, "error", message=f"undecided: {result.reason}").text = text
        case Outcome.FALLS_THROUGH:
            ET.SubElement(case, "skipped", type="pytest.xfail", message=result.reason)
        case Outcome.NOT_NEEDED:
            ET.SubElement(case, "skipped", type="pytest.skip", message=result.reason)
        case Outcome.VERIFIED:
            if text:
                ET.SubElement(case, "system-out").text = text
