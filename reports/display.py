"""The terminal during a run: lines as they are printed, and below them one row that is redrawn."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from _pytest._io import TerminalWriter  # the type of pytest's public get_terminal_writer; it has no public name


class Display:
    """A file for pytest's terminal writer that keeps a row of progress below all printed lines.

    On a live terminal the row is the last one and is redrawn. In any other file the text is a line of its own, printed
    after silence_s seconds without other output.
    """

    def __init__(
        self,
        writer: TerminalWriter,
        live: bool,
        text: Callable[[], str | None],
        tick_s: float = 0.5,
        silence_s: float = 30.0,
    ) -> None:
        """Replace the writer's file. text returns the progress or None; it is called every tick_s seconds."""
        self._writer, self._live, self._text, self._tick_s, self._silence_s = writer, live, text, tick_s, silence_s
        # A private name. Without it, lines may mix on a terminal, but nothing worse happens.
        self._file: TextIO = getattr(writer, "_file", sys.stdout)
        self._file.flush()
        self._terminal = _uncaptured(self._file)
        self._lock = threading.Lock()
        self._width, self._drawn, self._printed = writer.width_of_current_line, "", time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="preflight-progress", daemon=True)
        writer._file = self  # a writer only writes to its file and flushes it
        self._thread.start()

    def line(self, text: str, **markup: bool) -> None:
        """Print a line."""
        if self._width:  # letters of other tests, or xdist's count of workers
            self._writer.line()
        # In one call: after a carriage return the writer counts later text as part of the redrawn row.
        self._writer.write(f"{self._writer.markup(text, **markup)}\n")

    def write(self, text: str) -> None:
        """Print text above the row of progress."""
        with self._lock:
            if self._drawn:
                self._draw("")
            self._file.write(text)
            self._file.flush()
            self._width, self._printed = self._writer.width_of_current_line, time.monotonic()

    def flush(self) -> None:
        """Do nothing: write flushes already."""

    def close(self) -> None:
        """Erase the row of progress, and give the file back to the writer."""
        self._ended.set()
        self._thread.join()
        if self._drawn:
            self._draw("")
        if self._terminal is not self._file:
            self._terminal.close()
        self._writer._file = self._file

    def _follow(self) -> None:
        try:
            while not self._ended.wait(self._tick_s):
                self._show(self._text())
        except (OSError, ValueError):
            return  # the terminal is closed: pytest's own output reports that

    def _show(self, text: str | None) -> None:
        with self._lock:
            # xdist's count of workers has a negative width, because it begins with a carriage return.
            if self._live and self._width <= 0:
                shown = (text or "")[: self._columns()]
                if shown != self._drawn:
                    self._draw(shown)
            elif text and not self._live and time.monotonic() - self._printed >= self._silence_s:
                self._put(("\n" if self._width else "") + text + "\n")
                self._width, self._printed = 0, time.monotonic()

    def _draw(self, text: str) -> None:
        """Redraw the row and go back to its start, so that the next text also overwrites an echoed ^C."""
        self._put(f"\r{text.ljust(self._columns())}\r")
        self._drawn, self._width = text, 0

    def _columns(self) -> int:
        """Return the columns of the terminal minus 1: a character in the last column wraps on some terminals."""
        return (os.get_terminal_size(self._terminal.fileno()).columns or 80) - 1

    def _put(self, text: str) -> None:
        self._terminal.write(text)
        self._terminal.flush()


def _uncaptured(file: TextIO) -> TextIO:
    """Return a file for the same terminal that pytest does not capture. Capture replaces the descriptor of a test."""
    try:
        return open(os.dup(file.fileno()), "w", encoding=file.encoding, errors="backslashreplace")
    except (OSError, ValueError):
        return file  # without a descriptor, nothing is captured
