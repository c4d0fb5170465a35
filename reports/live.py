"""A PreflightValidationOCP while the run goes on: one writer for each, on the controller, stage by stage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pytest

from fixtures.run import RunFolder, is_controller, steps
from kmm_preflight.errors import PreflightError
from kmm_preflight.model import Conclusion, ModuleName, Plan, Stage, Verdict
from kmm_preflight.outside import listed
from kmm_preflight.preflight import KIND, Preflight
from kmm_preflight.record import Record
from kmm_preflight.stages import conclude
from kmm_preflight.status import Dialect, Entry, current, entry, entry_so_far, key_of
from kmm_preflight.status_writer import StatusWriter

# Between two writes: a thousand Modules must not become a thousand copies of the whole list.
PAUSE_SECONDS, AFTER_TROUBLE_SECONDS = 0.5, 5.0


@dataclass(frozen=True)
class Ending:
    """What is known at the end of a run. renew makes the new record of the old one; gone are Modules of that record."""

    verdicts: tuple[Verdict, ...]
    renew: Callable[[Record], Record]
    gone: frozenset[ModuleName] = frozenset()


class LiveStatus:
    """Tells the status of these plans; entries of other Modules are left alone.

    A thread writes, so that an API server which is away holds up nothing but itself.
    """

    def __init__(self, preflight: Preflight, writer: StatusWriter, plans: Iterable[Plan], folder: RunFolder) -> None:
        self.record = preflight.record
        self._name = preflight.name
        self._dialect = dialect = preflight.dialect
        self._writer = writer
        self._folder = folder
        self._plans: dict[ModuleName, list[Plan]] = {}
        for plan in plans:
            self._plans.setdefault(key_of(plan.module, dialect), []).append(plan)
        self._before: Mapping[ModuleName, Entry] = {}
        self._told: dict[ModuleName, Entry] = {}
        self._pending: dict[ModuleName, Entry] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, daemon=True)

    @property
    def plans(self) -> list[Plan]:
        """What this run judges for the object."""
        return [plan for plans in self._plans.values() for plan in plans]

    def begin(self) -> None:
        """Nothing is verified yet but what is on record: raises when the object cannot be written at all."""
        self._before = self._writer.entries()
        new = {key for key, plans in self._plans.items() if not _recorded(plans)}
        self._told = {key: current(self._dialect, Stage.IMAGE) for key in new}
        self._writer.write(self._told)
        self._thread.start()

    def settled(self, plan: Plan) -> None:
        """Tells what is known by now of the plan's Module."""
        key = key_of(plan.module, self._dialect)
        verdicts = [conclude(one, self._folder.results(one, ended=False)) for one in self._plans[key]]
        if made := self._entry(key, verdicts):
            with self._lock:
                self._pending[key] = made

    def end(self, ending: Ending) -> str:
        """The last word on every Module that was judged, the record, and words on what became of them."""
        self._ended.set()
        self._thread.join()
        by_key: dict[ModuleName, list[Verdict]] = {}
        for verdict in ending.verdicts:
            by_key.setdefault(key_of(verdict.plan.module, self._dialect), []).append(verdict)
        # What was told before is told again: a write that failed then may work now.
        last = {key: made for key, group in by_key.items() if (made := self._entry(key, group))}
        gone = {key_of(name, self._dialect) for name in ending.gone} - set(by_key)
        try:
            self._writer.write(last, gone)
            overwritten = self._writer.overwritten()
        except PreflightError as exc:
            return f"the status of {self._subject} could not be written: {exc.message}"
        return self._words(overwritten) + self._remember(ending.renew)

    @property
    def _subject(self) -> str:
        return f"{KIND} {self._name}"

    def _words(self, overwritten: Mapping[ModuleName, str]) -> str:
        names = [f"{key if key.namespace else key.name} by {author}" for key, author in sorted(overwritten.items())]
        if names:
            return f"the status of {self._subject} was overwritten by somebody else: {listed(names)}"
        return f"the status of {self._subject} tells these verdicts"

    def _remember(self, renew: Callable[[Record], Record]) -> str:
        try:
            self._writer.remember(renew)
        except PreflightError as exc:
            return f"; the record for a later run could not be kept: {exc.message}"
        return ""

    def _entry(self, key: ModuleName, verdicts: list[Verdict]) -> Entry | None:
        """What the status says of a Module; None for one whose record was not looked at: it says so already."""
        if _recorded([verdict.plan for verdict in verdicts]):
            if all(verdict.conclusion is Conclusion.NOT_VERIFIED for verdict in verdicts):
                return None
            before = self._before.get(key)
            if before and all(verdict.carried_over and _same(before, verdict, self._dialect) for verdict in verdicts):
                return before  # in the words of the run that verified it
        return entry_so_far(verdicts, self._dialect)

    def _keep_writing(self) -> None:
        pause = PAUSE_SECONDS
        while not self._ended.wait(pause):
            pause = PAUSE_SECONDS if self._write_pending() else AFTER_TROUBLE_SECONDS

    def _write_pending(self) -> bool:
        with self._lock:
            news = {key: made for key, made in self._pending.items() if self._told.get(key) != made}
            self._pending = {}
        if not news:
            return True
        try:
            self._writer.write(news)
        except PreflightError:
            with self._lock:
                self._pending = {**news, **self._pending}  # the last writing says what the trouble is, if it stays
            return False
        self._told |= news
        return True


def _recorded(plans: Iterable[Plan]) -> bool:
    return all(plan.recorded for plan in plans)


def _same(before: Entry, verdict: Verdict, dialect: Dialect) -> bool:
    now = entry(verdict, dialect)
    fields = (before.verification_status, before.verification_stage)
    return now is not None and fields == (now.verification_status, now.verification_stage)


LIVE = pytest.StashKey[tuple[LiveStatus, ...]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Follows the run where it answers a PreflightValidationOCP."""
    if is_controller(config) and LIVE in config.stash:
        config.pluginmanager.register(_Follower(config.stash[LIVE]), "preflight-live")


class _Follower:
    def __init__(self, several: tuple[LiveStatus, ...]) -> None:
        self._steps = {name: (live, plan) for live in several for name, (plan, _) in steps(live.plans).items()}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A step has ended."""
        live, plan = self._steps.get(report.nodeid.rpartition("::")[2], (None, None))
        if live and plan and (report.when == "call" or report.outcome != "passed"):
            live.settled(plan)
