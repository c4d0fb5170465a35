"""The nodes of a cluster and all that decides of the kernels that they will boot, as far as it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed
from kmm_preflight.model import Manifest
from kmm_preflight.nodes.machine_config import MachineConfig, parse_machine_config
from kmm_preflight.nodes.node import HOSTED_LABEL, Node, parse_node
from kmm_preflight.nodes.node_pool import NodePool
from kmm_preflight.nodes.pool import WORKER, Pool, parse_pool


@dataclass(frozen=True)
class Fleet:
    """Nodes and pools in the order of their names; configs by name.

    default_stream is that of the OSImageStream, "" where there is none; installed the version that the cluster was
    installed with, "" where that is not known. layered has the Containerfile of each pool that the cluster builds.
    lacking are words for what was not given or could not be read, and what is taken instead.
    """

    nodes: tuple[Node, ...] = ()
    pools: tuple[Pool, ...] = ()
    node_pools: tuple[NodePool, ...] = ()
    configs: Mapping[str, MachineConfig] = field(default_factory=dict)
    default_stream: str = ""
    installed: str = ""
    layered: Mapping[str, str] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether anything says which of a release's kernels are needed."""
        return bool(self.nodes or self.pools or self.node_pools)

    @property
    def hosted(self) -> bool:
        """Whether its nodes are those of NodePools."""
        return bool(self.node_pools) or any(HOSTED_LABEL in node.labels for node in self.nodes)

    @property
    def arches(self) -> tuple[str, ...]:
        """The architectures of its nodes, each once."""
        return tuple(dict.fromkeys(node.arch for node in self.nodes if node.arch and not node.windows))

    def pool(self, name: str) -> Pool | None:
        """The pool of that name."""
        return next((pool for pool in self.pools if pool.name == name), None)

    def stream_of(self, pool: Pool) -> str:
        """The stream that the cluster says for a pool (docs/reference/openshift.md 4.4), "" where it says none."""
        worker = self.pool(WORKER) if pool.custom else None
        return pool.stream or (worker.stream if worker else "") or self.default_stream

    def sources(self, pool: Pool) -> tuple[MachineConfig, ...]:
        """What a pool's configuration is made of, as far as it is here."""
        if pool.sources:
            return tuple(self.configs[name] for name in pool.sources if name in self.configs)
        chosen = pool.configs
        return tuple(one for one in self.configs.values() if chosen and chosen.matches(one.labels))

    def missing_sources(self, pool: Pool) -> tuple[str, ...]:
        """The names of those of its sources that are not here."""
        return tuple(name for name in pool.sources if name not in self.configs)


@dataclass(frozen=True)
class FleetManifests:
    """The manifests that make a fleet, of each kind; None for a kind that nothing is known of."""

    nodes: Sequence[Manifest] | None = None
    pools: Sequence[Manifest] | None = None
    configs: Sequence[Manifest] = ()
    streams: Sequence[Manifest] = ()
    versions: Sequence[Manifest] = ()
    layered: Sequence[Manifest] = ()
    node_pools: tuple[NodePool, ...] = ()


def fleet_of(found: FleetManifests, lacking: Iterable[str]) -> Fleet:
    """The fleet of these manifests. Malformed names kind, object and field of one that cannot be read."""
    nodes = [read_one("Node", manifest, parse_node) for manifest in found.nodes or ()]
    pools = [read_one("MachineConfigPool", manifest, parse_pool) for manifest in found.pools or ()]
    configs = [read_one("MachineConfig", manifest, parse_machine_config) for manifest in found.configs]
    streams = [read_one("OSImageStream", manifest, _default_stream) for manifest in found.streams]
    versions = [read_one("ClusterVersion", manifest, _installed_version) for manifest in found.versions]
    return Fleet(
        nodes=tuple(sorted(nodes, key=lambda one: one.name)),
        pools=tuple(sorted(pools, key=lambda one: one.name)),
        node_pools=tuple(sorted(found.node_pools, key=lambda one: one.name)),
        configs={one.name: one for one in configs},
        default_stream=next((one for one in streams if one), ""),
        installed=next((one for one in versions if one), ""),
        layered=dict(read_one("MachineOSConfig", manifest, _containerfile) for manifest in found.layered),
        lacking=tuple(lacking),
    )


_T = TypeVar("_T")


def read_one(kind: str, manifest: Manifest, parse: Callable[[Manifest], _T]) -> _T:
    """What is parsed of an object. Malformed with its kind and name before the words."""
    try:
        return parse(manifest)
    except Malformed as exc:
        metadata = manifest.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        raise Malformed(f"{kind} {name or 'without a name'}: {exc.message}") from exc


def _default_stream(manifest: Manifest) -> str:
    """status.defaultStream of the OSImageStream named cluster, or what its spec asks for."""
    document = Field(manifest)
    if document["metadata"]["name"].text() != "cluster":
        return ""
    return document["status"]["defaultStream"].text() or document["spec"]["defaultStream"].text()


def _installed_version(manifest: Manifest) -> str:
    """The oldest version of the ClusterVersion's history that was completed."""
    history = Field(manifest)["status"]["history"].items()  # newest first
    completed = [one["version"].text() for one in history if one["state"].text() == "Completed"]
    return completed[-1] if completed else ""


def _containerfile(manifest: Manifest) -> tuple[str, str]:
    """The pool of a MachineOSConfig, and what is done to the release's image for it."""
    document = Field(manifest)
    spec = document["spec"]
    pool = spec["machineConfigPool"]["name"].text() or document["metadata"]["name"].text()
    files = (*spec["containerFile"], *spec["buildInputs"]["containerFile"])  # v1, v1alpha1
    return pool, "\n".join(one["content"].text() for one in files)
