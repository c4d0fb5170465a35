"""No more than so many builds of a run at a time in a cluster, over all processes of the run."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from kmm_preflight.base.polling import polls
from kmm_preflight.build.builder import Builder, BuildRequest, BuildResult, Tell
from kmm_preflight.errors import PreflightError

_PAUSE_SECONDS = 1.0


class RemoteBuilder(Builder, Protocol):
    """A builder whose builds go on by themselves."""

    def ended(self, order: BuildRequest) -> bool:
        """Whether a build that was started goes on no longer. Raises as errors.py says."""


class BuildLimit:
    """See Builder. What finds no place waits, and is started by whichever process sees that there is one.

    So is the result of a build taken that has ended, for its objects do not wait for ever. Orders stand as files in a
    folder of the run: waiting, going, or refused by the cluster; beside them results that were taken before.
    """

    def __init__(self, builder: RemoteBuilder, folder: Path, places: int) -> None:
        self._builder = builder
        self._folder = folder
        self._places = places
        self.name, self.keeps, self.pushes_first = builder.name, builder.keeps, builder.pushes_first
        self._left: set[str] = set()
        for state in ("waiting", "going", "refused", "taken"):
            (folder / state).mkdir(parents=True, exist_ok=True)

    def start(self, order: BuildRequest) -> None:
        """See Builder."""
        with self._locked():
            # The name has the order of arrival: times of files are too coarse.
            waiting = self._folder / "waiting"
            number = max((int(path.name.partition(".")[0]) for path in waiting.iterdir()), default=0) + 1
            (waiting / f"{number:08}.{order.id}").write_bytes(pickle.dumps(order))
            self._fill()

    def result(self, order: BuildRequest, tell: Tell) -> BuildResult:
        """See Builder."""
        self._await_place(order, tell)
        done = threading.Event()
        # A build that is waited for must keep others neither from free places nor from what they have made.
        filling = threading.Thread(target=self._keep_filling, args=(done,), daemon=True)
        filling.start()
        try:
            with self._taking(order, seconds=-1):
                return self._taken(order, tell)
        finally:
            done.set()
            filling.join()
            with self._locked():
                self._fill()

    def _taken(self, order: BuildRequest, tell: Tell) -> BuildResult:
        known = self._folder / "taken" / order.id
        try:
            if known.exists():
                taken: BuildResult = pickle.loads(known.read_bytes())
                return taken
            return self._builder.result(order, tell)
        finally:
            (self._folder / "going" / order.id).unlink(missing_ok=True)

    def publish(self, order: BuildRequest, built: BuildResult) -> BuildResult:
        """See Builder."""
        return self._builder.publish(order, built)

    def _await_place(self, order: BuildRequest, tell: Tell) -> None:
        """Until the order has been started; raises what starting it raised."""
        told = False
        for _ in polls(first=_PAUSE_SECONDS, longest=_PAUSE_SECONDS):
            with self._locked():
                self._fill()
                refused = self._folder / "refused" / order.id
                if refused.exists():
                    trouble: PreflightError = pickle.loads(refused.read_bytes())
                    raise trouble
                if (self._folder / "going" / order.id).exists():
                    return
            if not told:
                tell("waits for a place")
                told = True

    def _keep_filling(self, done: threading.Event) -> None:
        while not done.wait(_PAUSE_SECONDS):
            with self._locked():
                self._fill()
            self._take()

    def _take(self) -> None:
        """Takes results for whoever will ask for them."""
        for order in self._orders("going"):
            if order.id not in self._left and self._has_ended(order):
                with suppress(Timeout), self._taking(order, seconds=0):
                    self._keep(order)

    def _keep(self, order: BuildRequest) -> None:
        known = self._folder / "taken" / order.id
        if known.exists() or not (self._folder / "going" / order.id).exists():
            return
        try:
            built = self._builder.result(order, lambda _: None)
        except PreflightError:
            self._left.add(order.id)  # whoever waits for it will see what the trouble is
            return
        made = Path(f"{known}.new")
        made.write_bytes(pickle.dumps(built))
        made.replace(known)

    def _fill(self) -> None:
        """Starts what waits, as far as there are places."""
        waiting = sorted((self._folder / "waiting").iterdir())
        while waiting and self._going() < self._places:
            path = waiting.pop(0)
            order: BuildRequest = pickle.loads(path.read_bytes())
            path.unlink()
            try:
                self._builder.start(order)
            except PreflightError as exc:
                (self._folder / "refused" / order.id).write_bytes(pickle.dumps(exc))
            else:
                (self._folder / "going" / order.id).write_bytes(pickle.dumps(order))

    def _going(self) -> int:
        return sum(not self._has_ended(order) for order in self._orders("going"))

    def _orders(self, state: str) -> Iterator[BuildRequest]:
        for path in sorted((self._folder / state).iterdir()):
            with suppress(FileNotFoundError):  # its end was seen in the meantime
                order: BuildRequest = pickle.loads(path.read_bytes())
                yield order

    def _has_ended(self, order: BuildRequest) -> bool:
        try:
            return self._builder.ended(order)
        except PreflightError:
            return False  # whoever waits for it will see what the trouble is

    def _taking(self, order: BuildRequest, seconds: float) -> FileLock:
        """Held by whoever takes the result; Timeout when that is another one for so long."""
        return FileLock(self._folder / f"{order.id}.lock", timeout=seconds, thread_local=False)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with FileLock(self._folder / "lock", thread_local=False):
            yield
