"""Trial load of the kmod in a plan's image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from kmm_preflight.errors import PreflightError
from kmm_preflight.kmod.command_line import deciding_arguments, without_enforcement
from kmm_preflight.kmod.names import wanted_key
from kmm_preflight.model import Finding, TargetKernel
from kmm_preflight.oci.image import Image
from kmm_preflight.planning.plan import Plan
from kmm_preflight.release import findings
from kmm_preflight.release.kernel_sources import OwnFile
from kmm_preflight.text import listed
from kmm_preflight.trial import findings as trial_findings
from kmm_preflight.trial.environment import TrialEnvironment
from kmm_preflight.trial.image_folder import image_tree
from kmm_preflight.trial.load import try_load
from kmm_preflight.trial.programs import MissingTool
from kmm_preflight.trial.staging import InTree, Trial
from kmm_preflight.trial.verdict import Subject, unable

VMLINUZ = "vmlinuz"

MakeEnvironment = Callable[[TargetKernel, Callable[[], Path | None], InTree], TrialEnvironment]
"""Returns the environment for a kernel, from its own vmlinuz and its in-tree kmods."""


class KernelFileSource(Protocol):
    """Files of a kernel in its driver toolkit and its OS image."""

    def own_file(self, kernel: TargetKernel, path: str) -> OwnFile | None:
        """Return a file below lib/modules/<kernel>, or None. Raise the errors of reading an image."""

    def own_kmod(self, kernel: TargetKernel, name: str) -> str | None:
        """Return the path of an in-tree kmod below lib/modules/<kernel>, by its name with _ for -."""


class ImageTrials:
    """Runs the trial load of a plan's image."""

    def __init__(
        self, make_environment: MakeEnvironment, files: KernelFileSource, assume_loaded: frozenset[str]
    ) -> None:
        """Take names of in-tree kmods that nodes have loaded, with _ for -, as assume_loaded."""
        self._make_environment, self._files, self._assume_loaded = make_environment, files, assume_loaded

    def __call__(self, plan: Plan, image: Image) -> tuple[Finding, ...]:
        """Return the findings of the trial. With rawArgs the kmod is unknown, so the finding is undecided."""
        kernel = plan.kernel
        if plan.kmod is None:
            missing = MissingTool(
                "rawArgs name the kmod, so its name is not known", "Use moduleName, or leave --trial-load out."
            )
            return (unable(Subject("a kmod", kernel.version), missing),)
        own_files = _OwnFiles(self._files, kernel)
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
            environment = self._make_environment(kernel, lambda: own_files.path(VMLINUZ), own_files.path)
            found = [finding for words in _arguments(plan) for finding in _try(trial, kernel, environment, words)]
            return (*dict.fromkeys(found), *own_files.findings())
        except PreflightError as exc:
            remedy = "Make image, driver toolkit and OS image readable from this machine, or leave --trial-load out."
            return (unable(Subject(plan.kmod, kernel.version), MissingTool(exc.message, remedy)),)


def _try(
    trial: Trial, kernel: TargetKernel, environment: TrialEnvironment, arguments: tuple[str, ...]
) -> tuple[Finding, ...]:
    """Return the findings of a trial with these arguments.

    The virtual machine has no keys that nodes have enrolled. If it refuses the kmod for its key, try without
    enforcement: the proof from files already says that the nodes need the key.
    """
    found = try_load([trial], kernel, environment, arguments)[trial.name]
    weaker = without_enforcement(arguments)
    if found[0].id == trial_findings.TRIAL_KEY_UNKNOWN.id and weaker != arguments:
        return try_load([trial], kernel, environment, weaker)[trial.name]
    return found


def _arguments(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Return the arguments to boot with: those of each group of nodes that decide on kmods, each set once."""
    kmods = [wanted_key(name) for name in (plan.kmod or "", *plan.modules_loading_order)]
    return tuple(dict.fromkeys(deciding_arguments(boot, kmods) for boot in plan.boot_arguments)) or ((),)


class _OwnFiles:
    """Files of one kernel for one trial. It notes which files came from the OS image."""

    def __init__(self, files: KernelFileSource, kernel: TargetKernel) -> None:
        self._files, self._kernel = files, kernel
        self._of_os_image: list[str] = []

    def path(self, path: str) -> Path | None:
        """Return the path of a file on this machine, or None. Raise the errors of reading an image."""
        file = self._files.own_file(self._kernel, path)
        if file is None:
            return None
        self._of_os_image += [path] if file.from_os_image else []
        return file.path

    def findings(self) -> tuple[Finding, ...]:
        """Return a note that names the files of the OS image, if there are any."""
        if not self._of_os_image:
            return ()
        kernel, files = self._kernel, listed(list(dict.fromkeys(self._of_os_image)))
        toolkit, image = kernel.driver_toolkit, kernel.os_image
        return (findings.KERNEL_FILES_OS_IMAGE(kernel=kernel.version, files=files, toolkit=toolkit, image=image),)
