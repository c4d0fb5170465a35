"""Programs of root that write all over a machine, started so that nothing of it is left: no process, mount or file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import cache
from pathlib import Path

from tests.real.requirement import need, need_tool

from .program import Program

PATIENCE_S = 120
PLACE = Path("/run/apart")
"""Where the folder is inside: sockets in it need a path that is short."""

_CGROUPS = Path("/sys/fs/cgroup")
# Where such programs have state outside of the folders that they are told to use.
_HIDDEN = ("/run", "/var/lib", "/var/log")
# What the kubelet sets on its machine, where others run too.
_SETTINGS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
             "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")  # fmt: skip
# The shell becomes the first process of a namespace: it reaps what others leave, and with it all of them end. Its id on
# the machine is read before /proc is replaced by one that knows only the namespace.
_INIT = """
set -e
read -r pid rest </proc/self/stat
echo "$pid" >init.pid
mount -t proc none /proc
for place in $HIDDEN; do mount -t tmpfs none "$place"; done
for name in $SETTINGS; do
  mkdir -p "settings/${name%/*}"
  cat "/proc/sys/$name" >"settings/$name"
  mount --bind "settings/$name" "/proc/sys/$name"
done
mkdir "$PLACE"
mount --bind "$PWD" "$PLACE"
cd "$PLACE"
. ./script
"""


class Apart:
    """A shell script with mounts and processes of its own, and cgroups of containers below one of its own.

    The network is that of the machine. When the test's process is killed all ends too, but for the empty cgroups.
    """

    def __init__(self, folder: Path, script: str, log: Path) -> None:
        """The script runs in the folder, which is at PLACE there; /run, /var/lib and /var/log are empty."""
        need_apart()
        assert not any(folder.is_relative_to(place) for place in _HIDDEN), folder
        self._folder = folder
        _make_cgroups(folder)
        told = f"HIDDEN='{' '.join(_HIDDEN)}' SETTINGS='{' '.join(_SETTINGS)}' PLACE={PLACE}"
        (folder / "script").write_text(script)
        # --mount makes all mounts private: none of the namespace's is seen outside, and they end with it.
        unshare = [need_tool("unshare", "apt-get install util-linux"), "--mount", "--pid", "--fork", "--kill-child"]
        self._program = Program([*unshare, "sh", "-c", told + _INIT], folder, log)

    @property
    def pid(self) -> int:
        """The process outside, which ends after all those inside."""
        return self._program.pid

    @property
    def ended(self) -> bool:
        """Whether the script has ended, and all with it."""
        return self._program.ended

    def end(self) -> None:
        """Kill all, wait, and remove their cgroups."""
        first = self._folder / "init.pid"
        if first.is_file() and not self._program.ended:
            # The kernel ends a namespace's first process after all others: unshare, which waits for it, comes last.
            os.kill(int(first.read_text()), signal.SIGKILL)
            self._program.wait(PATIENCE_S)
        self._program.end()
        remove_cgroups(self._folder)


def cgroup(folder: Path) -> str:
    """The cgroup for the containers of an Apart of this folder, as a path from the top of each hierarchy."""
    return f"/preflight-tests-{folder.name}"


def cgroups(folder: Path) -> list[Path]:
    """The same as folders of the machine: one where cgroups are of version 2 alone, else one in each hierarchy."""
    tops = [_CGROUPS] if (_CGROUPS / "cgroup.procs").exists() else [top for top in _CGROUPS.iterdir() if top.is_dir()]
    return sorted({top.resolve() / cgroup(folder).lstrip("/") for top in tops})


def remove_cgroups(folder: Path) -> None:
    """Remove them with those below; they are free a little after their last process is gone."""
    deadline = time.monotonic() + PATIENCE_S
    for tree in cgroups(folder):
        while not _removed(tree):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{tree} cannot be removed")
            time.sleep(0.05)


def need_apart() -> None:
    """Skip the running test where this cannot be."""
    reason = _trouble()
    need(f"root that may mount and make namespaces ({reason})", not reason, "a machine or virtual machine, as root")


@cache
def _trouble() -> str:
    if os.geteuid() != 0:
        return "not root"
    unshare = need_tool("unshare", "apt-get install util-linux")
    tried = [unshare, "--mount", "--pid", "--fork", "sh", "-c", "mount -t proc none /proc && mount -t tmpfs none /run"]
    done = subprocess.run(tried, capture_output=True, text=True, timeout=PATIENCE_S)
    return done.stderr.strip()


def _make_cgroups(folder: Path) -> None:
    for tree in cgroups(folder):
        tree.mkdir()


def _removed(tree: Path) -> bool:
    try:
        for folder, _, _ in os.walk(tree, topdown=False):
            os.rmdir(folder)
    except OSError:
        return False
    return True
