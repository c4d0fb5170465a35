"""Findings about one image, split into the finding that decides and the notes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kmm_preflight.catalogue import heaviest_first
from kmm_preflight.model import Finding, Outcome, Severity

_DECIDES = (Severity.REFUTES, Severity.UNDECIDED)


@dataclass(frozen=True)
class Decision:
    """The finding that withholds green, with the notes next to it."""

    finding: Finding | None = None
    """A finding that refutes or leaves undecided. None if everything is good."""
    notes: tuple[Finding, ...] = ()
    """All other findings."""

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Decision:
        """Return the decision from findings: the heaviest that refutes or leaves undecided decides."""
        ordered = heaviest_first(findings)
        deciding = next((finding for finding in ordered if finding.severity in _DECIDES), None)
        return cls(deciding, tuple(finding for finding in ordered if finding is not deciding))

    @property
    def outcome(self) -> Outcome:
        """VERIFIED without a deciding finding, else UNDECIDED or FAILED."""
        if self.finding is None:
            return Outcome.VERIFIED
        return Outcome.UNDECIDED if self.finding.severity is Severity.UNDECIDED else Outcome.FAILED

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings. The deciding finding is the first."""
        return (self.finding, *self.notes) if self.finding else self.notes

    def with_notes(self, *notes: Finding) -> Decision:
        """Return the decision with these notes after its own."""
        return Decision(self.finding, (*self.notes, *notes))
