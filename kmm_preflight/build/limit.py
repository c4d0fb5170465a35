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
from kmm_preflight.build.builder import Builder, BuildRequest, BuildResult, Show
from kmm_preflight.errors import PreflightError

_PAUSE_SECONDS = 1.0


class RemoteBuilder(Builder, Protocol):
    """A builder whose builds go on by themselves."""

    def ended(self, request: BuildRequest) -> bool:
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

    def start(self, request: BuildRequest) -> None:
        """See Builder."""
        with self._locked():
            # The name has the order of arrival: times of files are too coarse.
            waiting = self._folder / "waiting"
            number = max((int(path.name.partition(".")[0]) for path in waiting.iterdir()), default=0) + 1
            (waiting / f"{number:08}.{request.id}").write_bytes(pickle.dumps(request))
            self._fill()

    def result(self, request: BuildRequest, show: Show) -> BuildResult:
        """See Builder."""
        self._await_place(request, show)
        done = threading.Event()
        # A build that is waited for must keep others neither from free places nor from what they have made.
        filling = threading.Thread(target=self._keep_filling, args=(done,), daemon=True)
        filling.start()
        try:
            with self._taking(request, seconds=-1):
                return self._taken(request, show)
        finally:
            done.set()
            filling.join()
            with self._locked():
                self._fill()

    def _taken(self, request: BuildRequest, show: Show) -> BuildResult:
        known = self._folder / "taken" / request.id
        try:
            if known.exists():
                taken: BuildResult = pickle.loads(known.read_bytes())
                return taken
            return self._builder.result(request, show)
        finally:
            (self._folder / "going" / request.id).unlink(missing_ok=True)

    def publish(self, request: BuildRequest, build_result: BuildResult) -> BuildResult:
        """See Builder."""
        return self._builder.publish(request, build_result)

    def _await_place(self, request: BuildRequest, show: Show) -> None:
        """Until the request has been started; raises what starting it raised."""
        told = False
        for _ in polls(first=_PAUSE_SECONDS, longest=_PAUSE_SECONDS):
            with self._locked():
                self._fill()
                refused = self._folder / "refused" / request.id
                if refused.exists():
                    trouble: PreflightError = pickle.loads(refused.read_bytes())
                    raise trouble
                if (self._folder / "going" / request.id).exists():
                    return
            if not told:
                show("waits for a place")
                told = True

    def _keep_filling(self, done: threading.Event) -> None:
        while not done.wait(_PAUSE_SECONDS):
            with self._locked():
                self._fill()
            self._take()

    def _take(self) -> None:
        """Takes results for whoever will ask for them."""
        for request in self._requests("going"):
            if request.id not in self._left and self._has_ended(request):
                with suppress(Timeout), self._taking(request, seconds=0):
                    self._keep(request)

    def _keep(self, request: BuildRequest) -> None:
        known = self._folder / "taken" / request.id
        if known.exists() or not (self._folder / "going" / request.id).exists():
            return
        try:
            build_result = self._builder.result(request, lambda _: None)
        except PreflightError:
            self._left.add(request.id)  # whoever waits for it will see what the trouble is
            return
        made = Path(f"{known}.new")
        made.write_bytes(pickle.dumps(build_result))
        made.replace(known)

    def _fill(self) -> None:
        """Starts what waits, as far as there are places."""
        waiting = sorted((self._folder / "waiting").iterdir())
        while waiting and self._going() < self._places:
            path = waiting.pop(0)
            request: BuildRequest = pickle.loads(path.read_bytes())
            path.unlink()
            try:
                self._builder.start(request)
            except PreflightError as exc:
                (self._folder / "refused" / request.id).write_bytes(pickle.dumps(exc))
            else:
                (self._folder / "going" / request.id).write_bytes(pickle.dumps(request))

    def _going(self) -> int:
        return sum(not self._has_ended(request) for request in self._requests("going"))

    def _requests(self, state: str) -> Iterator[BuildRequest]:
        for path in sorted((self._folder / state).iterdir()):
            with suppress(FileNotFoundError):  # its end was seen in the meantime
                request: BuildRequest = pickle.loads(path.read_bytes())
                yield request

    def _has_ended(self, request: BuildRequest) -> bool:
        try:
            return self._builder.ended(request)
        except PreflightError:
            return False  # whoever waits for it will see what the trouble is

    def _taking(self, request: BuildRequest, seconds: float) -> FileLock:
        """Held by whoever takes the result; Timeout when that is another one for so long."""
        return FileLock(self._folder / f"{request.id}.lock", timeout=seconds, thread_local=False)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with FileLock(self._folder / "lock", thread_local=False):
            yield
