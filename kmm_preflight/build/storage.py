"""Storage of builds on this machine, in the private folder of a run: names, programs and locks."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

PROGRAMS = ("buildah", "podman")
HELD = "held"
"""File in a run's folder that is locked until the run ends."""
STORE = "store"
"""Storage in a run's folder. With --build-store it is a link."""
IN_USE = "in-use"
"""File in a storage on which each build holds a lock while it uses the storage."""
BUILDS = "build"
"""Folder of builds in a run's folder."""
_PODMAN_CHARACTERS = 50


def base_command(program: str, store: Path) -> list[str]:
    """Return a command of the program with its own storage."""
    return [program, f"--root={store / 'root'}", f"--runroot={store / 'r'}"]


def find_program(path: str) -> str | None:
    """Return the path of buildah, else of podman, on a PATH; None if neither is there."""
    return next((program for name in PROGRAMS if (program := shutil.which(name, path=path))), None)


def why_unfit(program: str, folder: Path) -> str | None:
    """Return why the program cannot build in a run's folder, or None. Builders misread some paths."""
    if {":", ","} & set(str(folder)):
        return f"TMPDIR {folder.parent} has a : or a comma, which builders misread"
    if program.endswith("podman") and len(str(folder / STORE / "r")) > _PODMAN_CHARACTERS:
        return f"TMPDIR {folder.parent} is too long for podman, whose runroot has at most 50 characters"
    return None


def is_free(descriptor: int) -> bool:
    """Lock the file. Return False if another process holds a lock on it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
