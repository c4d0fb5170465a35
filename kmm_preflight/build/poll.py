"""Polling of a build in a cluster, until its end or its deadline."""

from __future__ import annotations

from typing import Protocol

from kmm_preflight.base.polling import polls
from kmm_preflight.build.builder import BuildResult, Show
from kmm_preflight.build.pods import Obstacle
from kmm_preflight.text import clean

_WORDS_CHARACTERS = 300


class RunningBuild(Protocol):
    """Build in a cluster, as it was read last."""

    def look(self) -> None:
        """Read the build again."""

    @property
    def state(self) -> str:
        """State in one word."""

    @property
    def step(self) -> str | None:
        """Current step, or what the build waits for."""

    @property
    def obstacle(self) -> Obstacle:
        """Reason why the build does not run yet."""

    def end(self) -> BuildResult | None:
        """Return the result, or None if the build goes on."""

    def stopped(self) -> BuildResult:
        """Return the result of a build that is stopped now."""

    def remove(self) -> None:
        """Delete the build."""


def follow(build: RunningBuild, seconds: float, show: Show) -> BuildResult:
    """Wait for the end of a build, at most until the deadline. Delete the build and return its result."""
    progress, timer = _Progress(show), _ObstacleTimer()
    for left in polls(seconds):
        build.look()
        result = build.end()
        if result is None and (not left or timer.is_over(build.obstacle, left)):
            result = build.stopped()
        if result is not None:
            build.remove()
            return result
        progress.show(build.state, build.step)
    raise AssertionError("the last poll stops the build")


class _Progress:
    """Shows each new step once, on one line."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._last: str | None = None

    def show(self, state: str, step: str | None) -> None:
        words = clean(f"{state}: {step}" if step else state)[:_WORDS_CHARACTERS]
        if words != self._last:
            self._last = words
            self._show(words)


class _ObstacleTimer:
    """Measures how long an obstacle exists, by the seconds that are left."""

    def __init__(self) -> None:
        self._left_at_first: float | None = None

    def is_over(self, obstacle: Obstacle, left: float) -> bool:
        """True if the obstacle exists for longer than its limit."""
        if obstacle.seconds is None:
            self._left_at_first = None
            return False
        if self._left_at_first is None:
            self._left_at_first = left
        return self._left_at_first - left >= obstacle.seconds
