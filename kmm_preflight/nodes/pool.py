"""Machine config pools, and to which of them a node belongs."""

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
    """A pool. rendered names the MachineConfig that it aims at, sources what that is made of; stream is its own."""

    name: str
    nodes: Selector | None = None
    configs: Selector | None = None
    paused: bool = False
    rendered: str = ""
    sources: tuple[str, ...] = ()
    stream: str = ""

    @property
    def custom(self) -> bool:
        """Whether it is neither master nor worker: such a pool has what worker has unless it says otherwise."""
        return self.name not in (MASTER, WORKER)

    @property
    def control_plane(self) -> bool:
        """Whether its nodes are kept for the control plane."""
        return self.name in _CONTROL_PLANE


def parse_pool(manifest: Manifest) -> Pool:
    """The pool of a manifest; Malformed for a field of another type."""
    document = Field(manifest)
    spec = document["spec"]
    return Pool(
        name=document["metadata"]["name"].name(),
        nodes=parse_selector(spec["nodeSelector"]),
        configs=parse_selector(spec["machineConfigSelector"]),
        paused=spec["paused"].flag(),
        rendered=spec["configuration"]["name"].text(),
        sources=tuple(one["name"].text() for one in spec["configuration"]["source"]),
        stream=spec["osImageStream"]["name"].text(),
    )


def pool_of(node: Node, pools: Iterable[Pool]) -> Pool | None:
    """The pool that a node belongs to (docs/reference/openshift.md 4.1); None for one that is not managed.

    Two custom pools are an error there, which leaves the node as it is. Else master wins, then the custom one.
    """
    if node.windows or HOSTED_LABEL in node.labels:
        return None
    matched = {pool.name: pool for pool in pools if pool.nodes and pool.nodes.matches(node.labels)}
    custom = [pool for pool in matched.values() if pool.custom]
    if len(custom) > 1:
        return None
    return matched.get(MASTER) or next(iter(custom), None) or matched.get(WORKER)
