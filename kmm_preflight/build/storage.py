"""The storage of builds on this machine, in a run's folder: its program, its places, who holds them."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

PROGRAMS = ("buildah", "podman")
HELD = "held"
"""The file in a run's folder that is locked while the run goes on."""
STORE = "store"
"""The storage in a run's folder; a link where it is kept."""
IN_USE = "in-use"
"""The file in a storage that each build which uses it holds a lock on."""
BUILDS = "build"
"""The folder of builds in a run's folder."""
_PODMAN_CHARACTERS = 50


def base_command(program: str, store: Path) -> list[str]:
    """The program with a storage of its own."""
    return [program, f"--root={store / 'root'}", f"--runroot={store / 'r'}"]


def find_program(path: str) -> str | None:
    """Return the path of buildah, else of podman, on a PATH; None if neither is there."""
    return next((program for name in PROGRAMS if (program := shutil.which(name, path=path))), None)


def why_unfit(program: str, folder: Path) -> str | None:
    """Return why the program cannot build in a run's folder, or None. Builders misread some paths."""
    if {":", ","} & set(str(folder)):
        return f"got TMPDIR {folder.parent}, expected a path without : and ,"
    if program.endswith("podman") and len(str(folder / STORE / "r")) > _PODMAN_CHARACTERS:
        return f"got TMPDIR {folder.parent}, expected a shorter one for podman, whose runroot may have 50 characters"
    return None


def is_free(descriptor: int) -> bool:
    """Whether nobody else holds a lock on the file; this process holds it then."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
