"""Table of the kinds that bring kmods beside Module: one row for each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kmm_preflight.model import Manifest
from kmm_preflight.planning import boot_module_config, managed_cluster_module
from kmm_preflight.planning.module import GROUP, VERSION
from kmm_preflight.planning.source import KmodSource

HUB_GROUP = "hub.kmm.sigs.x-k8s.io"
"""The API group of KMM on a hub."""


@dataclass(frozen=True)
class SourceKind:
    """A kind whose objects bring kmods."""

    kind: str
    """The kind."""
    group: str
    """The API group."""
    version: str
    """The version of the group."""
    plural: str
    """The name of the resource in URLs."""
    namespaced: bool
    """True if its objects are in namespaces."""
    parse: Callable[[Manifest, str], KmodSource]
    """Returns the object of a manifest, with a namespace for manifests that have none. Raises Malformed."""

    @property
    def api_version(self) -> str:
        """The apiVersion of manifests."""
        return f"{self.group}/{self.version}"


SOURCE_KINDS = (
    SourceKind(
        boot_module_config.KIND,
        GROUP,
        VERSION,
        "bootmoduleconfigs",
        namespaced=True,
        parse=boot_module_config.parse_boot_module_config,
    ),
    SourceKind(
        managed_cluster_module.KIND,
        HUB_GROUP,
        VERSION,
        "managedclustermodules",
        namespaced=False,
        parse=managed_cluster_module.parse_managed_cluster_module,
    ),
)
"""The kinds. MachineConfigs are read with the pools: planning/day1_machine_config.py."""
