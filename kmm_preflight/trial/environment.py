"""Environment of trials: the kernel, the virtual machine, and the programs in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kmm_preflight.trial.boot import VirtualMachine
from kmm_preflight.trial.initramfs import Entry
from kmm_preflight.trial.programs import MissingTool
from kmm_preflight.trial.staging import InTree
from kmm_preflight.trial.vmlinuz import other_kernel, release_of


@dataclass(frozen=True)
class TrialEnvironment:
    """Sources of what trials on one target kernel need. Each source is called once."""

    __test__ = False  # pytest: not a test class

    vmlinuz: Callable[[], Path | MissingTool]
    """Returns the kernel file to boot."""
    machine: Callable[[], VirtualMachine | MissingTool]
    """Returns the virtual machine."""
    programs: Callable[[], Mapping[str, Entry] | MissingTool]
    """Returns the programs for the initramfs."""
    in_tree: InTree
    """Returns an in-tree kmod's file."""
    folder: Path
    """Private folder of the run; an initramfs is there during a boot."""
    enforced: bool = False
    """True if each kmod is also loaded with module.sig_enforce=1."""


@dataclass(frozen=True)
class BootKit:
    """Parts that every trial on a kernel needs."""

    vmlinuz: Path
    """Kernel file to boot."""
    machine: VirtualMachine
    """Virtual machine."""
    programs: Mapping[str, Entry]
    """Programs for the initramfs."""


def get_boot_kit(environment: TrialEnvironment, kernel: str) -> BootKit | MissingTool:
    """Return all parts, or the first that is missing. Get cheap parts first."""
    machine = environment.machine()
    if isinstance(machine, MissingTool):
        return machine
    programs = environment.programs()
    if isinstance(programs, MissingTool):
        return programs
    vmlinuz = environment.vmlinuz()
    if isinstance(vmlinuz, MissingTool):
        return vmlinuz
    release = release_of(vmlinuz)
    if release and release != kernel:
        return other_kernel(release, kernel)
    return BootKit(vmlinuz, machine, programs)


def trial_words(enforced: bool) -> str:
    """Return how kmods are tried, for reports and for the record on the preflight object."""
    also = ", also with module.sig_enforce=1" if enforced else ""
    return f"tried in a virtual machine{also}"
