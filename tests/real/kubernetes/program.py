"""A server of a test as a process: it writes to a log, and dies with the test's process however that ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.real.requirement import need_tool

_LAST_CHARACTERS = 3000


class Program:
    """Runs the command in a folder, from construction to end()."""

    def __init__(self, command: Sequence[str], folder: Path, log: Path) -> None:
        # The kernel sends this signal when the starting thread ends, not the process: so a thread is kept for it, and
        # a test may start a program from a timer.
        setpriv = need_tool("setpriv", "apt-get install util-linux")
        self._starter = ThreadPoolExecutor(1, thread_name_prefix=log.stem)
        self._log = log
        with log.open("ab") as output:
            self._process = self._starter.submit(
                subprocess.Popen,
                [setpriv, "--pdeathsig", "KILL", "--", *command],
                cwd=folder,
                # No more: etcd takes each of its options from the environment too.
                env={"PATH": os.environ.get("PATH", os.defpath)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            ).result()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it runs no longer, be it by itself."""
        return self._process.poll() is not None

    def log(self) -> str:
        """The last that it wrote."""
        return self._log.read_text(errors="replace")[-_LAST_CHARACTERS:]

    def wait(self, seconds: float) -> None:
        """Wait for its end; TimeoutExpired when it takes longer than these seconds."""
        self._process.wait(seconds)

    def end(self) -> None:
        """Kill it, and wait."""
        self._process.kill()
        self._process.wait()
        self._starter.shutdown()
