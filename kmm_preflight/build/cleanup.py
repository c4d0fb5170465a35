"""Clean-up of a run's folder: end processes, unmount, and delete what builds on this machine left."""

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
    """End the builds of a run and delete its folder, with files of other users. Keep the storage of --build-store."""
    store = folder / STORE
    if not (folder / BUILDS).exists():
        shutil.rmtree(folder, ignore_errors=True)  # no build ran; another run may delete the folder too
        return
    _end_processes(folder)
    if store.exists() and (program := find_program(os.defpath)):
        if store.is_symlink():
            _delete_from_store(program, folder)
        if os.geteuid() != 0:
            # Files of subordinate ids belong to the user only inside of a user namespace.
            folders = [str(path) for path in (store, folder / BUILDS) if not path.is_symlink()]
            _run(folder, program, "unshare", "rm", "-rf", *folders)
    _unmount(folder, folder)
    for path in _without_lock(folder):
        with suppress(OSError):  # another run deletes it too; or it stays, and so does the folder
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if not _without_lock(folder):
        shutil.rmtree(folder, ignore_errors=True)  # else a later run finds the folder by its lock and tries again


def _without_lock(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name != HELD]
    except FileNotFoundError:
        return []


def _delete_from_store(program: str, folder: Path) -> None:
    """Delete a run's images from a kept storage. If no build uses the storage, delete what killed builds left."""
    store = folder / STORE
    base = base_command(program, store)
    names = _run(folder, *base, "images", "--format", "{{.Name}}:{{.Tag}}").splitlines()
    if own := [name for name in names if folder.name in name or name.startswith("localhost/input")]:
        _run(folder, *base, "rmi", "--force", *own)
    with (store / IN_USE).open("a") as in_use:
        if is_free(in_use.fileno()):
            _run(folder, *base, "rm", "--all")
            _unmount(folder, store.resolve())


def _run(folder: Path, *command: str) -> str:
    """Run a command and return its output. It writes no files outside of the run's folder."""
    environment = {"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    completed = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
    )
    return completed.stdout


def _end_processes(folder: Path) -> None:
    """Kill the processes of builds of this folder until none is left."""
    for _ in polls(_KILL_SECONDS, first=0.05, longest=0.05):
        processes = [process for process in Path("/proc").glob("[0-9]*") if _is_of(process, str(folder))]
        if not processes:
            return
        for process in processes:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(int(process.name), 9)


def _is_of(process: Path, folder: str) -> bool:
    """True if the command line names the folder, or if the process runs in a container of its storage."""
    if int(process.name) == os.getpid():
        return False
    with suppress(OSError):
        words = (process / "cmdline").read_bytes().split(b"\0")
        if any(word.startswith((f"--root={folder}".encode(), folder.encode())) for word in words):
            return True
        return str((process / "root").readlink()).startswith(folder)
    return False


def _unmount(folder: Path, below: Path) -> None:
    """Unmount what a killed builder left mounted. Only mounts of root are visible here."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{below}/")]):
        _run(folder, "umount", "-l", mount)
