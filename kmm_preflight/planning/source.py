"""Protocol of the objects that bring kmods to nodes. Each kind has a file of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kmm_preflight.model import ModuleName, TargetKernel
from kmm_preflight.planning.plan import Case


@dataclass(frozen=True)
class BootPlacement:
    """The nodes that load a kmod at boot: those of the machine config pools that take a MachineConfig."""

    machine_config: str
    """Name of the MachineConfig."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels of the MachineConfig. A pool selects MachineConfigs by them."""
    pool: str | None = None
    """Name of the pool that the object names, or None."""


@dataclass(frozen=True)
class Spoke:
    """A cluster of a hub on which the hub makes a Module."""

    name: str
    """Name of the ManagedCluster."""
    kernels_today: tuple[str, ...] = ()
    """Kernels that its nodes run today, or an empty tuple if unknown."""


@dataclass(frozen=True)
class SpokePlacement:
    """The nodes that load a kmod are nodes of other clusters."""

    selector: tuple[tuple[str, str], ...] = ()
    """Labels of the ManagedClusters."""
    spokes: tuple[Spoke, ...] | None = None
    """The clusters, or None if they are unknown."""


Placement = BootPlacement | SpokePlacement
"""The nodes of a kind that selects no nodes by labels."""


class KmodSource(Protocol):
    """An object that brings kmods to nodes."""

    @property
    def name(self) -> ModuleName:
        """Kind, namespace and name."""

    @property
    def deleting(self) -> bool:
        """True if the object is being deleted."""

    @property
    def uid(self) -> str | None:
        """The API server's uid. None for a manifest that was never on a server."""

    @property
    def generation(self) -> int:
        """The API server's generation. 0 for a manifest that was never on a server."""

    @property
    def secret(self) -> str | None:
        """Name of the pull secret, in the object's namespace."""

    @property
    def placement(self) -> Placement | None:
        """The nodes that load the kmods. None if labels select nodes of this cluster, as for a Module."""

    @property
    def loads_kmods(self) -> bool:
        """True if nodes load a kmod because of the object."""

    def case_on(self, kernel: TargetKernel, today: tuple[str, ...]) -> Case:
        """Return the plan for a kernel, or why there is none. today has the kernels that the nodes run now."""


def has_case(source: KmodSource) -> bool:
    """True if the object must be checked: it brings kmods and is not being deleted."""
    return not source.deleting and source.loads_kmods
