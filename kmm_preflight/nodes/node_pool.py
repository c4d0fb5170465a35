"""NodePools of hosted clusters: they decide the kernel of their nodes, as machine config pools do elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.kernel_version import architecture
from kmm_preflight.model import Manifest
from kmm_preflight.nodes.machine_config import MachineConfig
from kmm_preflight.nodes.selector import Labels
from kmm_preflight.planning.toleration import Taint, parse_taint

_LABEL_CHARACTERS = 63


@dataclass(frozen=True)
class NodePool:
    """A NodePool (docs/reference/openshift.md 4.6)."""

    name: str
    """Its name."""
    arch: str = "amd64"
    """The architecture of its nodes, in Go's spelling."""
    labels: Labels | None = None
    """Labels of its nodes."""
    stream: str | None = None
    """The stream that its spec names, or None."""
    release: str | None = None
    """The release image that its spec names today, or None."""
    paused: bool = False
    """True if its nodes get no new configuration."""
    configs: tuple[MachineConfig, ...] = ()
    """MachineConfigs of its ConfigMaps."""
    missing_config_maps: tuple[str, ...] = ()
    """Names of its ConfigMaps that were not given."""
    taints: tuple[Taint, ...] = ()
    """Taints of its nodes."""

    @property
    def label(self) -> str:
        """The value of HOSTED_LABEL on its nodes."""
        return self.name[:_LABEL_CHARACTERS]


def config_names(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the ConfigMaps with the MachineConfigs of a NodePool. They are in its namespace."""
    return tuple(config["name"].text() for config in Field(manifest)["spec"]["config"])


def parse_node_pool(
    manifest: Manifest, configs: Iterable[MachineConfig], missing_config_maps: Iterable[str]
) -> NodePool:
    """Return the NodePool of a manifest, with the MachineConfigs of its ConfigMaps."""
    document = Field(manifest)
    metadata, spec = document["metadata"], document["spec"]
    arch = architecture(spec["arch"].text() or "amd64")
    if arch is None:
        raise spec["arch"].refuse("an architecture")
    return NodePool(
        name=metadata["name"].name(),
        arch=arch,
        labels=dict(spec["nodeLabels"].text_pairs()),
        stream=spec["osImageStream"]["name"].optional_text(),
        release=spec["release"]["image"].optional_text(),
        paused=spec["pausedUntil"].optional_text() is not None,
        configs=tuple(configs),
        missing_config_maps=tuple(missing_config_maps),
        taints=tuple(parse_taint(taint) for taint in spec["taints"]),
    )
