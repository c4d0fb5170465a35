"""Waiting for a build that goes on somewhere else, with an end in time."""

from __future__ import annotations

from typing import Protocol

from kmm_preflight.base.polling import polls
from kmm_preflight.build.builder import BuildResult, Show
from kmm_preflight.build.pods import Obstacle
from kmm_preflight.text import clean

_WORDS_CHARACTERS = 300


class RunningBuild(Protocol):
    """A build that goes on, as it was seen last."""

    def look(self) -> None:
        """Asks the cluster how it is by now."""

    @property
    def state(self) -> str:
        """In a word."""

    @property
    def step(self) -> str:
        """What it does, or what it waits for."""

    @property
    def obstacle(self) -> Obstacle:
        """What keeps it from running."""

    def end(self) -> BuildResult | None:
        """The end, if it has come to one."""

    def given_up(self) -> BuildResult:
        """What is told of it when it is stopped now."""

    def remove(self) -> None:
        """Deletes it."""


def follow(watched: RunningBuild, seconds: float, show: Show) -> BuildResult:
    """The end of a build, or what is told of one that has come to none in time; nothing is left of it then."""
    teller, patience = _Teller(show), _ObstacleTimer()
    for left in polls(seconds):
        watched.look()
        build_result = watched.end()
        if build_result is None and (not left or patience.ends(watched.obstacle, left)):
            build_result = watched.given_up()
        if build_result is not None:
            watched.remove()
            return build_result
        teller.say(watched.state, watched.step)
    raise AssertionError  # the last time ends it one way or the other


class _Teller:
    """Tells what changes, on one line."""

    def __init__(self, show: Show) -> None:
        self._tell = show
        self._told = ""

    def say(self, state: str, step: str) -> None:
        words = clean(f"{state}: {step}" if step else state)[:_WORDS_CHARACTERS]
        if words != self._told:
            self._told = words
            self._tell(words)


class _ObstacleTimer:
    """Measures how long an obstacle has been there, by the seconds that are left."""

    def __init__(self) -> None:
        self._left_at_first: float | None = None

    def ends(self, obstacle: Obstacle, left: float) -> bool:
        """True if the obstacle has been there for too long."""
        if obstacle.seconds is None:
            self._left_at_first = None
            return False
        if self._left_at_first is None:
            self._left_at_first = left
        return self._left_at_first - left >= obstacle.seconds
