"""The one report document of a run, and what follows from its verdicts: the exit code and the sentence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime

from kmm_preflight.cluster.api_reader import ModuleChanges
from kmm_preflight.depth import ProofOptions
from kmm_preflight.model import Finding, ModuleName, Outcome, Release, Stage, StageResult, TargetKernel
from kmm_preflight.planning.plan import Case, Unresolved
from kmm_preflight.stages import findings
from kmm_preflight.stages.verdict import Conclusion, Verdict

SCHEMA = "kmm-preflight/1"
EXIT_VERIFIED, EXIT_REFUTED, EXIT_INTERRUPTED, EXIT_USAGE, EXIT_NOTHING, EXIT_UNDECIDED = 0, 1, 2, 4, 5, 10
_WORST_FIRST = (Conclusion.REFUTED, Conclusion.UNDECIDED, Conclusion.NOT_VERIFIED, Conclusion.VERIFIED)


@dataclass(frozen=True)
class NotJudged:
    """A Module that is listed but has no case, and why."""

    module: ModuleName
    reason: str


@dataclass(frozen=True)
class Problem:
    """Why a run ended before it judged anything."""

    exit_code: int
    sentence: str
    finding: Finding | None = None


@dataclass(frozen=True)
class Report:
    """Everything that an output shows; times are aware. verdicts stand in the plans' order.

    builder says who builds and why, "" where no Module has a section for it; answered what became of the status of the
    PreflightValidationOCP, "" where there was none to answer. doubt is what is not known at the end of a run, so that
    what would be green is not. proving is how deep the run looked.
    """

    version: str
    started: datetime
    finished: datetime
    release: Release | None = None
    release_asked: str = ""
    kernels: tuple[TargetKernel, ...] = ()
    assumed: tuple[str, ...] = ()
    kmm_version: str | None = None
    push_built_image: bool = False
    builder: str = ""
    verdicts: tuple[Verdict, ...] = ()
    passed: tuple[NotJudged, ...] = ()
    problem: Problem | None = None
    interrupted: bool = False
    allow_no_modules: bool = False
    answered: str = ""
    doubt: str = ""
    proving: ProofOptions = field(default_factory=ProofOptions)

    def counts(self) -> Counter[Conclusion]:
        """How many verdicts of each kind."""
        return Counter(verdict.conclusion for verdict in self.verdicts)

    def worst_first(self) -> list[Verdict]:
        """The verdicts for a table: what needs doing stands on top."""
        return sorted(self.verdicts, key=lambda verdict: _WORST_FIRST.index(verdict.conclusion))

    @property
    def exit_code(self) -> int:
        """From verdicts alone (design 4): the same with any number of workers, and with -x."""
        if self.problem:
            return self.problem.exit_code
        if self.interrupted:
            return EXIT_INTERRUPTED
        counts = self.counts()
        if counts[Conclusion.REFUTED]:
            return EXIT_REFUTED
        if counts[Conclusion.UNDECIDED] or self.doubt:
            return EXIT_UNDECIDED
        if counts[Conclusion.VERIFIED] or (self.allow_no_modules and not self.verdicts):
            return EXIT_VERIFIED
        return EXIT_NOTHING

    @property
    def partial(self) -> str:
        """The words for a run that did not judge every Module, "" for a whole one."""
        judged = {v.case.module for v in self.verdicts} - {
            v.case.module for v in self.verdicts if v.conclusion is Conclusion.NOT_VERIFIED
        }
        every = {verdict.case.module for verdict in self.verdicts}
        return f"partial: {len(judged)} of {len(every)} Modules" if len(judged) < len(every) else ""

    @property
    def sentence(self) -> str:
        """The run's verdict in one sentence."""
        if self.problem:
            return self.problem.sentence
        counts = self.counts()
        told = [f"{counts[one]} {one.value}" for one in _WORST_FIRST if counts[one]]
        if carried := sum(verdict.carried_over for verdict in self.verdicts):
            every = "all" if carried == counts[Conclusion.VERIFIED] else str(carried)
            told[-1] += f", {every} of these by an earlier run"  # verified stands last
        whole = f"{', '.join(told) or 'no Module to validate'}{f' ({self.partial})' if self.partial else ''}"
        match self.exit_code:
            case 0 if not self.verdicts:
                return "Nothing to validate, as --allow-no-modules allows."
            case 0 if self.partial:
                return f"What was judged is verified: {whole}."
            case 0:
                return f"Every Module is verified on every target kernel: {whole}."
            case 1:
                return f"Not every Module is ready for the upgrade: {whole}."
            case 2:
                return f"Interrupted before the end: {whole}."
            case 10:
                doubt = f"; {self.doubt}" if self.doubt else ""
                return f"Not decided, run again: {whole}{doubt}."
            case _:
                return f"Nothing was validated: {whole}."


def overtaken(report: Report, changes: ModuleChanges) -> Report:
    """The report after what became of Modules while they were judged: no verdict stands on a Module that is another.

    Those that appeared count in a whole run only; those that have no case any more are listed.
    """
    left = changes.gone | changes.leaving
    judged = {verdict.case.module for verdict in report.verdicts}
    verdicts = [_of_now(verdict, changes) for verdict in report.verdicts if verdict.case.module not in left]
    if not report.partial:
        finding = findings.MODULE_APPEARED()
        verdicts += [
            _undecided(Unresolved(name, kernel, finding), finding)
            for name in changes.appeared
            for kernel in report.kernels
        ]
    passed = [NotJudged(name, "deleted during the run") for name in sorted(changes.gone & judged)]
    passed += [
        NotJudged(name, "given up during the run: deleted, or no moduleLoader") for name in sorted(changes.leaving)
    ]
    return replace(report, verdicts=tuple(verdicts), passed=(*report.passed, *passed))


def _of_now(verdict: Verdict, changes: ModuleChanges) -> Verdict:
    """The verdict, undecided where its Module has been changed; one that was not drawn stays so."""
    name = verdict.case.module
    if name not in changes.changed or verdict.conclusion is Conclusion.NOT_VERIFIED:
        return verdict
    return _undecided(verdict.case, findings.MODULE_CHANGED(got=changes.changed[name]))


def _undecided(case: Case, finding: Finding) -> Verdict:
    result = StageResult(Stage.IMAGE, Outcome.UNDECIDED, finding.sentence, (finding,))
    return Verdict(case, Conclusion.UNDECIDED, Stage.IMAGE, finding.sentence, (result,))
