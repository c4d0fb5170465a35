"""The end of a run's folder: what builds on this machine have left, running, mounted or stored, however they ended."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from kmm_preflight.base.polling import polls
from kmm_preflight.build.storage import BUILDS, HELD, IN_USE, STORE, base_command, find_program, is_free

_KILL_SECONDS = 2.5


def remove_builds(folder: Path) -> None:
    """Ends the builds of a run, and removes its folder, whoever owns what in there; a kept storage stays."""
    store = folder / STORE
    if not (folder / BUILDS).exists():
        shutil.rmtree(folder, ignore_errors=True)  # nothing was built; another run may be removing it, too
        return
    _end_processes(folder)
    if store.exists() and (program := find_program(os.defpath)):
        if store.is_symlink():
            _tidy(program, folder)
        if os.geteuid() != 0:
            # A user's builds leave files of his subordinate ids, which are his only in a namespace of his.
            places = [str(place) for place in (store, folder / BUILDS) if not place.is_symlink()]
            _quietly(folder, program, "unshare", "rm", "-rf", *places)
    _unmount(folder, folder)
    for path in _without_lock(folder):
        with suppress(OSError):  # of another run that removes the same; or it stays, and the folder too
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if not _without_lock(folder):
        shutil.rmtree(folder, ignore_errors=True)  # else a later run finds it, by its lock, and tries again


def _without_lock(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name != HELD]
    except FileNotFoundError:
        return []


def _tidy(program: str, folder: Path) -> None:
    """Takes what a run has made out of a storage that stays; and what killed builds have left, unless it is in use."""
    store = folder / STORE
    base = base_command(program, store)
    names = _quietly(folder, *base, "images", "--format", "{{.Name}}:{{.Tag}}").splitlines()
    if made := [name for name in names if folder.name in name or name.startswith("localhost/input")]:
        _quietly(folder, *base, "rmi", "--force", *made)
    with (store / IN_USE).open("a") as in_use:
        if is_free(in_use.fileno()):
            _quietly(folder, *base, "rm", "--all")
            _unmount(folder, store.resolve())


def _quietly(folder: Path, *command: str) -> str:
    """Runs a command of the clean-up, which leaves nothing outside of the run's folder either."""
    environment = {"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    ran = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
    )
    return ran.stdout


def _end_processes(folder: Path) -> None:
    """Kills every process that was started for a build of this folder, until there is none."""
    for _ in polls(_KILL_SECONDS, first=0.05, longest=0.05):
        found = [process for process in Path("/proc").glob("[0-9]*") if _is_of(process, str(folder))]
        if not found:
            return
        for process in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(int(process.name), 9)


def _is_of(process: Path, folder: str) -> bool:
    """Whether the folder stands in its command line, or it lives in a container of that storage."""
    if int(process.name) == os.getpid():
        return False
    with suppress(OSError):
        words = (process / "cmdline").read_bytes().split(b"\0")
        if any(word.startswith((f"--root={folder}".encode(), folder.encode())) for word in words):
            return True
        return str((process / "root").readlink()).startswith(folder)
    return False


def _unmount(folder: Path, below: Path) -> None:
    """What a builder that was killed has left mounted; only root's are to be seen here."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in reversed([place for place in mounts if place.startswith(f"{below}/")]):
        _quietly(folder, "umount", "-l", place)
