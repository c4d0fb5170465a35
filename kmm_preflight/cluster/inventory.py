"""What a cluster, or manifests in its stead, hold of what concerns a preflight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kmm_preflight.model import Manifest
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.planning.module import Module, RefusedModule

Key = tuple[str, str]
"""Namespace and name."""

PULL_SECRET: Key = ("openshift-config", "pull-secret")
"""The Secret that every node pulls with."""

NODE_ACCOUNT = "default"
"""The ServiceAccount whose imagePullSecrets a Pod of KMM pulls with where a Module names no Secret."""

BUILD_ACCOUNT = "builder"
"""The one with whose Secrets a build of KMM pulls and pushes there."""


@dataclass(frozen=True)
class Inventory:
    """Modules and refused ones in order of namespace and name; what serves them by namespace and name.

    mirrors are IDMS, ITMS and ICSP objects; image_config and proxy the image.config.openshift.io and the
    proxy.config.openshift.io named cluster; fleet is what was read of nodes and pools, None where nothing was. source
    names what was read, for messages; assumed what could not be read, and what was taken instead. live says that a
    cluster answered: a Secret or ServiceAccount that a Module names and that is not here does not exist.
    """

    modules: tuple[Module, ...] = ()
    config_maps: Mapping[Key, Manifest] = field(default_factory=dict)
    secrets: Mapping[Key, Manifest] = field(default_factory=dict, repr=False)
    service_accounts: Mapping[Key, Manifest] = field(default_factory=dict)
    mirrors: tuple[Manifest, ...] = ()
    image_config: Manifest | None = None
    proxy: Manifest | None = field(default=None, repr=False)
    fleet: Fleet | None = None
    refused: tuple[RefusedModule, ...] = ()
    source: str = "the manifests"
    assumed: tuple[str, ...] = ()
    live: bool = False

    def every(self) -> list[Module | RefusedModule]:
        """Modules and refused ones in one order."""
        every: list[Module | RefusedModule] = [*self.modules, *self.refused]
        return sorted(every, key=lambda module: module.name)
