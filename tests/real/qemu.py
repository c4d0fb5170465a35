"""Real kernels as judges: a vmlinuz boots in QEMU without a network, and loads kmods one after the other."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import foreign, kernels
from .cache import kept
from .initramfs import initramfs
from .kmod import run
from .requirement import need, need_tool

# A boot takes seconds, or minutes on a busy machine.
SECONDS = 300
_JUDGE = Path(__file__).with_name("kmod_source") / "judge.c"
# With initcall_debug the log shows if a kmod's init was reached, so an error after that is the driver's and not the
# loader's. Without no_timer_check the boot sometimes fails on a busy machine.
_ARGUMENTS = "console=ttyS0 quiet panic=-1 initcall_debug nokaslr mitigations=off no_timer_check"
_TRIAL = re.compile(r"^@trial (\d+) (-?\d+)\n(.*?)^@end", re.MULTILINE | re.DOTALL)
_REACHED = re.compile(r"^calling  ", re.MULTILINE)
_NOISE = re.compile(
    r"^(?:initcall .* returned 0 after .*|.*: loading out-of-tree module taints kernel\.|"
    r".*: module verification failed: .*|Disabling lock debugging .*)\n",
    re.MULTILINE,
)


@dataclass(frozen=True)
class _Machine:
    """The virtual machine for an architecture.

    The cache of answers depends on the names of this class and of its fields.
    """

    command: tuple[str, ...]
    """QEMU with its options."""
    package: str
    """Debian package with QEMU."""
    compiler: str
    """Compiler for the architecture."""
    arguments: str
    """Command line of the kernel."""
    answers: tuple[int, int]
    """Device of the port for answers, as major and minor number."""


# On x86_64 the kernel's own messages go to the first port, and the answers to the second. aarch64 has one port, so
# there the kernel prints no messages.
_MACHINES = {
    "amd64": _Machine(
        ("qemu-system-x86_64", "-accel", "tcg", "-serial", "stdio"), "qemu-system-x86", "gcc-12", _ARGUMENTS, (4, 65)
    ),
    "arm64": _Machine(
        ("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57"),
        "qemu-system-arm",
        "aarch64-linux-gnu-gcc-12",
        "console=ttyAMA0 loglevel=0 panic=-1 initcall_debug",
        (204, 64),
    ),
}


@dataclass(frozen=True)
class LoadTrial:
    """A kmod to load."""

    kmod: bytes
    """The kmod."""
    before: tuple[bytes, ...] = ()
    """Kmods to load first, in this order."""


@dataclass(frozen=True)
class Answer:
    """The answer of a kernel to a trial."""

    loaded: bool
    """True if the loader accepted the kmod, even if the kmod's init then failed."""
    errno: str | None
    """Name of the error, or None if the kmod is loaded."""
    log: str
    """The kernel's messages about the kmod."""


def answers(release: str, trials: Sequence[LoadTrial], arch: str = "amd64", arguments: str = "") -> list[Answer]:
    """Return the kernel's answers in the order of the trials, from one boot or from the cache of earlier answers.

    arguments: more words for the kernel's command line.
    """
    machine = _MACHINES[arch]
    if arguments:
        machine = replace(machine, arguments=f"{machine.arguments} {arguments}")
    kernel = kernels.vmlinuz(release) if arch == "amd64" else foreign.vmlinuz(arch)
    archive = _archive(trials, machine)
    key = hashlib.sha256(archive + kernel.name.encode() + repr(machine).encode()).hexdigest()[:24]
    path = kept(f"answers/{release}/{key}.json", lambda scratch: _boot(machine, kernel, archive, len(trials), scratch))
    return [Answer(item["loaded"], item["errno"] or None, item["said"]) for item in json.loads(path.read_text())]


def _archive(trials: Sequence[LoadTrial], machine: _Machine) -> bytes:
    files = {"init": _init_program(machine).read_bytes()}
    lines = []
    for number, trial in enumerate(trials):
        names = []
        for content in (trial.kmod, *trial.before):
            names.append(hashlib.sha256(content).hexdigest()[:16])
            files.setdefault(f"k/{names[-1]}", content)
        lines.append(f"{number} {' '.join(names)}\n")
    return initramfs(files | {"list": "".join(lines).encode()}, {"answers": machine.answers})


def _init_program(machine: _Machine) -> Path:
    """Return the only program of the virtual machine, compiled from its source."""
    version = hashlib.sha256(_JUDGE.read_bytes()).hexdigest()[:12]
    return kept(f"judge-{machine.compiler}-{version}", lambda scratch: _compile(machine.compiler, scratch))


def _compile(name: str, scratch: Path) -> Path:
    compiler = need_tool(name, "apt-get install gcc-12 gcc-12-aarch64-linux-gnu")
    done = run([compiler, "-O2", "-static", "-o", "judge", str(_JUDGE)], scratch)
    enable = f"apt-get install libc6-dev libc6-dev-arm64-cross ({done.stderr[-300:]})"
    need("a C library to link with", done.returncode == 0, enable)
    return scratch / "judge"


def _boot(machine: _Machine, kernel: Path, archive: bytes, count: int, scratch: Path) -> Path:
    (scratch / "initrd").write_bytes(archive)
    command = [need_tool(machine.command[0], f"apt-get install {machine.package}"), *machine.command[1:]]
    command += ["-m", "1024", "-display", "none", "-no-reboot", "-nic", "none", "-kernel", str(kernel)]
    command += ["-initrd", str(scratch / "initrd"), "-serial", f"file:{scratch / 'said'}"]
    done = subprocess.run([*command, "-append", machine.arguments], capture_output=True, timeout=SECONDS, check=False)
    log = (scratch / "said").read_text("utf-8", "replace").replace("\r", "")
    answered = {int(number): _answer(int(code), words) for number, code, words in _TRIAL.findall(log)}
    if len(answered) < count:
        last = done.stdout.decode("utf-8", "replace")[-2000:]
        raise RuntimeError(f"the kernel answered {len(answered)} of {count} trials:\n{log[-2000:]}\n{last}")
    path = scratch / "answers.json"
    items = [_item(answered[number]) for number in range(count)]
    path.write_text(json.dumps(items))
    return path


def _answer(code: int, log: str) -> Answer:
    name = errno.errorcode.get(code, os.strerror(code)) if code else None
    return Answer(code == 0 or bool(_REACHED.search(log)), name, _NOISE.sub("", log).strip())


def _item(answer: Answer) -> dict[str, object]:
    """Return the answer as an object of the JSON file in the cache."""
    return {"loaded": answer.loaded, "errno": answer.errno or "", "said": answer.log}
