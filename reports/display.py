"""The terminal while a run goes on: lines as they come, and below them one row that is drawn over."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from _pytest._io import TerminalWriter  # what pytest's public get_terminal_writer answers; it has no public name


class Display:
    """Stands between pytest's terminal writer and its file, so that what is running is never in the way of a line.

    text is asked for every tick_s seconds; "" is for nothing. A live terminal has it as its last row, drawn over and
    over; any other file as a line, once nothing was printed for silence_s seconds.
    """

    def __init__(
        self, writer: TerminalWriter, live: bool, text: Callable[[], str], tick_s: float = 0.5, silence_s: float = 30.0
    ) -> None:
        self._writer, self._live, self._text, self._tick_s, self._silence_s = writer, live, text, tick_s, silence_s
        # A private name: should pytest give it up, lines may mix on a terminal, and nothing worse.
        self._file: TextIO = getattr(writer, "_file", sys.stdout)
        self._file.flush()
        self._apart = _apart(self._file)
        self._lock = threading.Lock()
        self._width, self._drawn, self._printed = writer.width_of_current_line, "", time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="preflight-progress", daemon=True)
        writer._file = self  # all that a writer does with its file is write and flush
        self._thread.start()

    def line(self, text: str, **markup: bool) -> None:
        """Prints a line of its own."""
        if self._width:  # letters of other tests, or xdist's count of workers
            self._writer.line()
        # In one piece: after a carriage return the writer takes what follows for more of the line that was drawn over.
        self._writer.write(f"{self._writer.markup(text, **markup)}\n")

    def write(self, text: str) -> None:
        """What anybody prints."""
        with self._lock:
            if self._drawn:
                self._draw("")
            self._file.write(text)
            self._file.flush()
            self._width, self._printed = self._writer.width_of_current_line, time.monotonic()

    def flush(self) -> None:
        """Nothing to do: all was flushed as it was written."""

    def close(self) -> None:
        """Erases what is running, and gives the file back."""
        self._ended.set()
        self._thread.join()
        if self._drawn:
            self._draw("")
        if self._apart is not self._file:
            self._apart.close()
        self._writer._file = self._file

    def _follow(self) -> None:
        try:
            while not self._ended.wait(self._tick_s):
                self._show(self._text())
        except (OSError, ValueError):
            return  # nobody reads any more: pytest's own writing says so

    def _show(self, text: str) -> None:
        with self._lock:
            # Below nought is the width of xdist's count of workers: it begins with a carriage return, to be redrawn.
            if self._live and self._width <= 0:
                shown = text[: self._columns()]
                if shown != self._drawn:
                    self._draw(shown)
            elif text and not self._live and time.monotonic() - self._printed >= self._silence_s:
                self._put(("\n" if self._width else "") + text + "\n")
                self._width, self._printed = 0, time.monotonic()

    def _draw(self, text: str) -> None:
        """Writes over the row and goes back to its start, where a ^C that the terminal echoes is written over too."""
        self._put(f"\r{text.ljust(self._columns())}\r")
        self._drawn, self._width = text, 0

    def _columns(self) -> int:
        """One less than the terminal has: a character in the last column would move some of them to the next row."""
        return (os.get_terminal_size(self._apart.fileno()).columns or 80) - 1

    def _put(self, text: str) -> None:
        self._apart.write(text)
        self._apart.flush()


def _apart(file: TextIO) -> TextIO:
    """The same place out of reach of pytest's capture, which puts another file behind the descriptor of a test."""
    try:
        return open(os.dup(file.fileno()), "w", encoding=file.encoding, errors="backslashreplace")
    except (OSError, ValueError):
        return file  # nothing behind it that could be captured
