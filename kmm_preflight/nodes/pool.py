"""Machine config pools, and the pool of a node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.model import Manifest
from kmm_preflight.nodes.node import HOSTED_LABEL, Node
from kmm_preflight.nodes.selector import Selector, parse_selector

MASTER, WORKER = "master", "worker"
_CONTROL_PLANE = (MASTER, "arbiter")


@dataclass(frozen=True)
class Pool:
    """A machine config pool."""

    name: str
    """Its name."""
    node_selector: Selector | None = None
    """Selects its nodes. None selects no node."""
    config_selector: Selector | None = None
    """Selects its MachineConfigs. None selects no MachineConfig."""
    paused: bool = False
    """True if its nodes get no new configuration."""
    rendered: str | None = None
    """The rendered MachineConfig that its nodes must run, or None if unknown."""
    sources: tuple[str, ...] = ()
    """Names of the MachineConfigs that the rendered MachineConfig is made of."""
    stream: str | None = None
    """The stream that its spec names, or None."""

    @property
    def custom(self) -> bool:
        """True if the pool is neither master nor worker: it inherits from worker what it does not set."""
        return self.name not in (MASTER, WORKER)

    @property
    def control_plane(self) -> bool:
        """True if its nodes are reserved for the control plane."""
        return self.name in _CONTROL_PLANE


def parse_pool(manifest: Manifest) -> Pool:
    """Return the pool of a manifest. Raise Malformed if a field has another type."""
    document = Field(manifest)
    spec = document["spec"]
    return Pool(
        name=document["metadata"]["name"].name(),
        node_selector=parse_selector(spec["nodeSelector"]),
        config_selector=parse_selector(spec["machineConfigSelector"]),
        paused=spec["paused"].flag(),
        rendered=spec["configuration"]["name"].optional_text(),
        sources=tuple(source["name"].text() for source in spec["configuration"]["source"]),
        stream=spec["osImageStream"]["name"].optional_text(),
    )


def pool_of(node: Node, pools: Iterable[Pool]) -> Pool | None:
    """Return the pool of a node (docs/reference/openshift.md 4.1), or None if no pool manages the node.

    master wins over a custom pool, and a custom pool over worker. With two custom pools the machine config operator
    reports an error and does not change the node.
    """
    if node.windows or HOSTED_LABEL in node.labels:
        return None
    matches = {pool.name: pool for pool in pools if pool.node_selector and pool.node_selector.matches(node.labels)}
    custom = [pool for pool in matches.values() if pool.custom]
    if len(custom) > 1:
        return None
    return matches.get(MASTER) or next(iter(custom), None) or matches.get(WORKER)
