"""Status of a preflight object during a run, written stage by stage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kmm_preflight.errors import PreflightError
from kmm_preflight.model import ModuleName, Stage, StageResult
from kmm_preflight.planning.plan import Case
from kmm_preflight.stages.rules import conclude
from kmm_preflight.stages.verdict import Conclusion, Verdict
from kmm_preflight.status.dialects import (
    StatusEntry,
    entry_of,
    entry_so_far,
    in_progress,
    is_verified,
    key_of,
    worst,
)
from kmm_preflight.status.preflight import Preflight
from kmm_preflight.status.record import Record
from kmm_preflight.status.writer import StatusWriter
from kmm_preflight.text import listed

# Pause between two writes: a run with many Modules must not send the whole list for each one.
PAUSE_SECONDS, AFTER_TROUBLE_SECONDS = 0.5, 5.0
_BAD = (Conclusion.REFUTED, Conclusion.UNDECIDED)


@dataclass(frozen=True)
class LiveEnd:
    """Facts at the end of a run."""

    verdicts: tuple[Verdict, ...]
    """Verdicts of the run."""
    renew: Callable[[Record], Record]
    """Returns the new record for an old one."""
    gone: frozenset[ModuleName] = frozenset()
    """Modules of the record that were deleted or no longer load a kmod."""
    changed: frozenset[ModuleName] = frozenset()
    """Modules that changed during the run. An earlier verdict on them no longer counts."""


@dataclass(frozen=True)
class StatusOutcome:
    """Result of writing the status of one object."""

    words: str
    """Sentence for the report."""
    written: bool
    """True if the status shows the verdicts of this run."""


class LiveStatus:
    """Writes the entries of the Modules that this run judges. Leave other entries as they are.

    A thread writes, so that a slow API server does not delay the run.
    """

    def __init__(
        self,
        preflight: Preflight,
        writer: StatusWriter,
        cases: Iterable[Case],
        verified_before: frozenset[str],
        results: Callable[[Case], Mapping[Stage, StageResult]],
    ) -> None:
        """Take all cases of the object. verified_before has the ids of cases that an earlier run verified."""
        self.preflight = preflight
        self.cases = tuple(cases)
        self._writer = writer
        self._verified_before = verified_before
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
        """Raise as the writer would if the object cannot be written. Write nothing."""
        self._before = self._writer.entries()
        new = [key for key, cases in self._by_key.items() if not self._all_recorded(cases)]
        self._writer.check(dict.fromkeys(new, in_progress(self.preflight.dialect, Stage.IMAGE)))

    def begin(self, selected: frozenset[str]) -> None:
        """Show Modules with a selected case as in progress, unless a record covers them. Ignore a second call."""
        if self._selected is not None:
            return  # each worker reports what it selected
        self._selected = selected
        with self._lock:
            self._pending = {
                key: in_progress(self.preflight.dialect, Stage.IMAGE)
                for key, cases in self._by_key.items()
                if self._is_judged(cases) and not self._has_open_case(cases) and not self._all_recorded(cases)
            }
        self._thread.start()

    def update(self, case: Case) -> None:
        """Show what is known so far of a case's Module."""
        key = key_of(case.module, self.preflight.dialect)
        verdicts = [conclude(shared, self._results(shared)) for shared in self._by_key[key]]
        if entry := self._entry(key, verdicts):
            with self._lock:
                self._pending[key] = entry

    def end(self, ending: LiveEnd) -> StatusOutcome:
        """Write the last entry of every judged Module, and the record."""
        self._ended.set()
        if self._thread.ident:
            self._thread.join()
        self._verified_before -= {case.id for case in self.cases if case.module in ending.changed}
        by_key: dict[ModuleName, list[Verdict]] = {}
        for verdict in ending.verdicts:
            by_key.setdefault(key_of(verdict.case.module, self.preflight.dialect), []).append(verdict)
        # Entries that were written before are written again: an earlier write may have failed.
        entries = {key: entry for key, group in by_key.items() if (entry := self._entry(key, group))}
        gone = {key_of(name, self.preflight.dialect) for name in ending.gone} - set(by_key)
        try:
            self._writer.write(entries, gone)
            overwritten = self._writer.overwritten()
        except PreflightError as exc:
            return StatusOutcome(f"the status of {self._subject} could not be written: {exc.message}", written=False)
        if not gone and not any(map(_has_result, ending.verdicts)):
            return StatusOutcome(f"no Module of {self._subject} was judged", written=True)
        return StatusOutcome(self._words(overwritten) + self._write_record(ending.renew), written=True)

    @property
    def _subject(self) -> str:
        return self.preflight.subject

    def _words(self, overwritten: Mapping[ModuleName, str]) -> str:
        names = [f"{key if key.namespace else key.name} by {author}" for key, author in overwritten.items()]
        if names:
            return f"another writer changed the status of {self._subject}: {listed(names)}"
        return f"the status of {self._subject} shows these verdicts"

    def _write_record(self, renew: Callable[[Record], Record]) -> str:
        try:
            self._writer.write_record(renew)
        except PreflightError as exc:
            return f"; the record for a later run could not be written: {exc.message}"
        return ""

    def _is_judged(self, cases: Iterable[Case]) -> bool:
        return any(case.id in (self._selected or ()) for case in cases)

    def _has_open_case(self, cases: Iterable[Case]) -> bool:
        """True if the entry also covers a case that this run does not judge and no earlier run has verified."""
        return any(case.id not in (self._selected or ()) and case.id not in self._verified_before for case in cases)

    def _all_recorded(self, cases: Iterable[Case]) -> bool:
        """True if records may prove all cases, so the entry stays until the image stage has checked them."""
        return all(case.recorded and case.id in self._verified_before for case in cases)

    def _entry(self, key: ModuleName, verdicts: list[Verdict]) -> StatusEntry | None:
        """Return the entry of a Module, or None if it stays as it is."""
        cases = [verdict.case for verdict in verdicts]
        judged = [verdict for verdict in verdicts if _has_result(verdict)]
        if not judged:
            return self._entry_without_result(key, cases, verdicts)
        if self._has_open_case(cases) and worst(judged).conclusion not in _BAD:
            return None
        before = self._before.get(key)
        if before and self._all_recorded(cases) and all(self._is_unchanged(before, verdict) for verdict in judged):
            return before  # in the words of the run that verified it
        # A case without a result counts unless an earlier run has verified it.
        counted = [verdict for verdict in verdicts if verdict in judged or self._must_be_judged(verdict.case)]
        return entry_so_far(counted, self.preflight.dialect)

    def _entry_without_result(self, key: ModuleName, cases: list[Case], verdicts: list[Verdict]) -> StatusEntry | None:
        """Return the entry before the run, unless only another writer has called the Module verified."""
        if self._all_recorded(cases) or self._has_open_case(cases) or not self._is_judged(cases):
            return None
        before = self._before.get(key)
        all_verified_before = all(case.id in self._verified_before for case in cases)
        if before and (all_verified_before or not is_verified(before)):
            return before
        return entry_so_far(verdicts, self.preflight.dialect)

    def _must_be_judged(self, case: Case) -> bool:
        return case.id in (self._selected or ()) and case.id not in self._verified_before

    def _is_unchanged(self, before: StatusEntry, verdict: Verdict) -> bool:
        """True if the verdict comes from the record and the entry shows it already."""
        now = entry_of(verdict, self.preflight.dialect)
        fields = (before.verification_status, before.verification_stage)
        return verdict.carried_over and now is not None and fields == (now.verification_status, now.verification_stage)

    def _keep_writing(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            pause = PAUSE_SECONDS if self._write_pending() else AFTER_TROUBLE_SECONDS

    def _write_pending(self) -> bool:
        with self._lock:
            entries, self._pending = self._pending, {}
        try:
            self._writer.write(entries)
        except PreflightError:
            with self._lock:
                self._pending = {**entries, **self._pending}  # the write at the end reports an error that stays
            return False
        return True


def _has_result(verdict: Verdict) -> bool:
    """True if a stage has a result. Without one, an undecided verdict is not about the Module."""
    return verdict.conclusion is not Conclusion.NOT_VERIFIED and bool(verdict.results)
