"""status-patch.yaml: the patch with which an admin can write the verdicts to a preflight object."""

from __future__ import annotations

import yaml

from kmm_preflight.entry.places import PATCH
from kmm_preflight.stages.report import Report
from kmm_preflight.status.dialects import Dialect, entry_of, kubectl_line, status_patch
from reports.facts import facts

_REPLACES = {
    True: "Entries of other Modules stay as they are.",
    False: "The patch replaces the whole list: entries of Modules that are not below are removed.",
}
_FACTS = ("release", "driver toolkit", "target kernel", "assumed", "proof")


def to_patch(report: Report, dialect: Dialect, resource: str) -> str:
    """Return the merge patch. Its first line is the command that applies the patch."""
    left = [
        f"{verdict.case.id}: {verdict.conclusion.value}"
        for verdict in report.verdicts
        if not entry_of(verdict, dialect)
    ]
    lines = [
        f"# {kubectl_line(dialect, PATCH, resource)}",
        f"# For KMM {dialect.value} (API {dialect.api_version}). For another version, run with --kmm-version.",
        f"# {_REPLACES[dialect is Dialect.MAP]}",
        f"# {report.sentence}",
        *(f"# {label}: {words}" for label, words in facts(report) if label in _FACTS),
        *(f"# left out: {words}" for words in left),
    ]
    body = yaml.safe_dump(status_patch(report.verdicts, dialect, report.finished), sort_keys=False, width=1000)
    return "\n".join(lines) + "\n" + body
