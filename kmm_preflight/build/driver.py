"""Process of one build on this machine: `python -m kmm_preflight.build.driver FOLDER`.

The process waits for a free slot, runs the commands of its specification one after the other, and stops them at their
deadline. It ends by itself when the run has ended or was killed. It does not know what the commands do.
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
_NOT_RUN = -127
_POLL_SECONDS = 0.1
_CHECK_RUN_SECONDS = 2.0
_SET_CHILD_SUBREAPER = 36  # prctl(2)


@dataclass(frozen=True)
class BuildCommands:
    """Specification of a build."""

    commands: Sequence[Sequence[str]]
    """Commands to run, in order."""
    environment: dict[str, str]
    """Environment of the commands."""
    timeout: float
    """Deadline in seconds after the slot is free."""
    slots: Sequence[str]
    """Paths of lock files: the process needs the lock of one of them."""
    run: str
    """Path of the lock file that is locked until the run ends."""


@dataclass(frozen=True)
class CommandResult:
    """End of a build."""

    command: int
    """Number of the last command."""
    code: int
    """Its exit code, or a negative number for a signal."""
    stopped: bool = False
    """True if it was stopped at the deadline."""


class RunGone(Exception):
    """The run of this build has ended, or was killed."""


def write_specification(folder: Path, specification: BuildCommands) -> None:
    """Write the specification to a folder, for a driver process."""
    (folder / SPECIFICATION).write_text(json.dumps(asdict(specification)))


def read_result(folder: Path) -> CommandResult | None:
    """Return the result, or None if the build has none yet."""
    try:
        return CommandResult(**json.loads((folder / RESULT).read_text()))
    except FileNotFoundError:
        return None


def drive(folder: Path) -> None:
    """Run the specification of a folder, and write the result there."""
    specification = BuildCommands(**json.loads((folder / SPECIFICATION).read_text()))
    # Processes that a command leaves behind become children of this process, so it can end them.
    ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    run = RunLock(Path(specification.run))
    try:
        slot = _acquire_slot(specification.slots, run)
        try:
            _write(folder / STATE, "builds")
            result = _run(specification, folder, run)
        finally:
            slot.release()
    except RunGone:
        return
    _write(folder / RESULT, json.dumps(asdict(result)))


class RunLock:
    """Lock of the run: another process holds it until the run ends."""

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self._next_check = 0.0

    def check(self) -> None:
        """Raise RunGone if the run has ended. Check that only every few seconds."""
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + _CHECK_RUN_SECONDS
        if not self._lock.exists():
            raise RunGone
        with suppress(Timeout), FileLock(self._lock, timeout=0):
            raise RunGone


def _acquire_slot(slots: Sequence[str], run: RunLock) -> FileLock:
    while True:
        for path in slots:
            lock = FileLock(path)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return lock
        run.check()
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
                    run.check()
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
    """Start the command in the build's folder. If that fails, log the error and return an exit code."""
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
        return _NOT_RUN


def _copy(source: BinaryIO, log: BinaryIO) -> None:
    """Copy the output as it comes. Of very long output, keep the beginning and the end."""
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
    """Kill all child processes, and their children, until none is left."""
    while children := _children(os.getpid()):
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)


def _children(parent: int) -> list[int]:
    """Return the children of all threads of a process. A grandchild becomes a child when its parent ends."""
    children: list[int] = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):
            children += map(int, task.read_text().split())
    return children


def _write(path: Path, text: str) -> None:
    """Write a file in one step."""
    partial = path.with_suffix(".new")
    partial.write_text(text)
    partial.replace(path)


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
