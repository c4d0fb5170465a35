"""status-patch.yaml: what an admin may write into the status of a PreflightValidationOCP."""

from __future__ import annotations

import yaml

from kmm_preflight.entry.places import PATCH
from kmm_preflight.stages.report import Report
from kmm_preflight.status.dialects import Dialect, entry_of, kubectl_line, status_patch
from reports.facts import facts

_REPLACES = {
    True: "Entries of other Modules stay as they are.",
    False: "It replaces the whole list: entries of Modules that are not below are gone afterwards.",
}
_TOLD = ("release", "driver toolkit", "target kernel", "assumed", "proof")


def to_patch(report: Report, dialect: Dialect) -> str:
    """The merge patch with the command that applies it in its first line."""
    left = [
        f"{verdict.case.id}: {verdict.conclusion.value}"
        for verdict in report.verdicts
        if not entry_of(verdict, dialect)
    ]
    lines = [
        f"# {kubectl_line(dialect, PATCH)}",
        f"# Taken by KMM {dialect.value} (API {dialect.api_version}); for another version run with --kmm-version.",
        f"# {_REPLACES[dialect is Dialect.MAP]}",
        f"# {report.sentence}",
        *(f"# {label}: {words}" for label, words in facts(report) if label in _TOLD),
        *(f"# left out: {words}" for words in left),
    ]
    body = yaml.safe_dump(status_patch(report.verdicts, dialect, report.finished), sort_keys=False, width=1000)
    return "\n".join(lines) + "\n" + body
