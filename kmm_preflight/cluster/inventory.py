"""The objects that a run reads, from a cluster or from manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kmm_preflight.model import Manifest, NotJudged
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.planning.managed_cluster_module import ManagedClusterModule
from kmm_preflight.planning.module import Module, RefusedModule
from kmm_preflight.planning.source import KmodSource, has_case

Key = tuple[str, str]
"""Namespace and name of an object. The namespace of a cluster-wide object is an empty text."""

PULL_SECRET: Key = ("openshift-config", "pull-secret")
"""The Secret with which every node pulls."""

NODE_ACCOUNT = "default"
"""The ServiceAccount of KMM's Pods: its imagePullSecrets pull images of Modules that name no Secret."""

OPERATOR_ACCOUNT = "kmm-operator-module-loader"
"""The ServiceAccount of KMM's Pods in the namespace of KMM's operator (docs/reference/kmm.md 12.1)."""

OPERATOR_NAMESPACES = frozenset({"openshift-kmm", "kmm-operator-system"})
"""Namespaces into which KMM's operator is installed by default."""

BUILD_ACCOUNT = "builder"
"""The ServiceAccount of KMM's builds: its Secrets pull and push images of Modules that name no Secret."""


@dataclass(frozen=True)
class Inventory:
    """The objects that a run reads."""

    modules: tuple[Module, ...] = ()
    """Modules, by namespace and name."""
    other_sources: tuple[KmodSource, ...] = ()
    """Objects of other kinds that bring kmods, by name."""
    config_maps: Mapping[Key, Manifest] = field(default_factory=dict)
    """ConfigMaps."""
    secrets: Mapping[Key, Manifest] = field(default_factory=dict, repr=False)
    """Secrets."""
    service_accounts: Mapping[Key, Manifest] = field(default_factory=dict)
    """ServiceAccounts."""
    mirrors: tuple[Manifest, ...] = ()
    """ImageDigestMirrorSets, ImageTagMirrorSets and ImageContentSourcePolicies."""
    image_policies: tuple[Manifest, ...] = ()
    """ClusterImagePolicies and ImagePolicies."""
    image_config: Manifest | None = None
    """The image.config.openshift.io named cluster, or None."""
    proxy: Manifest | None = field(default=None, repr=False)
    """The proxy.config.openshift.io named cluster, or None."""
    fleet: Fleet | None = None
    """Nodes and pools, or None if they were not read."""
    refused: tuple[RefusedModule, ...] = ()
    """Modules of a cluster that cannot be read, by namespace and name."""
    source: str = "the manifests"
    """The place that was read, for messages."""
    assumed: tuple[str, ...] = ()
    """Sentences about objects that could not be read, and what the run assumes instead."""
    not_judged: tuple[NotJudged, ...] = ()
    """Objects, documents and files that bring kmods, or may do so, and that no case covers."""
    live: bool = False
    """True if a cluster was read: a Secret or ServiceAccount that is missing here does not exist."""

    def all_modules(self) -> list[Module | RefusedModule]:
        """Return all Modules, also those that cannot be read, by namespace and name."""
        modules: list[Module | RefusedModule] = [*self.modules, *self.refused]
        return sorted(modules, key=lambda module: module.name)

    def modules_of_all_kinds(self) -> list[Module]:
        """Return the Modules, and those that a hub makes on its spokes, by name."""
        made = [source.module for source in self.other_sources if isinstance(source, ManagedClusterModule)]
        return sorted([*self.modules, *made], key=lambda module: module.name)

    def sources(self) -> list[KmodSource]:
        """Return all objects that may bring kmods: Modules first, then the other kinds."""
        return [*self.all_modules(), *sorted(self.other_sources, key=lambda source: source.name)]

    def judged(self) -> list[KmodSource]:
        """Return the objects that must be checked: Modules first, then the other kinds."""
        return [source for source in self.sources() if has_case(source)]
