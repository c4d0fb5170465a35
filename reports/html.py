"""preflight.html by pytest-html: facts and verdicts at the top, our columns in the table of steps, one file."""

from __future__ import annotations

from collections.abc import Generator
from html import escape
from pathlib import Path

import pytest

from fixtures.artifacts import ARTIFACTS, REPORT
from fixtures.run import is_controller
from kmm_preflight.entry.places import PAGE
from reports.page import summary

_COLUMNS = ("module", "kernel", "stage", "finding", "remedy")
_FIRST = 1  # after pytest-html's first column, the result


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Write pytest-html's report to the artifacts, unless an option names another file."""
    if not is_controller(config) or ARTIFACTS not in config.stash or config.getoption("collectonly"):
        return
    if not config.pluginmanager.hasplugin("html"):
        return
    if not config.getoption("htmlpath"):
        config.option.htmlpath = str(config.stash[ARTIFACTS].folder / PAGE)
        config.option.self_contained_html = True
    config.pluginmanager.register(Page(config), "preflight-page")


class Page:
    """Hooks of pytest-html, on the controller of a planned run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_html_report_title(self, report: object) -> None:
        """Set the title of the page."""
        report.title = "kmm-preflight"  # type: ignore[attr-defined]  # pytest-html ships no types

    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        """Add facts, verdicts and the sentence of the run as static HTML."""
        prefix.append(summary(self._config.stash[REPORT]))

    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        """Add the heads of our columns."""
        cells[_FIRST:_FIRST] = [f'<th class="sortable">{name.capitalize()}</th>' for name in _COLUMNS]

    def pytest_html_results_table_row(self, report: pytest.TestReport, cells: list[str]) -> None:
        """Add the cells of our columns. The report of a crashed worker has no values: its cells are empty."""
        values = {str(name): str(value) for name, value in getattr(report, "user_properties", [])}
        cells[_FIRST:_FIRST] = [f"<td>{escape(values.get(name, ''))}</td>" for name in _COLUMNS]

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self) -> Generator[None]:
        """Replace the file in one step: pytest-html writes to a temporary name first."""
        page = next((p for p in self._config.pluginmanager.get_plugins() if hasattr(p, "_report_path")), None)
        if page is None:
            return (yield)
        final: Path = page._report_path
        page._report_path = final.with_name(f".{final.name}.new")
        try:
            return (yield)
        finally:
            if page._report_path.exists():
                page._report_path.replace(final)
            page._report_path = final
