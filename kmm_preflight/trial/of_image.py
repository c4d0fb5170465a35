"""A trial of what an image holds for a plan, beside the proof from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from kmm_preflight.errors import PreflightError
from kmm_preflight.model import Finding, TargetKernel
from kmm_preflight.oci.image import Image
from kmm_preflight.planning.plan import Plan
from kmm_preflight.release import findings
from kmm_preflight.release.kernel_sources import OwnFile
from kmm_preflight.text import listed
from kmm_preflight.trial.environment import TrialEnvironment
from kmm_preflight.trial.folder import image_tree
from kmm_preflight.trial.load import try_load
from kmm_preflight.trial.programs import MissingTool
from kmm_preflight.trial.staging import InTree, Trial
from kmm_preflight.trial.verdict import Subject, unable

VMLINUZ = "vmlinuz"

Bed = Callable[[TargetKernel, Callable[[], Path | None], InTree], TrialEnvironment]
"""Makes a testbed of a kernel, its own vmlinuz, and in-tree kmods by paths below lib/modules/<kernel>."""


class OwnFiles(Protocol):
    """A kernel's files as its driver toolkit and the OS image have them."""

    def own_file(self, kernel: TargetKernel, path: str) -> OwnFile | None:
        """A file below lib/modules/<kernel>, None where there is none; raises as errors.py says."""

    def own_kmod(self, kernel: TargetKernel, name: str) -> str | None:
        """The path there of an in-tree kmod, by its name with _ for -."""


class Trials:
    """Makes trials; assume_loaded are in-tree kmods that nodes have, with _ for -."""

    def __init__(self, bed: Bed, files: OwnFiles, assume_loaded: frozenset[str]) -> None:
        self._bed, self._files, self._assume_loaded = bed, files, assume_loaded

    def __call__(self, plan: Plan, image: Image) -> tuple[Finding, ...]:
        """What the kernel itself says of the plan's kmod in the image; with rawArgs no trial can be made."""
        kernel = plan.kernel
        if plan.kmod is None:
            lacking = MissingTool(
                "rawArgs name the kmod, so its name is not known", "Use moduleName, or leave --trial-load out."
            )
            return (unable(Subject("a kmod", kernel.version), lacking),)
        own = _Own(self._files, kernel)
        try:
            trial = Trial(
                name=plan.id,
                kmod=plan.kmod,
                directory=plan.directory,
                tree=image_tree(image, plan.folder),
                options=plan.load_options,
                parameters=plan.parameters,
                order=plan.modules_loading_order,
                loaded=tuple(self._files.own_kmod(kernel, name) or name for name in sorted(self._assume_loaded)),
            )
            bed = self._bed(kernel, lambda: own(VMLINUZ), own)
            return (*try_load([trial], kernel, bed)[trial.name], *own.told())
        except PreflightError as exc:
            remedy = (
                "See to it that image, driver toolkit and OS image can be read from here, or leave --trial-load out."
            )
            return (unable(Subject(plan.kmod, kernel.version), MissingTool(exc.message, remedy)),)


class _Own:
    """A kernel's own files for one trial; remembers which of them the driver toolkit lacks."""

    def __init__(self, files: OwnFiles, kernel: TargetKernel) -> None:
        self._files, self._kernel = files, kernel
        self._of_os_image: list[str] = []

    def __call__(self, path: str) -> Path | None:
        """The file, None where there is none; raises what reading an image raises."""
        file = self._files.own_file(self._kernel, path)
        if file is None:
            return None
        self._of_os_image += [path] if file.from_os_image else []
        return file.path

    def told(self) -> tuple[Finding, ...]:
        """Which were not the toolkit's."""
        if not self._of_os_image:
            return ()
        kernel, files = self._kernel, listed(list(dict.fromkeys(self._of_os_image)))
        toolkit, image = kernel.driver_toolkit, kernel.os_image
        return (findings.KERNEL_FILES_OS_IMAGE(kernel=kernel.version, files=files, toolkit=toolkit, image=image),)
