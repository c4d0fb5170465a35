"""The kernel itself as the judge: its vmlinuz boots in QEMU, without a network, and loads kmods one after the other."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from . import foreign, kernels
from .cache import kept
from .initramfs import initramfs
from .kmod import run
from .requirement import need, need_tool

# A boot takes seconds; on a machine that does much else it takes minutes.
SECONDS = 300
_JUDGE = Path(__file__).with_name("kmod_source") / "judge.c"
# initcall_debug: whether a kmod's init was reached tells the loader's refusal from the driver's own. The timer check
# fails now and then where QEMU gets little time.
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
    """How QEMU is called for an architecture, who compiles for it, the port for answers by major and minor."""

    command: tuple[str, ...]
    package: str
    compiler: str
    arguments: str
    answers: tuple[int, int]


# On x86_64 what the kernel says by itself goes to the first port, and cannot fall into the answers on the second; on
# aarch64 there is one port, and the kernel is told to be quiet.
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
class Trial:
    """A kmod to load, and what is loaded before it, in that order."""

    kmod: bytes
    before: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Whether the loader took the kmod, the errno's name ("" for none), and what the kernel's log said."""

    loaded: bool
    errno: str
    said: str


def answers(release: str, trials: Sequence[Trial], arch: str = "amd64") -> list[Answer]:
    """The kernel's answers, in the order of the trials: from one boot, or from the cache where it was asked before."""
    machine = _MACHINES[arch]
    kernel = kernels.vmlinuz(release) if arch == "amd64" else foreign.vmlinuz(arch)
    archive = _archive(trials, machine)
    asked = hashlib.sha256(archive + kernel.name.encode() + repr(machine).encode()).hexdigest()[:24]
    path = kept(
        f"answers/{release}/{asked}.json", lambda scratch: _boot(machine, kernel, archive, len(trials), scratch)
    )
    return [Answer(**one) for one in json.loads(path.read_text())]


def _archive(trials: Sequence[Trial], machine: _Machine) -> bytes:
    files = {"init": _judge(machine).read_bytes()}
    lines = []
    for number, trial in enumerate(trials):
        names = []
        for content in (trial.kmod, *trial.before):
            names.append(hashlib.sha256(content).hexdigest()[:16])
            files.setdefault(f"k/{names[-1]}", content)
        lines.append(f"{number} {' '.join(names)}\n")
    return initramfs(files | {"list": "".join(lines).encode()}, {"answers": machine.answers})


def _judge(machine: _Machine) -> Path:
    """The only program in the VM, from its source."""
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
    told = {int(number): _answer(int(code), said) for number, code, said in _TRIAL.findall(log)}
    if len(told) < count:
        last = done.stdout.decode("utf-8", "replace")[-2000:]
        raise RuntimeError(f"the kernel answered {len(told)} of {count} questions:\n{log[-2000:]}\n{last}")
    answer = scratch / "answers.json"
    answer.write_text(json.dumps([asdict(told[number]) for number in range(count)]))
    return answer


def _answer(code: int, said: str) -> Answer:
    name = errno.errorcode.get(code, os.strerror(code)) if code else ""
    return Answer(code == 0 or bool(_REACHED.search(said)), name, _NOISE.sub("", said).strip())
