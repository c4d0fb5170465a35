"""The status of the PreflightValidationOCP while the run goes on: one writer, on the controller, stage by stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest

from fixtures.run import RunFolder, is_controller, steps
from kmm_preflight.errors import PreflightError
from kmm_preflight.model import ModuleName, Plan, Stage, Verdict
from kmm_preflight.outside import listed
from kmm_preflight.stages import conclude
from kmm_preflight.status import Dialect, Entry, current, entry_so_far, key_of
from kmm_preflight.status_writer import StatusWriter


class LiveStatus:
    """Tells the status of the plans of this run; entries of other Modules are left alone."""

    def __init__(
        self, name: str, writer: StatusWriter, dialect: Dialect, plans: Iterable[Plan], folder: RunFolder
    ) -> None:
        self.name = name
        self._writer = writer
        self._dialect = dialect
        self._folder = folder
        self._plans: dict[ModuleName, list[Plan]] = {}
        for plan in plans:
            self._plans.setdefault(key_of(plan.module, dialect), []).append(plan)
        self._told: dict[ModuleName, Entry] = {}
        self._trouble = ""

    @property
    def plans(self) -> list[Plan]:
        """What this run judges."""
        return [plan for plans in self._plans.values() for plan in plans]

    def begin(self) -> None:
        """Every Module that will be judged is not verified yet: raises when the object cannot be written at all."""
        self._told = {key: current(self._dialect, Stage.IMAGE) for key in self._plans}
        self._writer.write(self._told)

    def settled(self, plan: Plan) -> None:
        """Tells what is known by now of the plan's Module."""
        key = key_of(plan.module, self._dialect)
        verdicts = [conclude(one, self._folder.results(one, ended=False)) for one in self._plans[key]]
        self._tell({key: entry_so_far(verdicts, self._dialect)})

    def end(self, verdicts: Sequence[Verdict]) -> str:
        """The last word on every Module that was judged, and words on what became of it."""
        by_key: dict[ModuleName, list[Verdict]] = {}
        for verdict in verdicts:
            by_key.setdefault(key_of(verdict.plan.module, self._dialect), []).append(verdict)
        # What was told before is told again: a write that failed then may work now.
        self._told = {}
        self._tell({key: entry_so_far(group, self._dialect) for key, group in by_key.items()})
        overwritten = [str(key) if key.namespace else key.name for key in self._overwritten()]
        subject = f"PreflightValidationOCP {self.name}"
        if self._trouble:
            return f"the status of {subject} could not be written: {self._trouble}"
        if overwritten:
            return f"the status of {subject} was overwritten by somebody else: {listed(overwritten)}"
        return f"the status of {subject} tells these verdicts"

    def _tell(self, entries: Mapping[ModuleName, Entry]) -> None:
        news = {key: made for key, made in entries.items() if self._told.get(key) != made}
        if not news:
            return
        try:
            self._writer.write(news)
        except PreflightError as exc:
            self._trouble = exc.message
            return
        self._trouble = ""
        self._told |= news

    def _overwritten(self) -> list[ModuleName]:
        try:
            return self._writer.overwritten(self._told)
        except PreflightError as exc:
            self._trouble = self._trouble or exc.message
            return []


LIVE = pytest.StashKey[LiveStatus]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Follows the run where it answers a PreflightValidationOCP."""
    if is_controller(config) and LIVE in config.stash:
        config.pluginmanager.register(_Follower(config), "preflight-live")


class _Follower:
    def __init__(self, config: pytest.Config) -> None:
        self._live = config.stash[LIVE]
        self._steps = {name: plan for name, (plan, _) in steps(self._live.plans).items()}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A step has ended."""
        plan = self._steps.get(report.nodeid.rpartition("::")[2])
        if plan and (report.when == "call" or report.outcome != "passed"):
            self._live.settled(plan)
