"""Waiting for a build that goes on somewhere else, with an end in time."""

from __future__ import annotations

import time
from typing import Protocol

from kmm_preflight.build.builder import BuildResult, Tell
from kmm_preflight.build.objects import polls
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


def follow(watched: RunningBuild, seconds: float, tell: Tell) -> BuildResult:
    """The end of a build, or what is told of one that has come to none in time; nothing is left of it then."""
    teller, patience = _Teller(tell), _ObstacleTimer()
    for left in polls(seconds):
        watched.look()
        built = watched.end()
        if built is None and (not left or patience.ends(watched.obstacle)):
            built = watched.given_up()
        if built is not None:
            watched.remove()
            return built
        teller.say(watched.state, watched.step)
    raise AssertionError  # the last time ends it one way or the other


class _Teller:
    """Tells what changes, on one line."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told = ""

    def say(self, state: str, step: str) -> None:
        words = clean(f"{state}: {step}" if step else state)[:_WORDS_CHARACTERS]
        if words != self._told:
            self._told = words
            self._tell(words)


class _ObstacleTimer:
    """How long an obstacle has been there already."""

    def __init__(self) -> None:
        self._since: float | None = None

    def ends(self, seen: Obstacle) -> bool:
        """Whether it has been there for too long."""
        if seen.seconds is None:
            self._since = None
            return False
        self._since = time.monotonic() if self._since is None else self._since
        return time.monotonic() - self._since >= seen.seconds
