"""A cache of files that take long to make. It outlives the run, and two runs may fill it at the same time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """Return $PREFLIGHT_TEST_CACHE, otherwise kmm-preflight-tests in the user's cache folder."""
    if chosen := os.environ.get("PREFLIGHT_TEST_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kmm-preflight-tests"


def kept(name: str, make: Callable[[Path], Path]) -> Path:
    """Return the cached file or folder of this name. If it is absent, make it.

    make: gets a scratch folder and returns the path in it that the cache keeps.
    """
    path = cache_folder() / name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    # The scratch folder is in the cache, since a rename is atomic only within one file system. No lock is needed: if
    # another run was faster, the rename fails and the work of this run is thrown away.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as scratch:
        result = make(Path(scratch))
        try:
            result.rename(path)
        except OSError:
            if not path.exists():
                raise
    return path
