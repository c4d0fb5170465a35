"""The nodes of a cluster, and the objects that decide the kernels that the nodes will boot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed
from kmm_preflight.model import Manifest
from kmm_preflight.nodes.day1 import Day1Kmods, day1_kmods
from kmm_preflight.nodes.machine_config import MachineConfig, parse_machine_config
from kmm_preflight.nodes.node import HOSTED_LABEL, Node, parse_node
from kmm_preflight.nodes.node_pool import NodePool
from kmm_preflight.nodes.pool import WORKER, Pool, parse_pool
from kmm_preflight.planning.loaded import LoadedModule, parse_node_modules


@dataclass(frozen=True)
class Fleet:
    """Nodes and pools of a cluster, as far as they were given."""

    nodes: tuple[Node, ...] = ()
    """Nodes, by name."""
    pools: tuple[Pool, ...] = ()
    """Machine config pools, by name."""
    node_pools: tuple[NodePool, ...] = ()
    """NodePools of a hosted cluster, by name."""
    configs: Mapping[str, MachineConfig] = field(default_factory=dict)
    """MachineConfigs by name."""
    default_stream: str | None = None
    """The default stream of the OSImageStream, or None without this object."""
    installed_version: str | None = None
    """The version that the cluster was installed with, or None if unknown."""
    containerfiles: Mapping[str, str] = field(default_factory=dict)
    """Containerfiles of layered pools, by the name of the pool."""
    day1: Day1Kmods = field(default_factory=Day1Kmods)
    """Kmods of MachineConfigs."""
    assumed: tuple[str, ...] = ()
    """Sentences about objects that were not given or could not be read, and what the run assumes instead."""
    loaded: Mapping[str, tuple[LoadedModule, ...]] = field(default_factory=dict)
    """Entries of the NodeModulesConfigs by node."""
    all_loaded_known: bool = False
    """True if a node without a NodeModulesConfig has none."""

    @property
    def known(self) -> bool:
        """True if any object decides which kernels of a release are required."""
        return bool(self.nodes or self.pools or self.node_pools)

    @property
    def hosted(self) -> bool:
        """True for a hosted cluster: NodePools decide the kernels of its nodes."""
        return bool(self.node_pools) or any(HOSTED_LABEL in node.labels for node in self.nodes)

    @property
    def arches(self) -> tuple[str, ...]:
        """The architectures of its Linux nodes."""
        return tuple(dict.fromkeys(node.arch for node in self.nodes if node.arch and not node.windows))

    def pool(self, name: str) -> Pool | None:
        """Return the pool of that name."""
        return next((pool for pool in self.pools if pool.name == name), None)

    def stream_of(self, pool: Pool) -> str | None:
        """Return the stream of a pool (docs/reference/openshift.md 4.4), or None if no object names a stream."""
        worker = self.pool(WORKER) if pool.custom else None
        return pool.stream or (worker.stream if worker else None) or self.default_stream

    def sources(self, pool: Pool) -> tuple[MachineConfig, ...]:
        """Return the MachineConfigs of a pool. A MachineConfig that was not given is left out."""
        if pool.sources:
            return tuple(self.configs[name] for name in pool.sources if name in self.configs)
        selector = pool.config_selector
        return tuple(config for config in self.configs.values() if selector and selector.matches(config.labels))

    def missing_sources(self, pool: Pool) -> tuple[str, ...]:
        """Return the names of the pool's MachineConfigs that were not given."""
        return tuple(name for name in pool.sources if name not in self.configs)


@dataclass(frozen=True)
class FleetManifests:
    """Manifests of a fleet, by kind."""

    nodes: Sequence[Manifest] = ()
    """Nodes."""
    pools: Sequence[Manifest] = ()
    """MachineConfigPools."""
    configs: Sequence[Manifest] = ()
    """MachineConfigs."""
    streams: Sequence[Manifest] = ()
    """The OSImageStream."""
    versions: Sequence[Manifest] = ()
    """The ClusterVersion."""
    layered: Sequence[Manifest] = ()
    """MachineOSConfigs."""
    node_pools: tuple[NodePool, ...] = ()
    """NodePools, already parsed with their ConfigMaps."""
    loaded: Sequence[Manifest] = ()
    """NodeModulesConfigs."""
    all_loaded_known: bool = False
    """True if a node without a NodeModulesConfig has none."""


def fleet_of(manifests: FleetManifests, assumed: Iterable[str]) -> Fleet:
    """Return the fleet of these manifests. Raise Malformed with kind, object and field."""
    nodes = [parse_object("Node", manifest, parse_node) for manifest in manifests.nodes]
    pools = [parse_object("MachineConfigPool", manifest, parse_pool) for manifest in manifests.pools]
    configs = [parse_object("MachineConfig", manifest, parse_machine_config) for manifest in manifests.configs]
    streams = [parse_object("OSImageStream", manifest, _default_stream) for manifest in manifests.streams]
    versions = [parse_object("ClusterVersion", manifest, _installed_version) for manifest in manifests.versions]
    layered = [parse_object("MachineOSConfig", manifest, _containerfile) for manifest in manifests.layered]
    loaded = [parse_object("NodeModulesConfig", manifest, parse_node_modules) for manifest in manifests.loaded]
    return Fleet(
        nodes=tuple(sorted(nodes, key=lambda node: node.name)),
        pools=tuple(sorted(pools, key=lambda pool: pool.name)),
        node_pools=tuple(sorted(manifests.node_pools, key=lambda pool: pool.name)),
        configs={config.name: config for config in configs},
        default_stream=next((stream for stream in streams if stream), None),
        installed_version=next((version for version in versions if version), None),
        containerfiles=dict(layered),
        day1=day1_kmods(manifests.configs, pools),
        assumed=tuple(assumed),
        loaded=dict(loaded),
        all_loaded_known=manifests.all_loaded_known,
    )


_T = TypeVar("_T")


def parse_object(kind: str, manifest: Manifest, parse: Callable[[Manifest], _T]) -> _T:
    """Parse a manifest. Raise Malformed with the kind and the name of the object."""
    try:
        return parse(manifest)
    except Malformed as exc:
        metadata = manifest.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        raise Malformed(f"{kind} {name or 'without a name'}: {exc.message}") from exc


def _default_stream(manifest: Manifest) -> str | None:
    """Return the default stream of the OSImageStream named cluster: of its status, or else of its spec."""
    document = Field(manifest)
    if document["metadata"]["name"].text() != "cluster":
        return None
    return document["status"]["defaultStream"].optional_text() or document["spec"]["defaultStream"].optional_text()


def _installed_version(manifest: Manifest) -> str | None:
    """Return the oldest completed version in the history of the ClusterVersion."""
    history = Field(manifest)["status"]["history"].items()  # newest first
    completed = [update["version"].optional_text() for update in history if update["state"].text() == "Completed"]
    return completed[-1] if completed else None


def _containerfile(manifest: Manifest) -> tuple[str, str]:
    """Return the pool of a MachineOSConfig, and the Containerfile that changes its OS image."""
    document = Field(manifest)
    spec = document["spec"]
    pool = spec["machineConfigPool"]["name"].text() or document["metadata"]["name"].text()
    files = (*spec["containerFile"], *spec["buildInputs"]["containerFile"])  # v1, v1alpha1
    return pool, "\n".join(file["content"].text() for file in files)
