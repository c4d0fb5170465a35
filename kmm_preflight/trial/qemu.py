"""QEMU of this machine as the virtual machine. No other file of this room starts a program."""

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
# In some virtual machines, KVM exists and does not work: a boot never prints a line.
_KVM_SECONDS = 8.0
_KVM = "/dev/kvm"
_READ_BYTES = 1 << 16
_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)
_SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny")
_BARE = ("-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-monitor", "none", "-no-reboot")


@dataclass(frozen=True)
class _Kind:
    """QEMU for an architecture."""

    program: str
    """Name of the program."""
    package: str
    """Name of Debian's package."""
    options: tuple[str, ...]
    """Options for machine and CPU."""
    console: str
    """Device of the serial console."""
    arguments: str = ""
    """Further arguments of the kernel."""


# Both accelerators have this CPU, and it runs the programs of current distributions. The timer check of x86 sometimes
# fails on a busy machine.
_KINDS = {
    "amd64": _Kind("qemu-system-x86_64", "qemu-system-x86", ("-M", "q35", "-cpu", "max"), "ttyS0", "no_timer_check"),
    "arm64": _Kind("qemu-system-aarch64", "qemu-system-arm", ("-M", "virt,gic-version=max", "-cpu", "max"), "ttyAMA0"),
    "ppc64le": _Kind("qemu-system-ppc64", "qemu-system-ppc", ("-M", "pseries"), "hvc0"),
    "s390x": _Kind("qemu-system-s390x", "qemu-system-s390x", ("-M", "s390-ccw-virtio", "-cpu", "max"), "ttysclp0"),
}


def find_qemu(arch: str, path: str, seconds: float, kvm: bool = True) -> Qemu | MissingTool:
    """Find QEMU for an architecture on a PATH or in RHEL's folder, or return what is missing."""
    kind, own = _KINDS[arch], architecture(os.uname().machine) == arch
    names = [kind.program, *(["qemu-kvm", "/usr/libexec/qemu-kvm"] if own else [])]
    program = next((file for name in names if (file := shutil.which(name, path=path))), None)
    if program is None:
        remedy = f"Install QEMU for {arch}: `apt-get install {kind.package}`, `dnf install qemu-kvm` or the like."
        return MissingTool(f"no {kind.program} in PATH", remedy)
    return Qemu(program, arch, seconds, kvm and own and os.access(_KVM, os.R_OK | os.W_OK))


class Qemu:
    """Virtual machine that is one process of QEMU. It remembers for later boots what does not work here."""

    def __init__(self, program: str, arch: str, seconds: float, kvm: bool) -> None:
        self.seconds = seconds
        self._program, self._kind = program, _KINDS[arch]
        self._kvm, self._sandbox = kvm, True

    def boot(self, boot: Boot) -> Console:
        """Boot and wait for the end. If a boot fails with KVM or in QEMU's sandbox, boot again without it."""
        deadline = time.monotonic() + self.seconds
        while True:
            patience = _KVM_SECONDS if self._kvm else self.seconds
            console = self._run(boot, deadline, min(deadline, time.monotonic() + patience))
            if boot.ready in console.text or time.monotonic() >= deadline:
                return console
            if self._sandbox and "sandbox" in console.text:
                self._sandbox = False  # this QEMU is built without a sandbox
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
            return Console(f"{self._program}: {exc.strerror}", BootEnd.MACHINE_ENDED)
        assert process.stdout is not None
        try:
            return _follow(process.stdout.fileno(), boot, deadline, ready_by)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with all processes that it started
            process.wait()
            process.stdout.close()


def _follow(descriptor: int, boot: Boot, deadline: float, ready_by: float) -> Console:
    """Read until one of the boot's last texts, the end of the process, or a limit."""
    output = bytearray()
    ready, last = boot.ready.encode(), [mark.encode() for mark in boot.last]
    end, is_ready, searched = BootEnd.TIMEOUT, False, 0
    while (left := (deadline if is_ready else ready_by) - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            continue
        piece = os.read(descriptor, _READ_BYTES)
        if not piece:
            end = BootEnd.MACHINE_ENDED
            break
        output += piece
        if len(output) > CONSOLE_BYTES:
            end = BootEnd.TOO_MUCH_OUTPUT
            break
        is_ready = is_ready or ready in output
        if _has(output, last, searched):
            end = BootEnd.COMPLETE
            break
        searched = max(0, len(output) - 256)
    return Console(bytes(output[:CONSOLE_BYTES]).decode("utf-8", "replace"), end)


def _has(output: bytearray, marks: Sequence[bytes], start: int) -> bool:
    return any(output.find(mark, start) >= 0 for mark in marks)


def _end_with_parent() -> None:
    """Make the kernel end QEMU together with the worker. This runs between fork and exec."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
