"""Files of a run: JSON, JUnit and status patch for programs, and the HTML page of a run without steps."""

from __future__ import annotations

from fixtures.artifacts import Artifacts
from kmm_preflight.entry.places import JSON, JUNIT, PAGE, PATCH
from kmm_preflight.stages.report import Report
from reports.document import to_json
from reports.junit import to_junit
from reports.page import whole_page
from reports.patch import to_patch


def pytest_preflight_files(artifacts: Artifacts, report: Report) -> None:
    """Write JSON, JUnit and status patch."""
    artifacts.replace(JSON, to_json(report))
    artifacts.replace(JUNIT, to_junit(report))
    artifacts.replace(PATCH, to_patch(report, artifacts.dialect, artifacts.resource))


def pytest_preflight_page(artifacts: Artifacts, report: Report) -> None:
    """Write the HTML page without the table of steps."""
    artifacts.replace(PAGE, whole_page(report))
