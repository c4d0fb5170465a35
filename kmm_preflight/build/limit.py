"""Concurrency limit: the maximal number of builds in a cluster at a time, over all processes of a run."""

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
    """Builder whose builds run without a process of this suite."""

    def has_ended(self, request: BuildRequest) -> bool:
        """True if a build that was started no longer runs. Raise the errors of errors.py."""


class BuildLimit:
    """Builder that starts at most so many builds of another builder at a time.

    A build that has to wait is started by the first process that sees a free slot. The result of a build that has ended
    is fetched by the first process that sees its end, since Kubernetes deletes the objects after a while. Requests are
    files in a folder of the run: waiting, running or refused by the cluster. Fetched results are next to them.
    """

    def __init__(self, builder: RemoteBuilder, folder: Path, slots: int) -> None:
        self._builder = builder
        self._folder = folder
        self._slots = slots
        self.name = builder.name
        self.keeps_results, self.pushes_before_proof = builder.keeps_results, builder.pushes_before_proof
        self._failed_fetches: set[str] = set()
        for state in ("waiting", "running", "refused", "fetched"):
            (folder / state).mkdir(parents=True, exist_ok=True)

    def start(self, request: BuildRequest) -> None:
        """Queue the build, and start it if a slot is free."""
        with self._locked():
            # The name has the order of arrival: times of files are too coarse.
            waiting = self._folder / "waiting"
            number = max((int(path.name.partition(".")[0]) for path in waiting.iterdir()), default=0) + 1
            (waiting / f"{number:08}.{request.id}").write_bytes(pickle.dumps(request))
            self._fill_slots()

    def result(self, request: BuildRequest, show: Show) -> BuildResult:
        """Wait for a slot, then for the end of the build."""
        self._await_start(request, show)
        done = threading.Event()
        # Meanwhile, a thread starts other builds in free slots and fetches their results.
        serving = threading.Thread(target=self._serve_others, args=(done,), daemon=True)
        serving.start()
        try:
            with self._fetch_lock(request, seconds=-1):
                return self._fetched_or_awaited(request, show)
        finally:
            done.set()
            serving.join()
            with self._locked():
                self._fill_slots()

    def publish(self, request: BuildRequest, result: BuildResult) -> BuildResult:
        """Let the other builder push the result."""
        return self._builder.publish(request, result)

    def _fetched_or_awaited(self, request: BuildRequest, show: Show) -> BuildResult:
        file = self._folder / "fetched" / request.id
        try:
            if file.exists():
                fetched: BuildResult = pickle.loads(file.read_bytes())
                return fetched
            return self._builder.result(request, show)
        finally:
            (self._folder / "running" / request.id).unlink(missing_ok=True)

    def _await_start(self, request: BuildRequest, show: Show) -> None:
        """Wait until the build has started. Raise the error of its start."""
        is_shown = False
        for _ in polls(first=_PAUSE_SECONDS, longest=_PAUSE_SECONDS):
            with self._locked():
                self._fill_slots()
                refused = self._folder / "refused" / request.id
                if refused.exists():
                    error: PreflightError = pickle.loads(refused.read_bytes())
                    raise error
                if (self._folder / "running" / request.id).exists():
                    return
            if not is_shown:
                show("waits for a free slot")
                is_shown = True

    def _serve_others(self, done: threading.Event) -> None:
        while not done.wait(_PAUSE_SECONDS):
            with self._locked():
                self._fill_slots()
            self._fetch_ended()

    def _fetch_ended(self) -> None:
        """Fetch results of builds that have ended, for the processes that will need them."""
        for request in self._requests("running"):
            if request.id not in self._failed_fetches and self._has_ended(request):
                with suppress(Timeout), self._fetch_lock(request, seconds=0):
                    self._fetch(request)

    def _fetch(self, request: BuildRequest) -> None:
        file = self._folder / "fetched" / request.id
        if file.exists() or not (self._folder / "running" / request.id).exists():
            return
        try:
            result = self._builder.result(request, lambda _: None)
        except PreflightError:
            self._failed_fetches.add(request.id)  # the process that waits for the build will report the error
            return
        partial = Path(f"{file}.new")
        partial.write_bytes(pickle.dumps(result))
        partial.replace(file)

    def _fill_slots(self) -> None:
        """Start waiting builds in free slots."""
        waiting = sorted((self._folder / "waiting").iterdir())
        while waiting and self._running_count() < self._slots:
            path = waiting.pop(0)
            request: BuildRequest = pickle.loads(path.read_bytes())
            path.unlink()
            try:
                self._builder.start(request)
            except PreflightError as exc:
                (self._folder / "refused" / request.id).write_bytes(pickle.dumps(exc))
            else:
                (self._folder / "running" / request.id).write_bytes(pickle.dumps(request))

    def _running_count(self) -> int:
        return sum(not self._has_ended(request) for request in self._requests("running"))

    def _requests(self, state: str) -> Iterator[BuildRequest]:
        for path in sorted((self._folder / state).iterdir()):
            with suppress(FileNotFoundError):  # another process has removed it
                request: BuildRequest = pickle.loads(path.read_bytes())
                yield request

    def _has_ended(self, request: BuildRequest) -> bool:
        try:
            return self._builder.has_ended(request)
        except PreflightError:
            return False  # the process that waits for the build will report the error

    def _fetch_lock(self, request: BuildRequest, seconds: float) -> FileLock:
        """Return the lock of the process that fetches a result. Raise Timeout if another one holds it for so long."""
        return FileLock(self._folder / f"{request.id}.lock", timeout=seconds, thread_local=False)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with FileLock(self._folder / "lock", thread_local=False):
            yield
