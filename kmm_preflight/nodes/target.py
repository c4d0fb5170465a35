"""A target kernel of a Module, with the nodes that will boot it."""

from __future__ import annotations

from dataclasses import dataclass

from kmm_preflight.model import BootArguments, Finding, TargetKernel
from kmm_preflight.nodes.versions import OtherVersion


@dataclass(frozen=True)
class Target:
    """A target kernel of a Module."""

    kernel: TargetKernel
    """The kernel."""
    nodes: tuple[str, ...] = ()
    """The nodes that will boot the kernel, in words: one text for each pool."""
    node_names: tuple[str, ...] = ()
    """Names of the nodes, in alphabetical order."""
    boot_arguments: tuple[BootArguments, ...] = ()
    """Boot arguments of the nodes, each different set once."""
    kernels_today: tuple[str, ...] = ()
    """Kernels that the nodes run today, in alphabetical order."""
    notes: tuple[Finding, ...] = ()
    """Findings about the nodes."""
    unresolved: Finding | None = None
    """The finding if the kernel is unknown or not in the release, or if no image is to be checked, else None."""
    version: OtherVersion | None = None
    """The version of the Module that the nodes keep, if another one than the Module's."""
