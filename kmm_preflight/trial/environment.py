"""With what trials are made: the kernel, the virtual machine, the programs in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kmm_preflight.trial.boot import VirtualMachine
from kmm_preflight.trial.image_release import release_of
from kmm_preflight.trial.initramfs import Entry
from kmm_preflight.trial.programs import MissingTool
from kmm_preflight.trial.staging import InTree


@dataclass(frozen=True)
class TrialEnvironment:
    """With what trials are made on one target kernel; each part is asked for once, and may be lacking.

    folder is the run's own, in which an initramfs stands while it is used. enforced: also with module.sig_enforce=1.
    """

    __test__ = False

    vmlinuz: Callable[[], Path | MissingTool]
    machine: Callable[[], VirtualMachine | MissingTool]
    programs: Callable[[], Mapping[str, Entry] | MissingTool]
    in_tree: InTree
    folder: Path
    enforced: bool = False


@dataclass(frozen=True)
class BootKit:
    """What every trial on a kernel needs."""

    vmlinuz: Path
    machine: VirtualMachine
    programs: Mapping[str, Entry]


def equip(bed: TrialEnvironment, kernel: str) -> BootKit | MissingTool:
    """All of it, or the first that is lacking; asked in the order of what it costs to get."""
    machine = bed.machine()
    if isinstance(machine, MissingTool):
        return machine
    programs = bed.programs()
    if isinstance(programs, MissingTool):
        return programs
    vmlinuz = bed.vmlinuz()
    if isinstance(vmlinuz, MissingTool):
        return vmlinuz
    release = release_of(vmlinuz)
    return BootKit(vmlinuz, machine, programs) if release in ("", kernel) else other_kernel(release, kernel)


def other_kernel(got: str, wanted: str) -> MissingTool:
    """A kernel that is there, and not the one that is asked."""
    return MissingTool(f"a vmlinuz of {got}", f"Name the vmlinuz of {wanted} with --vmlinuz.")


def chosen_vmlinuz(files: Iterable[Path], kernel: str) -> Path | MissingTool:
    """Of several files the one of this kernel: by what it says of itself, else the first that says nothing."""
    releases = {path: release_of(path) for path in files}
    for wanted in (kernel, ""):
        if found := next((path for path, release in releases.items() if release == wanted), None):
            return found
    if releases:
        return other_kernel(", ".join(releases.values()), kernel)
    return MissingTool("no vmlinuz", f"Name the vmlinuz of {kernel} with --vmlinuz.")
