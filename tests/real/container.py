"""Containers as podman builds and runs them, with a storage of their own that is gone afterwards; root alone can."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from .requirement import need

PATIENCE_S = 300

_ENABLE = "apt-get install podman runc busybox-static util-linux, and be root"
_TOOLS = ("podman", "runc", "busybox", "unshare")
# Podman keeps some state outside of the folders that it is given. It gets a mount namespace in which these are empty;
# whatever it mounts ends with the namespace too.
_APART = (
    "for place in /var/lib/containers /run/containers /run/libpod; do "
    '[ ! -d "$place" ] || mount -t tmpfs none "$place"; done; exec "$@"'
)
# Without CAP_SYS_RESOURCE a limit above our own is refused; there may be no systemd for cgroups and no journal.
_SETTINGS = """
[containers]
default_ulimits = []
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "runc"
"""
_SMALLEST = 'FROM scratch\nCOPY busybox /bin/busybox\nENTRYPOINT ["/bin/busybox"]\n'


class Containers:
    """A storage of podman; use it in a `with`."""

    def __init__(self, folder: Path, driver: str = "") -> None:
        """Without a driver the running test is skipped where no container can be run."""
        self._driver = driver or needed_driver()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(dir=folder.resolve(), prefix="containers-"))
        # Podman refuses a runroot of more than 50 characters.
        self._state = Path(tempfile.mkdtemp(dir="/tmp", prefix="containers-"))
        self.environment = {
            "PATH": _path(),
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
        }
        (self.folder / "containers.conf").write_text(_SETTINGS)

    def command(self, *arguments: str) -> list[str]:
        """Podman with these arguments as a command, for the environment of this storage."""
        where = [f"--root={self.folder / 'root'}", f"--runroot={self._state}", f"--tmpdir={self._state / 'podman'}"]
        apart = ["unshare", "--mount", "sh", "-c", _APART, "sh"]
        # A shell that has a podman of its own in front, which calls this one, must not come back to itself.
        podman = shutil.which("podman", path=_path()) or "podman"
        return [*apart, podman, *where, f"--storage-driver={self._driver}", *arguments]

    def podman(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run podman; a container's exit code is the return code."""
        return subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S
        )

    def checked(self, *arguments: str) -> str:
        """Run podman, which must end well, and return what it printed."""
        done = self.podman(*arguments)
        if done.returncode:
            raise RuntimeError(f"podman {' '.join(arguments)} ended {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def build(self, context: Path, image: str, options: Sequence[str] = ()) -> None:
        """Build an image from a folder with a Containerfile; options are those of podman build."""
        self.checked("build", "--isolation=chroot", "--layers=false", *options, f"--tag={image}", str(context))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for folder in (self.folder, self._state):
            shutil.rmtree(folder)


def _path() -> str:
    """Where programs are, those that only root has in the PATH included."""
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def needed_driver() -> str:
    """The storage driver with which containers work; skips the running test where there is none."""
    driver, reason = _working()
    need(f"a podman that can run containers ({reason})", bool(driver), _ENABLE)
    return driver


@cache
def _working() -> tuple[str, str]:
    """The first driver with which a small container runs under a memory limit, or the last one's complaint."""
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=_path()) is None]
    if missing or os.geteuid() != 0:
        return "", f"no {', '.join(missing)}" if missing else "not root"
    complaint = ""
    for driver in ("overlay", "vfs"):
        with tempfile.TemporaryDirectory() as scratch, Containers(Path(scratch), driver) as containers:
            context = Path(scratch) / "context"
            context.mkdir()
            (context / "Containerfile").write_text(_SMALLEST)
            shutil.copy(shutil.which("busybox", path=_path()) or "", context / "busybox")
            try:
                containers.build(context, "smallest")
                containers.checked("run", "--rm", "--memory=64m", "--network=none", "--read-only", "smallest", "true")
            except (RuntimeError, subprocess.TimeoutExpired) as problem:
                complaint = ": ".join(str(problem).strip().splitlines()[-2:])
            else:
                return driver, ""
    return "", complaint
