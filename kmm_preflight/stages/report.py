"""The report of a run: verdicts and facts, with the exit code and the sentence that follow from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime

from kmm_preflight.cluster.api_reader import ModuleChanges
from kmm_preflight.depth import ProofOptions
from kmm_preflight.model import Finding, ModuleName, NotJudged, Outcome, Release, Stage, StageResult, TargetKernel
from kmm_preflight.planning.plan import Case, Unresolved
from kmm_preflight.stages import findings
from kmm_preflight.stages.verdict import Conclusion, Verdict

SCHEMA = "kmm-preflight/1"
EXIT_VERIFIED, EXIT_REFUTED, EXIT_INTERRUPTED, EXIT_USAGE, EXIT_NOTHING, EXIT_UNDECIDED = 0, 1, 2, 4, 5, 10
_WORST_FIRST = (Conclusion.REFUTED, Conclusion.UNDECIDED, Conclusion.NOT_VERIFIED, Conclusion.VERIFIED)


@dataclass(frozen=True)
class ListedModule:
    """A Module that needs no verdict."""

    module: ModuleName
    """Its name."""
    reason: str
    """The reason why it needs no verdict."""


@dataclass(frozen=True)
class Problem:
    """The reason why a run ended before it judged a Module."""

    exit_code: int
    """The exit code of the run."""
    sentence: str
    """The problem, in one sentence."""
    finding: Finding | None = None
    """The finding for the problem, if there is one."""


@dataclass(frozen=True)
class Report:
    """Everything that an output shows. Every output is a view of this value."""

    version: str
    """Version of the suite."""
    started: datetime
    """Start of the run, with a time zone."""
    finished: datetime
    """End of the run, with a time zone."""
    release: Release | None = None
    """The release image. None if no release image was read."""
    release_requested: str | None = None
    """Name of the release image in the options or in the PreflightValidationOCP."""
    kernels: tuple[TargetKernel, ...] = ()
    """The target kernels."""
    assumed: tuple[str, ...] = ()
    """Assumptions of the run, and what it could not do, in words."""
    kmm_version: str | None = None
    """Value of --kmm-version, or the version of the operator in the cluster."""
    push_built_image: bool = False
    """True if built images may be pushed."""
    builder: str | None = None
    """The builder and the reason for its choice. None if no Module has a build or sign section."""
    verdicts: tuple[Verdict, ...] = ()
    """Verdicts in the order of the cases."""
    listed: tuple[ListedModule, ...] = ()
    """Modules that need no verdict: they load no kmod, or are being deleted."""
    not_judged: tuple[NotJudged, ...] = ()
    """Objects, documents and files that bring kmods, or may do so, and that no case covers."""
    problem: Problem | None = None
    """The reason why the run ended early."""
    interrupted: bool = False
    """True if the run was interrupted."""
    allow_no_modules: bool = False
    """True if a run without Modules is green."""
    answered: str | None = None
    """The result of the write to the status of the PreflightValidationOCP. None if the run writes no status."""
    doubt: str | None = None
    """A reason at the end of the run why it cannot be green."""
    proof: ProofOptions = field(default_factory=ProofOptions)
    """Depth of proof and its options."""

    def counts(self) -> Counter[Conclusion]:
        """Count the verdicts by conclusion."""
        return Counter(verdict.conclusion for verdict in self.verdicts)

    def worst_first(self) -> list[Verdict]:
        """Return the verdicts for a table: refuted, undecided, not verified, verified."""
        return sorted(self.verdicts, key=lambda verdict: _WORST_FIRST.index(verdict.conclusion))

    @property
    def exit_code(self) -> int:
        """The exit code. It depends on verdicts alone, not on the number of workers or on -x."""
        if self.problem:
            return self.problem.exit_code
        if self.interrupted:
            return EXIT_INTERRUPTED
        counts = self.counts()
        if counts[Conclusion.REFUTED]:
            return EXIT_REFUTED
        if counts[Conclusion.UNDECIDED] or self.doubt or self.not_judged:
            return EXIT_UNDECIDED
        if counts[Conclusion.VERIFIED] or (self.allow_no_modules and not self.verdicts):
            return EXIT_VERIFIED
        return EXIT_NOTHING

    @property
    def partial(self) -> str | None:
        """Words such as "partial: 1 of 2 Modules". None if every Module was judged on every kernel."""
        modules = {verdict.case.module for verdict in self.verdicts}
        skipped = {v.case.module for v in self.verdicts if v.conclusion is Conclusion.NOT_VERIFIED}
        return f"partial: {len(modules - skipped)} of {len(modules)} Modules" if skipped else None

    @property
    def sentence(self) -> str:
        """The result of the run in one sentence: the number of Modules, and in brackets of Module and kernel pairs."""
        if self.problem:
            return self.problem.sentence
        match self.exit_code:
            case 0 if not self.verdicts:
                return "Nothing to validate, as --allow-no-modules allows."
            case 0 if self.partial:
                return f"What was judged is verified: {self._share(Conclusion.VERIFIED)}."
            case 0:
                return f"Every Module is verified on every target kernel: {self._all_verified()}."
            case 1:
                return f"{self._share(Conclusion.REFUTED, 'will not load')}{self._rest()}."
            case 2:
                return f"Interrupted before the end: {self._listed_counts()}."
            case 10 if self.counts()[Conclusion.UNDECIDED]:
                return f"Undecided: {self._share(Conclusion.UNDECIDED)}{self._rest()}."
            case 10:
                verified = self._share(Conclusion.VERIFIED) if self.verdicts else "no Module"
                return f"Verified: {verified}{self._rest()}."
            case _:
                return f"Nothing was validated: {self._listed_counts()}."

    def _all_verified(self) -> str:
        """Return the number of Modules and pairs, and the number of pairs with a proof of an earlier run."""
        modules = len({verdict.case.module for verdict in self.verdicts})
        words = f"{_plural(modules, 'Module')} ({_plural(len(self.verdicts), 'Module and kernel pair')})"
        carried = sum(verdict.carried_over for verdict in self.verdicts)
        if not carried:
            return words
        count = "all" if carried == len(self.verdicts) else f"{carried} of the pairs"
        return f"{words}, {count} by an earlier run"

    def _share(self, conclusion: Conclusion, verb: str = "") -> str:
        """Return words such as "8 of 40 Modules (29 of 160 Module and kernel pairs)" for a conclusion.

        A verified Module is verified on each kernel. For another conclusion, one kernel is enough.
        """
        modules = {verdict.case.module for verdict in self.verdicts}
        pairs = [verdict for verdict in self.verdicts if verdict.conclusion is conclusion]
        chosen = {verdict.case.module for verdict in pairs}
        if conclusion is Conclusion.VERIFIED:
            chosen -= {v.case.module for v in self.verdicts if v.conclusion is not conclusion}
        words = f"{len(chosen)} of {_plural(len(modules), 'Module')}{f' {verb}' if verb else ''}"
        return f"{words} ({len(pairs)} of {_plural(len(self.verdicts), 'Module and kernel pair')})"

    def _rest(self) -> str:
        """Return what the sentence must say next to its main count."""
        counts = self.counts()
        rest = []
        if self.exit_code == EXIT_REFUTED and counts[Conclusion.UNDECIDED]:
            rest.append(f"undecided: {self._share(Conclusion.UNDECIDED)}")
        if counts[Conclusion.NOT_VERIFIED]:
            rest.append(f"not judged: {self._share(Conclusion.NOT_VERIFIED)}")
        if self.not_judged:
            rest.append(f"{_plural(len(self.not_judged), 'object, document or file', 'objects, documents or files')} "
                        "not judged")  # fmt: skip
        if self.doubt:
            rest.append(self.doubt)
        return "".join(f"; {words}" for words in rest)

    def _listed_counts(self) -> str:
        """Return the counts of pairs by conclusion, worst first."""
        counts = self.counts()
        parts = [f"{counts[conclusion]} {conclusion.value}" for conclusion in _WORST_FIRST if counts[conclusion]]
        pairs = _plural(len(self.verdicts), "Module and kernel pair")
        return f"{', '.join(parts)} ({pairs})" if parts else "no Module to validate"


def _plural(count: int, singular: str, plural: str | None = None) -> str:
    return f"{count} {singular if count == 1 else plural or f'{singular}s'}"


def overtaken(report: Report, changes: ModuleChanges) -> Report:
    """Return the report without verdicts on Modules that changed while the run judged them.

    A Module that appeared counts only in a report on all Modules. A Module that is gone is listed without a verdict.
    """
    left = changes.gone | changes.leaving
    judged = {verdict.case.module for verdict in report.verdicts}
    verdicts = [_unless_changed(verdict, changes) for verdict in report.verdicts if verdict.case.module not in left]
    if not report.partial:
        finding = findings.MODULE_APPEARED()
        verdicts += [
            _undecided(Unresolved(name, kernel, finding), finding)
            for name in changes.appeared
            for kernel in report.kernels
        ]
    gone = [ListedModule(name, "deleted during the run") for name in sorted(changes.gone & judged)]
    gone += [
        ListedModule(name, "given up during the run: deleted, or no moduleLoader") for name in sorted(changes.leaving)
    ]
    return replace(report, verdicts=tuple(verdicts), listed=(*report.listed, *gone))


def _unless_changed(verdict: Verdict, changes: ModuleChanges) -> Verdict:
    """Return the verdict, or undecided if its Module changed. A case that was not judged stays not judged."""
    name = verdict.case.module
    if name not in changes.changed or verdict.conclusion is Conclusion.NOT_VERIFIED:
        return verdict
    return _undecided(verdict.case, findings.MODULE_CHANGED(got=changes.changed[name]))


def _undecided(case: Case, finding: Finding) -> Verdict:
    result = StageResult(Stage.IMAGE, Outcome.UNDECIDED, finding.sentence, (finding,))
    return Verdict(case, Conclusion.UNDECIDED, Stage.IMAGE, finding.sentence, (result,))
