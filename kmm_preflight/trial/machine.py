"""QEMU of this machine as the virtual machine; the only file of this room that starts a program."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from kmm_preflight.kernel_version import architecture
from kmm_preflight.trial.boot import Boot, BootEnd, Console
from kmm_preflight.trial.programs import MissingTool

CONSOLE_BYTES = 4 << 20
# KVM that is there and does not work, as in some virtual machines, says nothing for ever.
_KVM_SECONDS = 8.0
_KVM = "/dev/kvm"
_READ_BYTES = 1 << 16
_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)
_SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny")
_BARE = ("-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-monitor", "none", "-no-reboot")


@dataclass(frozen=True)
class _Kind:
    """How QEMU is called for an architecture, where its console is, and what the kernel there wants besides."""

    program: str
    package: str
    options: tuple[str, ...]
    console: str
    arguments: str = ""


# The CPU is one that both accelerators have, and that runs the programs of current distributions. x86's timer check
# fails now and then where QEMU gets little time.
_KINDS = {
    "amd64": _Kind("qemu-system-x86_64", "qemu-system-x86", ("-M", "q35", "-cpu", "max"), "ttyS0", "no_timer_check"),
    "arm64": _Kind("qemu-system-aarch64", "qemu-system-arm", ("-M", "virt,gic-version=max", "-cpu", "max"), "ttyAMA0"),
    "ppc64le": _Kind("qemu-system-ppc64", "qemu-system-ppc", ("-M", "pseries"), "hvc0"),
    "s390x": _Kind("qemu-system-s390x", "qemu-system-s390x", ("-M", "s390-ccw-virtio", "-cpu", "max"), "ttysclp0"),
}


def find_qemu(arch: str, path: str, seconds: float, kvm: bool = True) -> Qemu | MissingTool:
    """QEMU for an architecture, on a PATH or where RHEL has it, or what is missing; kvm: where it can be used."""
    kind, own = _KINDS[arch], architecture(os.uname().machine) == arch
    names = [kind.program, *(["qemu-kvm", "/usr/libexec/qemu-kvm"] if own else [])]
    program = next((found for name in names if (found := shutil.which(name, path=path))), None)
    if program is None:
        remedy = f"Install QEMU for {arch}: `apt-get install {kind.package}`, `dnf install qemu-kvm` or the like."
        return MissingTool(f"no {kind.program} in PATH", remedy)
    return Qemu(program, arch, seconds, kvm and own and os.access(_KVM, os.R_OK | os.W_OK))


class Qemu:
    """See Machine. It remembers what does not work here, for the boots to come."""

    def __init__(self, program: str, arch: str, seconds: float, kvm: bool) -> None:
        self.seconds = seconds
        self._program, self._kind = program, _KINDS[arch]
        self._kvm, self._sandbox = kvm, True

    def boot(self, boot: Boot) -> Console:
        """See Machine. A boot that comes to nothing with KVM, or in a sandbox, is made again without."""
        deadline = time.monotonic() + self.seconds
        while True:
            patience = _KVM_SECONDS if self._kvm else self.seconds
            console = self._run(boot, deadline, min(deadline, time.monotonic() + patience))
            if boot.ready in console.text or time.monotonic() >= deadline:
                return console
            if self._sandbox and "sandbox" in console.text:
                self._sandbox = False  # a QEMU that is built without
            elif self._kvm:
                self._kvm = False
            else:
                return console

    def _command(self, boot: Boot) -> list[str]:
        arguments = f"console={self._kind.console} {self._kind.arguments} {boot.arguments}"
        accelerators = ("kvm", "tcg") if self._kvm else ("tcg",)
        return [
            self._program,
            *self._kind.options,
            *(word for name in accelerators for word in ("-accel", name)),
            *_BARE,
            *(_SANDBOX if self._sandbox else ()),
            *("-serial", "stdio", "-smp", "1", "-m", f"{boot.memory}M"),
            *("-kernel", str(boot.vmlinuz), "-initrd", str(boot.initramfs), "-append", arguments),
        ]

    def _run(self, boot: Boot, deadline: float, ready_by: float) -> Console:
        try:
            process = subprocess.Popen(
                self._command(boot),
                cwd=boot.initramfs.parent,
                env={"PATH": os.defpath, "HOME": str(boot.initramfs.parent), "TMPDIR": str(boot.initramfs.parent)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        except OSError as exc:
            return Console(f"{self._program}: {exc.strerror}", BootEnd.BY_ITSELF)
        assert process.stdout is not None
        try:
            return _follow(process.stdout.fileno(), boot, deadline, ready_by)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with all that came of it
            process.wait()
            process.stdout.close()


def _follow(descriptor: int, boot: Boot, deadline: float, ready_by: float) -> Console:
    """Reads until one of the boot's last words, or a bound."""
    got = bytearray()
    ready, last = boot.ready.encode(), [mark.encode() for mark in boot.last]
    end, is_ready, looked = BootEnd.TIME, False, 0
    while (left := (deadline if is_ready else ready_by) - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            continue
        piece = os.read(descriptor, _READ_BYTES)
        if not piece:
            end = BootEnd.BY_ITSELF
            break
        got += piece
        if len(got) > CONSOLE_BYTES:
            end = BootEnd.MUCH
            break
        is_ready = is_ready or ready in got
        if _has(got, last, looked):
            end = BootEnd.TOLD
            break
        looked = max(0, len(got) - 256)
    return Console(bytes(got[:CONSOLE_BYTES]).decode("utf-8", "replace"), end)


def _has(got: bytearray, marks: Sequence[bytes], start: int) -> bool:
    return any(got.find(mark, start) >= 0 for mark in marks)


def _end_with_parent() -> None:
    """Between fork and exec: a worker that is killed leaves no virtual machine behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
