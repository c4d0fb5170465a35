"""Status of a PreflightValidationOCP while a run goes on, written stage by stage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kmm_preflight.errors import PreflightError
from kmm_preflight.model import ModuleName, Stage, StageResult
from kmm_preflight.planning.plan import Case
from kmm_preflight.stages.rules import conclude
from kmm_preflight.stages.verdict import Conclusion, Verdict
from kmm_preflight.status.dialects import StatusEntry, current, entry, entry_so_far, is_verified, key_of, worst
from kmm_preflight.status.preflight import KIND, Preflight
from kmm_preflight.status.record import Record
from kmm_preflight.status.writer import StatusWriter
from kmm_preflight.text import listed

# Between two writes: a thousand Modules must not become a thousand copies of the whole list.
PAUSE_SECONDS, AFTER_TROUBLE_SECONDS = 0.5, 5.0
_BAD = (Conclusion.REFUTED, Conclusion.UNDECIDED)


@dataclass(frozen=True)
class LiveEnd:
    """What is known at the end of a run. renew makes the new record of the old one.

    gone are Modules of that record; of those that were changed nothing stands that was verified before.
    """

    verdicts: tuple[Verdict, ...]
    renew: Callable[[Record], Record]
    gone: frozenset[ModuleName] = frozenset()
    changed: frozenset[ModuleName] = frozenset()


@dataclass(frozen=True)
class StatusOutcome:
    """Result of writing the status of one object."""

    words: str
    """Sentence for the report."""
    written: bool
    """True if the status shows the verdicts of this run."""


class LiveStatus:
    """Tells the status of the plans that this run judges; every other entry is left alone.

    standing are the ids of plans that an earlier run has verified, whether or not this one judges them again. A thread
    writes, so that an API server which is away holds up nothing but itself.
    """

    def __init__(
        self,
        preflight: Preflight,
        writer: StatusWriter,
        cases: Iterable[Case],
        standing: frozenset[str],
        results: Callable[[Case], Mapping[Stage, StageResult]],
    ) -> None:
        self.preflight = preflight
        self.cases = tuple(cases)
        self._writer = writer
        self._standing = standing
        self._results = results
        self._by_key: dict[ModuleName, list[Case]] = {}
        for case in self.cases:
            self._by_key.setdefault(key_of(case.module, preflight.dialect), []).append(case)
        self._selected: frozenset[str] | None = None
        self._before: Mapping[ModuleName, StatusEntry] = {}
        self._pending: dict[ModuleName, StatusEntry] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, daemon=True)

    def check(self) -> None:
        """Raises when the object cannot be written, before anything is judged; writes nothing."""
        self._before = self._writer.entries()
        new = [key for key, cases in self._by_key.items() if not self._carried(cases)]
        self._writer.check(dict.fromkeys(new, current(self.preflight.dialect, Stage.IMAGE)))

    def begin(self, selected: frozenset[str]) -> None:
        """These plans will be judged: of their Modules nothing is verified but what is on record."""
        if self._selected is not None:
            return  # each worker says so
        self._selected = selected
        with self._lock:
            self._pending = {
                key: current(self.preflight.dialect, Stage.IMAGE)
                for key, cases in self._by_key.items()
                if self._judged(cases) and not self._left_out(cases) and not self._carried(cases)
            }
        self._thread.start()

    def settled(self, case: Case) -> None:
        """Tells what is known by now of the plan's Module."""
        key = key_of(case.module, self.preflight.dialect)
        verdicts = [conclude(one, self._results(one)) for one in self._by_key[key]]
        if made := self._entry(key, verdicts):
            with self._lock:
                self._pending[key] = made

    def end(self, ending: LiveEnd) -> StatusOutcome:
        """The last word on every Module that was judged, and the record."""
        self._ended.set()
        if self._thread.ident:
            self._thread.join()
        self._standing -= {case.id for case in self.cases if case.module in ending.changed}
        by_key: dict[ModuleName, list[Verdict]] = {}
        for verdict in ending.verdicts:
            by_key.setdefault(key_of(verdict.case.module, self.preflight.dialect), []).append(verdict)
        # What was told before is told again: a write that failed then may work now.
        last = {key: made for key, group in by_key.items() if (made := self._entry(key, group))}
        gone = {key_of(name, self.preflight.dialect) for name in ending.gone} - set(by_key)
        try:
            self._writer.write(last, gone)
            overwritten = self._writer.overwritten()
        except PreflightError as exc:
            return StatusOutcome(f"the status of {self._subject} could not be written: {exc.message}", written=False)
        if not gone and not any(map(_drawn, ending.verdicts)):
            return StatusOutcome(f"nothing of {self._subject} was judged", written=True)
        return StatusOutcome(self._words(overwritten) + self._remember(ending.renew), written=True)

    @property
    def _subject(self) -> str:
        return f"{KIND} {self.preflight.name}"

    def _words(self, overwritten: Mapping[ModuleName, str]) -> str:
        names = [f"{key if key.namespace else key.name} by {author}" for key, author in overwritten.items()]
        if names:
            return f"the status of {self._subject} was overwritten by somebody else: {listed(names)}"
        return f"the status of {self._subject} tells these verdicts"

    def _remember(self, renew: Callable[[Record], Record]) -> str:
        try:
            self._writer.remember(renew)
        except PreflightError as exc:
            return f"; the record for a later run could not be kept: {exc.message}"
        return ""

    def _judged(self, cases: Iterable[Case]) -> bool:
        return any(case.id in (self._selected or ()) for case in cases)

    def _left_out(self, cases: Iterable[Case]) -> bool:
        """Whether the entry also stands for a plan that this run does not judge, and no other has verified."""
        return any(case.id not in (self._selected or ()) and case.id not in self._standing for case in cases)

    def _carried(self, cases: Iterable[Case]) -> bool:
        """Whether the entry need not be touched before its plans' records have been looked at."""
        return all(case.recorded and case.id in self._standing for case in cases)

    def _entry(self, key: ModuleName, verdicts: list[Verdict]) -> StatusEntry | None:
        """What the status says of a Module; None where it stays as it is."""
        cases = [verdict.case for verdict in verdicts]
        drawn = [verdict for verdict in verdicts if _drawn(verdict)]
        if not drawn:
            return self._undrawn(key, cases, verdicts)
        if self._left_out(cases) and worst(drawn).conclusion not in _BAD:
            return None
        before = self._before.get(key)
        if before and self._carried(cases) and all(one.carried_over and self._same(before, one) for one in drawn):
            return before  # in the words of the run that verified it
        # What was not reached counts where no earlier run has verified it.
        counting = [one for one in verdicts if one in drawn or self._must_be_judged(one.case)]
        return entry_so_far(counting, self.preflight.dialect)

    def _undrawn(self, key: ModuleName, cases: list[Case], verdicts: list[Verdict]) -> StatusEntry | None:
        """The same where nothing was judged: as it was before, but never verified by the word of somebody else."""
        if self._carried(cases) or self._left_out(cases) or not self._judged(cases):
            return None
        before = self._before.get(key)
        stands = all(case.id in self._standing for case in cases)
        if before and (stands or not is_verified(before)):
            return before
        return entry_so_far(verdicts, self.preflight.dialect)

    def _must_be_judged(self, case: Case) -> bool:
        return case.id in (self._selected or ()) and case.id not in self._standing

    def _same(self, before: StatusEntry, verdict: Verdict) -> bool:
        now = entry(verdict, self.preflight.dialect)
        fields = (before.verification_status, before.verification_stage)
        return now is not None and fields == (now.verification_status, now.verification_stage)

    def _keep_writing(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            pause = PAUSE_SECONDS if self._write_pending() else AFTER_TROUBLE_SECONDS

    def _write_pending(self) -> bool:
        with self._lock:
            news, self._pending = self._pending, {}
        try:
            self._writer.write(news)
        except PreflightError:
            with self._lock:
                self._pending = {**news, **self._pending}  # the last writing says what the trouble is, if it stays
            return False
        return True


def _drawn(verdict: Verdict) -> bool:
    """Whether a stage was settled for it: without one, even an undecided verdict says nothing of the Module."""
    return verdict.conclusion is not Conclusion.NOT_VERIFIED and bool(verdict.results)
