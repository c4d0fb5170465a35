"""With what trials are made: the kernel, the virtual machine, the programs in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kmm_preflight.model import TargetKernel
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
    """Report that the vmlinuz files are of other kernels."""
    return MissingTool(f"the vmlinuz is for {got}", f"Name the vmlinuz of {wanted} with --vmlinuz.")


def find_vmlinuz(files: Iterable[Path], kernel: TargetKernel, own: Callable[[], Path | None]) -> Path | MissingTool:
    """Return the file to boot: the one of --vmlinuz for this kernel, else the kernel's own.

    own returns the vmlinuz of the driver toolkit or the OS image. It is called only if no given file matches.
    """
    chosen = chosen_vmlinuz(files, kernel.version)
    if isinstance(chosen, Path):
        return chosen
    return own() or replace(chosen, remedy=f"{chosen.remedy}{_searched_images(kernel)}")


def _searched_images(kernel: TargetKernel) -> str:
    images = {"driver toolkit": kernel.driver_toolkit, "OS image": kernel.os_image}
    searched = " and the ".join(name for name, image in images.items() if image)
    return f" lib/modules/{kernel.version} of the {searched} has no vmlinuz." if searched else ""


def chosen_vmlinuz(files: Iterable[Path], kernel: str) -> Path | MissingTool:
    """Return the file that names this kernel, else the first that names no kernel."""
    releases = {path: release_of(path) for path in files}
    for release in (kernel, ""):
        if file := next((path for path, known in releases.items() if known == release), None):
            return file
    if releases:
        return other_kernel(", ".join(releases.values()), kernel)
    return MissingTool("no vmlinuz", f"Name the vmlinuz of {kernel} with --vmlinuz.")


def trial_words(enforced: bool) -> str:
    """Return how kmods are tried, for reports and for the record on the preflight object."""
    also = ", also with module.sig_enforce=1" if enforced else ""
    return f"tried in a virtual machine{also}"
