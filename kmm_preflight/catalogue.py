"""Definition of findings: an id, a weight, a sentence and a remedy, with placeholders for names and values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kmm_preflight.model import Finding, Severity
from kmm_preflight.text import clean

REFUTES, UNDECIDED, WARNING, NOTE = Severity.REFUTES, Severity.UNDECIDED, Severity.WARNING, Severity.NOTE


@dataclass(frozen=True)
class FindingKind:
    """A cause of trouble. Call the kind with the values for its placeholders to get a Finding."""

    id: str
    """The stable id; docs/findings has a page of this name."""
    severity: Severity
    """The weight of the finding."""
    sentence: str
    """The sentence that says the problem, with placeholders."""
    remedy: str
    """The action that fixes the problem, with placeholders."""

    def __call__(self, **values: object) -> Finding:
        """Return the finding with the values, made safe to print, in its sentence and remedy."""
        shown = {name: clean(str(value)) for name, value in values.items()}
        return Finding(self.id, self.severity, self.sentence.format(**shown), self.remedy.format(**shown))


CATALOGUE: dict[str, FindingKind] = {}
"""The kinds of findings of every room that was imported, by id."""


def define(id: str, severity: Severity, sentence: str, remedy: str) -> FindingKind:
    """Return a new kind of finding. Raise ValueError if another kind has this id."""
    if id in CATALOGUE:
        raise ValueError(f"finding {id} is defined twice")
    CATALOGUE[id] = FindingKind(id, severity, sentence, remedy)
    return CATALOGUE[id]


def heaviest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by weight: refuting, undecided, warnings, notes. Keep the given order within a weight."""
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))
