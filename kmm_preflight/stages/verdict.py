"""The verdict on one case: a conclusion, and the stage results behind it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kmm_preflight.model import Finding, JudgedImage, Outcome, Stage, StageResult
from kmm_preflight.planning.plan import Case


class Conclusion(Enum):
    """The conclusion about a Module on one kernel; the value is the word in every report."""

    VERIFIED = "verified"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NOT_VERIFIED = "not verified in this run"


@dataclass(frozen=True)
class Verdict:
    """The verdict on one case."""

    case: Case
    """The Module and the kernel."""
    conclusion: Conclusion
    """Verified, refuted, undecided, or not judged in this run."""
    stage: Stage
    """The stage that decided."""
    reason: str
    """The reason for the conclusion, in one sentence."""
    results: tuple[StageResult, ...] = ()
    """Results of the stages that ran, in order."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings of all stages, in order."""
        return tuple(finding for result in self.results for finding in result.findings)

    @property
    def open_findings(self) -> tuple[Finding, ...]:
        """The findings that still need an action. Leave out what a later stage has fixed."""
        fixed = self.conclusion is Conclusion.VERIFIED
        results = [result for result in self.results if not (fixed and result.outcome is Outcome.FALLS_THROUGH)]
        return tuple(finding for result in results for finding in result.findings)

    @property
    def image(self) -> JudgedImage | None:
        """The image that was judged last."""
        return next((result.image for result in reversed(self.results) if result.image), None)

    @property
    def carried_over(self) -> bool:
        """True if an earlier run has the proof: its record covers the image stage."""
        image = next((result for result in self.results if result.stage is Stage.IMAGE), None)
        return self.conclusion is Conclusion.VERIFIED and image is not None and image.outcome is Outcome.NOT_NEEDED
