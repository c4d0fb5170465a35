"""Boot of a virtual machine: a kernel with an initramfs, and the console output that results."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Boot:
    """Boot of a kernel in a virtual machine."""

    vmlinuz: Path
    """Kernel to boot."""
    initramfs: Path
    """Archive with the init script, programs and kmods."""
    memory: int
    """Memory of the machine in MiB."""
    arguments: str
    """Kernel command line."""
    ready: str
    """Text on the console as soon as the init script runs."""
    last: tuple[str, ...]
    """Texts after which no more output follows: the boot is stopped at the first one."""


class BootEnd(Enum):
    """Reason for the end of a boot; the value is a part of a sentence."""

    COMPLETE = "the virtual machine reported its end"
    MACHINE_ENDED = "the virtual machine ended"
    TIMEOUT = "the time ran out"
    TOO_MUCH_OUTPUT = "the output on the console was too long"


@dataclass(frozen=True)
class Console:
    """Output of one boot."""

    text: str
    """Text of the console and of the virtual machine's program."""
    end: BootEnd
    """Reason for the end of the boot."""


class VirtualMachine(Protocol):
    """Virtual machine without a network, limited in time, memory and output. It is stopped when a boot returns."""

    seconds: float
    """Time limit of one boot."""

    def boot(self, boot: Boot) -> Console:
        """Boot and wait for the end. If the program cannot be started, return the error as the console's text."""
        ...
