"""The kernel itself as the judge: its vmlinuz boots in QEMU, without a network, and loads kmods one after the other."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .cache import kept
from .initramfs import initramfs
from .kernels import vmlinuz
from .requirement import need, need_tool

SECONDS = 300
_BUSYBOX = "/bin/busybox"
# initcall_debug: whether a kmod's init was reached tells the loader's refusal from the driver's own.
_ARGUMENTS = "console=ttyS0 quiet panic=-1 initcall_debug loglevel=1 nokaslr mitigations=off tsc=unstable"
_INIT = """#!/bin/busybox sh
export PATH=/bin
exec >/dev/ttyS1 2>&1
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
while read number wanted before; do
  for one in $before; do insmod /k/$one 2>/dev/null; done
  dmesg -c >/dev/null
  insmod /k/$wanted >/tmp/said 2>&1
  status=$?
  echo
  echo "@trial $number $status"
  cat /tmp/said
  dmesg -c | grep -v -e 'initcall.*returned 0' -e 'loading out-of-tree' | tail -n 15
  echo "@end"
  again=1
  while [ $again = 1 ]; do
    again=0
    while read name rest; do rmmod $name 2>/dev/null && again=1; done </proc/modules
  done
done </list
echo "@all"
poweroff -f
"""
_TRIAL = re.compile(r"^@trial (\d+) (\d+)\n(.*?)^@end", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Trial:
    """A kmod to load, and what is loaded before it, in that order."""

    kmod: bytes
    before: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Whether the loader took the kmod, and all that insmod and the kernel's log said."""

    loaded: bool
    said: str


def answers(release: str, trials: Sequence[Trial], arguments: str = "") -> list[Answer]:
    """The kernel's answers, in the order of the trials: from one boot, or from the cache where it was asked before."""
    need(_BUSYBOX, Path(_BUSYBOX).exists(), "apt-get install busybox-static")
    kernel = vmlinuz(release)
    archive = _archive(trials)
    asked = hashlib.sha256(archive + kernel.name.encode() + _ARGUMENTS.encode() + arguments.encode()).hexdigest()[:24]
    told = kept(
        f"answers/{release}/{asked}.json", lambda scratch: _boot(kernel, archive, arguments, len(trials), scratch)
    )
    return [Answer(**one) for one in json.loads(told.read_text())]


def _archive(trials: Sequence[Trial]) -> bytes:
    files = {"init": _INIT.encode(), "bin/busybox": Path(_BUSYBOX).read_bytes()}
    lines = []
    for number, trial in enumerate(trials):
        names = []
        for content in (trial.kmod, *trial.before):
            names.append(hashlib.sha256(content).hexdigest()[:16])
            files.setdefault(f"k/{names[-1]}", content)
        lines.append(f"{number} {' '.join(names)}\n")
    return initramfs(files | {"list": "".join(lines).encode()})


def _boot(kernel: Path, archive: bytes, arguments: str, count: int, scratch: Path) -> Path:
    (scratch / "initrd").write_bytes(archive)
    command = [need_tool("qemu-system-x86_64", "apt-get install qemu-system-x86"), "-accel", "tcg", "-m", "1024"]
    command += ["-display", "none", "-no-reboot", "-nic", "none", "-kernel", str(kernel)]
    # What the kernel says by itself goes to the first port, and cannot fall into the answers on the second.
    command += ["-initrd", str(scratch / "initrd"), "-serial", "stdio", "-serial", f"file:{scratch / 'said'}"]
    done = subprocess.run(
        [*command, "-append", f"{_ARGUMENTS} {arguments}"], capture_output=True, timeout=SECONDS, check=False
    )
    log = (scratch / "said").read_text("utf-8", "replace").replace("\r", "")
    told = {int(number): _answer(int(status), said) for number, status, said in _TRIAL.findall(log)}
    if len(told) < count:
        raise RuntimeError(
            f"the kernel answered {len(told)} of {count} questions:\n{log[-4000:]}\n{done.stdout[-4000:]!r}"
        )
    answer = scratch / "answers.json"
    answer.write_text(json.dumps([asdict(told[number]) for number in range(count)]))
    return answer


def _answer(status: int, said: str) -> Answer:
    return Answer(status == 0 or "calling  " in said, said.strip())
