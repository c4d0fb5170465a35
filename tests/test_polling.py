"""Polls: the first at once, the last at the deadline, and growing pauses in between."""

from __future__ import annotations

import itertools
import math

import pytest

from kmm_preflight.base.polling import polls


class ManualClock:
    """A clock that only a pause, or the test, moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_the_first_poll_is_at_once_and_the_last_at_the_deadline() -> None:
    clock = ManualClock()
    left = list(polls(60, clock=clock))
    assert (left[0], left[-1]) == (60, 0)
    assert clock.now == 1060
    assert [before - after for before, after in itertools.pairwise(left)] == pytest.approx(clock.pauses)


def test_pauses_grow_up_to_the_longest() -> None:
    clock = ManualClock()
    for _ in polls(60, first=1, longest=5, clock=clock):
        pass
    shortest = [min(1.5**number, 5) for number in range(len(clock.pauses))]
    for pause, least in zip(clock.pauses[:-1], shortest, strict=False):
        assert least <= pause <= least * 1.3


def test_time_between_polls_counts() -> None:
    clock, left = ManualClock(), []
    for seconds in polls(20, clock=clock):
        left.append(seconds)
        clock.now += 15
    assert left[0] == 20
    assert 3 < left[1] <= 4
    assert left[2:] == [0]


def test_without_time_there_is_one_poll() -> None:
    assert list(polls(0, clock=ManualClock())) == [0]


def test_polls_without_a_deadline_go_on() -> None:
    clock = ManualClock()
    assert set(itertools.islice(polls(clock=clock), 100)) == {math.inf}
    assert max(clock.pauses) <= 6.5
