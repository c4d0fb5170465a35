"""The static part of preflight.html, seen also where scripts are blocked: sentence, closing table, facts."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from kmm_preflight.model import Conclusion, Verdict
from kmm_preflight.stages.report import Report
from kmm_preflight.text import clean
from reports.facts import facts, finding_ids, remedies

_COLOURS = {
    Conclusion.VERIFIED: "#1a7f37",
    Conclusion.REFUTED: "#cf222e",
    Conclusion.UNDECIDED: "#9a6700",
    Conclusion.NOT_VERIFIED: "#57606a",
}
_CELL = 'style="border:1px solid #d0d7de;padding:4px 8px;text-align:left;vertical-align:top"'


def summary(report: Report) -> str:
    """The part as HTML; every text in it is escaped."""
    colour = "#1a7f37" if report.exit_code == 0 else "#cf222e"
    return (
        f'<h2 style="color:{colour}">{escape(report.sentence)}</h2>'
        f"{_table(('Module', 'Kernel', 'Verdict', 'Stage', 'Finding', 'Sentence', 'Remedy', 'Image'), _rows(report))}"
        f"<h3>Facts</h3>{_table(('Fact', 'Value'), [[escape(a), escape(b)] for a, b in facts(report)])}"
    )


def whole_page(report: Report) -> str:
    """A page of this part alone, for a run that ended before any test."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>kmm-preflight</title></head>'
        f'<body style="font-family:sans-serif"><h1>kmm-preflight</h1>{summary(report)}</body></html>\n'
    )


def _rows(report: Report) -> list[list[str]]:
    return [_row(verdict) for verdict in report.worst_first()]


def _row(verdict: Verdict) -> list[str]:
    image = verdict.image
    digest = f"<br>{escape(image.digest)}" if image else ""
    return [
        escape(str(verdict.plan.module)),
        "<br>".join(escape(clean(words)) for words in (verdict.plan.kernel.version, *verdict.plan.nodes)),
        f'<b style="color:{_COLOURS[verdict.conclusion]}">{escape(verdict.conclusion.value)}</b>',
        escape(verdict.stage.value),
        escape(finding_ids(verdict)),
        _sentence(verdict),
        "<br>".join(escape(remedy) for remedy in remedies(verdict)),
        f"{escape(clean(verdict.plan.image))}{digest}",
    ]


def _sentence(verdict: Verdict) -> str:
    """The reason, what tools printed of it, and where their whole logs are, beside this file."""
    lines = [line for finding in verdict.findings for line in finding.lines]
    shown = f'<pre style="white-space:pre-wrap">{escape(chr(10).join(lines))}</pre>' if lines else ""
    logs = [(result.stage.value, result.log) for result in verdict.results if result.log]
    links = "".join(f'<br><a href="{escape(quote(log))}">{escape(stage)} log</a>' for stage, log in logs)
    return f"{escape(verdict.reason)}{shown}{links}"


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    cells = "".join(f"<th {_CELL}>{name}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td {_CELL}>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table style="border-collapse:collapse"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>'
