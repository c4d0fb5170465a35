"""Part of preflight.html that is visible without scripts: sentence, table of Modules, facts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kmm_preflight.stages.report import Report
from kmm_preflight.stages.verdict import Conclusion, Verdict
from kmm_preflight.text import clean
from reports.facts import facts, finding_ids, remedies

_COLOURS = {
    Conclusion.VERIFIED: "#1a7f37",
    Conclusion.REFUTED: "#cf222e",
    Conclusion.UNDECIDED: "#9a6700",
    Conclusion.NOT_VERIFIED: "#57606a",
}


@cache
def _templates() -> Environment:
    """Return the environment of the templates; it escapes every value."""
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)


def summary(report: Report) -> str:
    """Return the part of the page that is visible without scripts, as HTML."""
    return _templates().get_template("summary.html.j2").render(_values(report))


def whole_page(report: Report) -> str:
    """Return a page with this part alone, for a run that ended before any test."""
    return _templates().get_template("page.html.j2").render(_values(report)) + "\n"


def _values(report: Report) -> dict[str, object]:
    return {
        "colour": "#1a7f37" if report.exit_code == 0 else "#cf222e",
        "sentence": report.sentence,
        "rows": [_row(verdict) for verdict in report.worst_first()],
        "facts": facts(report),
    }


def _row(verdict: Verdict) -> dict[str, object]:
    image = verdict.image
    return {
        "module": str(verdict.case.module),
        "kernel": [clean(words) for words in (verdict.case.kernel_words, *verdict.case.nodes)],
        "verdict": verdict.conclusion.value,
        "colour": _COLOURS[verdict.conclusion],
        "stage": verdict.stage.value,
        "findings": finding_ids(verdict),
        "reason": verdict.reason,
        "lines": "\n".join(line for finding in verdict.findings for line in finding.lines),
        "logs": [(result.stage.value, quote(result.log)) for result in verdict.results if result.log],
        "remedies": remedies(verdict),
        "image": clean(verdict.case.image_name or ""),
        "digest": image.digest if image else None,
    }
