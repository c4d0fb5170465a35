"""Kmods that a node loads at boot, before kubelet runs: the image's name and the plan (docs/reference/kmm.md 20)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kmm_preflight.errors import Malformed
from kmm_preflight.model import Finding, ModuleName, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning import findings
from kmm_preflight.planning.plan import Case, Plan, Unresolved
from kmm_preflight.planning.source import BootPlacement

_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


@dataclass(frozen=True)
class BootTimeKmod:
    """An object whose kmod is loaded by a unit of systemd at boot."""

    name: ModuleName
    """Kind, namespace and name."""
    image: str
    """Name of the image."""
    kmod: str
    """Name of the kmod."""
    placement: BootPlacement
    """The nodes that load the kmod."""
    appends_kernel: bool = True
    """True if the node appends a colon and its kernel to the name of the image."""
    image_field: str = "kernelModuleImage"
    """The field with the name of the image, for messages."""
    in_tree_modules_to_remove: tuple[str, ...] = ()
    """Names of in-tree kmods that the node unloads first."""
    firmware_path: str | None = None
    """Folder of the image with firmware for the node."""
    worker_image: str | None = None
    """Image of KMM's worker, which the node pulls too. None if KMM's operator chooses the image."""
    deleting: bool = False
    """True if the object is being deleted."""
    uid: str | None = None
    """The API server's uid. None for a manifest that was never on a server."""
    generation: int = 0
    """The API server's generation. 0 for a manifest that was never on a server."""

    @property
    def secret(self) -> str | None:
        """No Secret: at boot there is none."""
        return None

    @property
    def loads_kmods(self) -> bool:
        """True: the object has no other purpose."""
        return True

    def case_on(self, kernel: TargetKernel, today: tuple[str, ...]) -> Case:
        """Return the plan for a kernel, or why its image cannot exist. A problem of the kernel itself comes first."""
        del today
        if kernel.problem:
            return Unresolved(self.name, kernel, kernel.problem)
        name = f"{self.image}:{kernel.version}" if self.appends_kernel else self.image
        if problem := self._impossible(kernel.version):
            return Unresolved(self.name, kernel, problem, image_name=name)
        try:
            image = Reference.parse(name)
        except Malformed as exc:
            return Unresolved(self.name, kernel, findings.IMAGE_NAME_INVALID(problem=exc.message), image_name=name)
        return Plan(
            module=self.name,
            kernel=kernel,
            image=image,
            kmod=self.kmod,
            in_tree_modules_to_remove=self.in_tree_modules_to_remove,
            firmware_path=self.firmware_path,
            at_boot=True,
        )

    def _impossible(self, kernel: str) -> Finding | None:
        """Return the finding if no registry can have the image."""
        if not self.appends_kernel:
            return None
        last = self.image.rpartition("/")[2]
        if ":" in last or "@" in last:
            return findings.BOOT_IMAGE_TAGGED(field=self.image_field, image=self.image, kernel=kernel)
        if not _TAG.fullmatch(kernel):
            return findings.BOOT_TAG_IMPOSSIBLE(kernel=kernel, kind=self.name.kind)
        return None
