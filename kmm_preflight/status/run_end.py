"""Work in the cluster at the end of a run: read Modules again, delete build objects, write the last status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from kmm_preflight.cluster.api import Api
from kmm_preflight.cluster.api_reader import ModuleChanges, changes_since
from kmm_preflight.cluster.inventory import Inventory
from kmm_preflight.errors import PreflightError
from kmm_preflight.model import ModuleName
from kmm_preflight.planning.source import has_case
from kmm_preflight.stages.report import Report, overtaken
from kmm_preflight.status.live import LiveEnd, LiveStatus, StatusOutcome
from kmm_preflight.status.record import RunFacts, VerdictBasis, renewed


@dataclass(frozen=True)
class RunEnd:
    """Values that the end of a run on a cluster needs."""

    api: Api
    """API server."""
    inventory: Inventory
    """Modules and other objects as they were read at the start."""
    now: Callable[[], datetime]
    """Clock; its times are aware."""
    rules: str
    """Digest of the code that judged."""
    bases: Mapping[ModuleName, VerdictBasis] = field(default_factory=dict)
    """Versions of the objects that the verdicts on each Module depend on."""
    lives: tuple[LiveStatus, ...] = ()
    """Status writers of the preflight objects."""
    delete_builds: Callable[[], object] | None = None
    """Deletes the objects of builds; None if the run cannot have made any. Raises as Api."""

    def close(self, report: Report) -> Report:
        """Return the report with Modules that changed during the run, and the results of the status writes."""
        changes, doubts = ModuleChanges(), [report.doubt] if report.doubt else []
        try:
            changes = changes_since(self.api, self.inventory)
        except PreflightError as exc:
            doubts.append(f"Modules could not be read again to see if they changed during the run: {exc.message}")
        report = self._with_builds_deleted(overtaken(report, changes))
        outcomes = [self._write_status(live, report, changes) for live in self.lives]
        doubts += [outcome.words for outcome in outcomes if not outcome.written]
        answered = "; ".join(outcome.words for outcome in outcomes) or None
        return replace(report, answered=answered, doubt="; ".join(doubts) or None)

    def _with_builds_deleted(self, report: Report) -> Report:
        try:
            if self.delete_builds:
                self.delete_builds()
        except PreflightError as exc:
            words = f"build objects in the cluster could not be deleted: {exc.message}; run --cleanup to delete them"
            return replace(report, assumed=(*report.assumed, words))
        return report

    def _write_status(self, live: LiveStatus, report: Report, changes: ModuleChanges) -> StatusOutcome:
        kernels = {case.kernel for case in live.cases}
        verdicts = tuple(
            verdict
            for verdict in report.verdicts
            if verdict.case.kernel in kernels and verdict.case.module.kind == "Module"
        )
        gone = self._gone(live, changes) if not report.partial and not report.interrupted else frozenset[ModuleName]()
        run = RunFacts(report.proof.words, self.rules, self.now().isoformat(timespec="seconds"), gone)
        renew = partial(renewed, verdicts=verdicts, bases=self.bases, run=run)
        return live.end(LiveEnd(verdicts, renew, gone, frozenset(changes.changed)))

    def _gone(self, live: LiveStatus, changes: ModuleChanges) -> frozenset[ModuleName]:
        """Return Modules of the record that no longer exist or no longer load a kmod."""
        modules = self.inventory.all_modules()
        present = {module.name for module in modules if has_case(module) or module.deleting} - changes.gone
        return (frozenset(live.preflight.record) | changes.gone) - present
