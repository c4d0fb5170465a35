"""Polling: repeat a request with growing pauses, until a deadline."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from typing import Protocol

_GROWTH = 1.5
_JITTER = 0.3


class Clock(Protocol):
    """Part of the module time that polls use."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


SYSTEM_CLOCK: Clock = time
"""The clock of this machine."""


def polls(
    seconds: float = math.inf, first: float = 1.0, longest: float = 5.0, clock: Clock = SYSTEM_CLOCK
) -> Iterator[float]:
    """Yield the seconds until the deadline: at once, after each pause, and finally 0.0 at the deadline.

    Pauses grow from first to longest. Each has a random extra of up to a third, so that several processes do not send
    their requests at the same moment.
    """
    deadline, pause = clock.monotonic() + seconds, first
    while (left := deadline - clock.monotonic()) > 0:
        yield left
        with_jitter = pause * (1 + random.uniform(0, _JITTER))
        clock.sleep(max(0.0, min(with_jitter, deadline - clock.monotonic())))
        pause = min(pause * _GROWTH, longest)
    yield 0.0
