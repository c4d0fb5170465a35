"""The subject of each check of the loader: one kmod and one kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.kmod.resolution import OtherKmods
from kmm_preflight.model import Finding


@dataclass(frozen=True)
class LoadCase:
    """A kmod that is to be loaded into a kernel."""

    name: str
    """The kmod's name in findings."""
    kmod: KernelObject
    """The kmod as this kernel reads it."""
    kernel: KernelFiles
    """The kernel."""
    others: OtherKmods
    """Kmods that are loaded before it, or that are not."""

    def is_on(self, option: str, unknown: bool) -> bool:
        """Return whether the kernel has the option built in. Without its .config return unknown."""
        return unknown if self.kernel.configuration is None else self.kernel.configuration.on(option)


@dataclass(frozen=True)
class MissingInput:
    """A file of the kernel that a check needs and that was not found."""

    file: str
    """The file for a sentence, such as .config."""


CheckResults = Iterator[Finding | MissingInput]
"""Results of a check, in the order of the kernel's own messages."""
