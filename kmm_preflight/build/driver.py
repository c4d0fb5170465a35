"""One build on this machine, run beside the suite: `python -m kmm_preflight.build.driver FOLDER`.

It waits for a place among the builds of the run, runs the commands of its specification one after the other, stops them
at their deadline, and ends by itself when the run is gone, however it went. It knows nothing of what the commands do.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

SPECIFICATION, RESULT, LOG, STATE = "specification", "result", "log", "state"
LOG_HEAD_BYTES, LOG_TAIL_BYTES = 8 << 20, 1 << 20
_UNABLE = -127
_POLL_SECONDS = 0.1
_LOOK_AFTER_RUN_SECONDS = 2.0
_SET_CHILD_SUBREAPER = 36  # prctl(2)


@dataclass(frozen=True)
class BuildCommands:
    """What to run, in order; places are lock files of which one must be had; run is held while the run goes on.

    timeout in seconds, counted from the moment that there is a place.
    """

    commands: Sequence[Sequence[str]]
    environment: dict[str, str]
    timeout: float
    places: Sequence[str]
    run: str


@dataclass(frozen=True)
class CommandResult:
    """How it ended: the last command's number and exit code; stopped tells that the deadline had passed."""

    command: int
    code: int
    stopped: bool = False


class RunGone(Exception):
    """The run that this build is for has ended, or was killed."""


def write_specification(folder: Path, specification: BuildCommands) -> None:
    """Leaves it where a driver looks for it."""
    (folder / SPECIFICATION).write_text(json.dumps(asdict(specification)))


def read_result(folder: Path) -> CommandResult | None:
    """The result; None while there is none."""
    try:
        return CommandResult(**json.loads((folder / RESULT).read_text()))
    except FileNotFoundError:
        return None


def drive(folder: Path) -> None:
    """Runs the specification of a folder to its end."""
    specification = BuildCommands(**json.loads((folder / SPECIFICATION).read_text()))
    # What a command leaves behind becomes our child, and can be ended too.
    ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    run = RunLock(Path(specification.run))
    try:
        place = _place(specification.places, run)
        try:
            _write(folder / STATE, "builds")
            result = _run(specification, folder, run)
        finally:
            place.release()
    except RunGone:
        return
    _write(folder / RESULT, json.dumps(asdict(result)))


class RunLock:
    """The run, looked at every now and then: its lock is free once it has ended."""

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self._next = 0.0

    def look(self) -> None:
        """Raises RunGone when there is nobody left to build for."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK_AFTER_RUN_SECONDS
        if not self._lock.exists():
            raise RunGone
        with suppress(Timeout), FileLock(self._lock, timeout=0):
            raise RunGone


def _place(places: Sequence[str], run: RunLock) -> FileLock:
    while True:
        for path in places:
            lock = FileLock(path)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return lock
        run.look()
        time.sleep(_POLL_SECONDS)


def _run(specification: BuildCommands, folder: Path, run: RunLock) -> CommandResult:
    deadline = time.monotonic() + specification.timeout
    number, code = 0, 0
    with (folder / LOG).open("wb", buffering=0) as log:
        for number, command in enumerate(specification.commands):
            process = _begin(command, specification.environment, folder, log)
            if isinstance(process, int):
                return CommandResult(number, process)
            reader = threading.Thread(target=_copy, args=(process.stdout, log), daemon=True)
            reader.start()
            try:
                while (code_now := process.poll()) is None and time.monotonic() < deadline:
                    run.look()
                    time.sleep(_POLL_SECONDS)
            finally:
                end_children()
            reader.join(timeout=5)
            if code_now is None:
                return CommandResult(number, -signal.SIGKILL, stopped=True)
            code = code_now
            if code:
                break
    return CommandResult(number, code)


def _begin(
    command: Sequence[str], environment: dict[str, str], folder: Path, log: BinaryIO
) -> subprocess.Popen[bytes] | int:
    """The process, in the build's folder; a code of no process where there is none."""
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except (OSError, ValueError) as exc:
        log.write(f"Error: {command[0]} cannot be run: {exc}\n".encode("utf-8", "replace"))
        return _UNABLE


def _copy(source: BinaryIO, log: BinaryIO) -> None:
    """What is printed, as it comes; of more than is worth keeping the beginning and the end."""
    written, kept, left_out = 0, 0, 0
    tail = deque[bytes]()
    for line in iter(lambda: source.readline(1 << 16), b""):
        if written < LOG_HEAD_BYTES:
            log.write(line)
            written += len(line)
            continue
        tail.append(line)
        kept += len(line)
        while kept > LOG_TAIL_BYTES:
            kept -= len(tail[0])
            left_out += len(tail.popleft())
    if left_out:
        log.write(f"\n… {left_out} bytes left out …\n".encode())
    log.write(b"".join(tail))


def end_children() -> None:
    """Kills what this process has started and what came of it, until nothing is left."""
    while children := _children(os.getpid()):
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)


def _children(parent: int) -> list[int]:
    """Children in every thread of a process; those of a child come to us when it ends."""
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def _write(path: Path, text: str) -> None:
    """The file as a whole, or not at all."""
    made = path.with_suffix(".new")
    made.write_text(text)
    made.replace(path)


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
