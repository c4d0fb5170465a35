"""Where tests keep what is dear to make: it outlives the run, and two runs may fill it at the same time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """$PREFLIGHT_TEST_CACHE, else kmm-preflight-tests below the user's cache folder."""
    if chosen := os.environ.get("PREFLIGHT_TEST_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kmm-preflight-tests"


def kept(name: str, make: Callable[[Path], Path]) -> Path:
    """The cached file or folder, made when it is not there: make gets a scratch folder and returns what to keep."""
    wanted = cache_folder() / name
    if wanted.exists():
        return wanted
    wanted.parent.mkdir(parents=True, exist_ok=True)
    # In the cache itself, as a rename is atomic only within one file system. It needs no lock: when another run was
    # first, its folder refuses to be replaced and this run's work is thrown away.
    with tempfile.TemporaryDirectory(dir=wanted.parent, prefix=".making-") as scratch:
        made = make(Path(scratch))
        try:
            made.rename(wanted)
        except OSError:
            if not wanted.exists():
                raise
    return wanted
