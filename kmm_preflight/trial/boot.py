"""What a trial asks of a virtual machine: to boot a kernel with an initramfs, and to tell what its console said."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Boot:
    """One boot. memory in MiB; arguments go to the kernel's command line.

    ready stands on the console as soon as the init runs, and one of last when nothing more will come.
    """

    vmlinuz: Path
    initramfs: Path
    memory: int
    arguments: str
    ready: str
    last: tuple[str, ...]


class BootEnd(Enum):
    """Why a boot came to its end; the value is for a sentence."""

    TOLD = "the virtual machine reported its end"
    BY_ITSELF = "the virtual machine ended"
    TIME = "the time ran out"
    MUCH = "the output on the console was too long"


@dataclass(frozen=True)
class Console:
    """What came on the console, and what the virtual machine's program itself said; why no more is read."""

    text: str
    end: BootEnd


class VirtualMachine(Protocol):
    """A virtual machine without a network, bounded in time, memory and output; stopped when the call returns."""

    seconds: float
    """After which a boot is stopped."""

    def boot(self, boot: Boot) -> Console:
        """Boots and waits for the end. What cannot be started is told as the console's text."""
        ...
