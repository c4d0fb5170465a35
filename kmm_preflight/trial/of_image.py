"""A trial of what an image holds for a plan, beside the proof from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from kmm_preflight.errors import PreflightError
from kmm_preflight.model import Finding, Plan, TargetKernel
from kmm_preflight.oci.image import Image
from kmm_preflight.trial.conclusion import Tried, unable
from kmm_preflight.trial.folder import image_tree
from kmm_preflight.trial.layout import InTree, Trial
from kmm_preflight.trial.load import try_load
from kmm_preflight.trial.programs import Lacking
from kmm_preflight.trial.testbed import Testbed

Bed = Callable[[TargetKernel, Callable[[], Path | None], InTree], Testbed]
"""Makes a testbed of a kernel, its toolkit's vmlinuz, and in-tree kmods by paths below lib/modules/<kernel>."""


class OwnFiles(Protocol):
    """A kernel's files as its driver toolkit has them."""

    def own_file(self, kernel: TargetKernel, path: str) -> Path | None:
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
            lacking = Lacking("no name of a kmod, since rawArgs say it", "Use moduleName, or leave --trial-load out.")
            return (unable(Tried("a kmod", kernel.version), lacking),)
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
            bed = self._bed(
                kernel,
                lambda: self._files.own_file(kernel, "vmlinuz"),
                lambda path: self._files.own_file(kernel, path),
            )
            return try_load([trial], kernel, bed)[trial.name]
        except PreflightError as exc:
            remedy = "See to it that image and driver toolkit can be read from here, or leave --trial-load out."
            return (unable(Tried(plan.kmod, kernel.version), Lacking(exc.message, remedy)),)
