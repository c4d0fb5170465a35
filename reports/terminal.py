"""Text on the terminal: the run's facts at the start, the table of verdicts at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.artifacts import ARTIFACTS, REPORT
from fixtures.run import is_controller
from kmm_preflight.entry.places import JSON, JUNIT, PAGE, PATCH
from kmm_preflight.model import Severity
from kmm_preflight.stages.report import Report
from kmm_preflight.stages.verdict import Conclusion, Verdict
from kmm_preflight.text import clean
from reports.facts import facts

_MARKUP: dict[Conclusion, dict[str, bool]] = {
    Conclusion.VERIFIED: {"green": True},
    Conclusion.REFUTED: {"red": True, "bold": True},
    Conclusion.UNDECIDED: {"yellow": True, "bold": True},
    Conclusion.NOT_VERIFIED: {"yellow": True},
}
# Facts that are known at the end of a run.
_LATER = ("started", "seconds")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Return release, digests, kernels and assumptions."""
    if not is_controller(config) or REPORT not in config.stash:
        return []
    return [f"{label}: {words}" for label, words in facts(config.stash[REPORT]) if label not in _LATER]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the table of verdicts, the sentence of the run, and the names of the reports."""
    if REPORT not in config.stash or config.getoption("collectonly"):
        return
    report = config.stash[REPORT]
    terminalreporter.section("preflight", sep="=")
    folder = config.stash[ARTIFACTS].folder
    _table(terminalreporter, report, folder)
    terminalreporter.line("")
    colour = {"green": True} if report.exit_code == 0 else {"red": True}
    terminalreporter.line(report.sentence, bold=True, **colour)
    if report.answered:
        terminalreporter.line(report.answered)
    page = config.getoption("htmlpath", None) or str(folder / PAGE)
    terminalreporter.line(f"HTML: {page}")
    terminalreporter.line(f"also: {', '.join(str(folder / name) for name in (JSON, JUNIT, PATCH))}")


def _table(terminal: pytest.TerminalReporter, report: Report, folder: Path) -> None:
    rows = [(verdict, _cells(verdict)) for verdict in report.worst_first()]
    widths = [max((len(cells[column]) for _, cells in rows), default=0) for column in range(4)]
    for verdict, cells in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        terminal.line(line.rstrip(), **_MARKUP[verdict.conclusion])
        if verdict.image:
            name = clean(verdict.case.image_name or "")
            where = "" if verdict.image.stored else " (made in this run, not pushed)"
            terminal.line(f"    {name} {verdict.image.digest}{where}")
        for result in verdict.results:
            if result.log:
                terminal.line(f"    {result.stage.value} log: {folder / result.log}")
        for finding in verdict.findings:
            terminal.line(f"    {finding.id}: {finding.sentence}")
            for line in finding.lines:
                terminal.line(f"    | {line}")
            if finding in verdict.open_findings and finding.severity is not Severity.NOTE:
                terminal.line(f"    remedy: {finding.remedy}")
        if verdict.carried_over or (not verdict.findings and verdict.conclusion is not Conclusion.VERIFIED):
            terminal.line(f"    {verdict.reason}")


def _cells(verdict: Verdict) -> list[str]:
    case = verdict.case
    return [verdict.conclusion.value.upper(), str(case.module), case.kernel_words, verdict.stage.value]
