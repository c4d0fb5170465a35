"""NodePools of hosted clusters, which are to their nodes what machine config pools are elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.kernel_version import architecture
from kmm_preflight.model import Manifest
from kmm_preflight.nodes.machine_config import MachineConfig
from kmm_preflight.nodes.selector import Labels

_LABEL_CHARACTERS = 63


@dataclass(frozen=True)
class NodePool:
    """A NodePool (docs/reference/openshift.md 4.6).

    release is the release that its spec names today. lacking names the ConfigMaps that were not given.
    """

    name: str
    namespace: str = ""
    arch: str = "amd64"
    labels: Labels | None = None
    stream: str = ""
    release: str = ""
    paused: bool = False
    configs: tuple[MachineConfig, ...] = ()
    lacking: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The value of the label that its nodes have."""
        return self.name[:_LABEL_CHARACTERS]


def config_names(manifest: Manifest) -> tuple[str, ...]:
    """The ConfigMaps, in its own namespace, that hold the MachineConfigs of a NodePool."""
    return tuple(one["name"].text() for one in Field(manifest)["spec"]["config"])


def parse_node_pool(manifest: Manifest, configs: Iterable[MachineConfig], lacking: Iterable[str]) -> NodePool:
    """The NodePool of a manifest, with the MachineConfigs that its ConfigMaps hold."""
    document = Field(manifest)
    metadata, spec = document["metadata"], document["spec"]
    arch = spec["arch"].text() or "amd64"
    known = architecture(arch)
    if known is None:
        raise spec["arch"].refuse("an architecture")
    return NodePool(
        name=metadata["name"].name(),
        namespace=metadata["namespace"].text(),
        arch=known,
        labels=dict(spec["nodeLabels"].text_pairs()),
        stream=spec["osImageStream"]["name"].text(),
        release=spec["release"]["image"].text(),
        paused=bool(spec["pausedUntil"].text()),
        configs=tuple(configs),
        lacking=tuple(lacking),
    )
