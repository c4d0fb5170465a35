"""Read the fleet from manifests: files from Git, and trees of must-gathers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.documents import NoObject, read_documents
from kmm_preflight.cluster.fleet import NO_CONFIGS, NO_POOLS
from kmm_preflight.cluster.inventory import Key
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.model import Manifest
from kmm_preflight.nodes.fleet import Fleet, FleetManifests, fleet_of, parse_object
from kmm_preflight.nodes.machine_config import MachineConfig, parse_machine_config
from kmm_preflight.nodes.node import HOSTED_LABEL
from kmm_preflight.nodes.node_pool import NodePool, config_names, parse_node_pool
from kmm_preflight.nodes.pool import Pool
from kmm_preflight.nodes.selection import ALL_KERNELS

MCO = "machineconfiguration.openshift.io"
KINDS = {
    "Node": ("v1",),
    "MachineConfigPool": (f"{MCO}/v1",),
    "MachineConfig": (f"{MCO}/v1",),
    "MachineOSConfig": (f"{MCO}/v1", f"{MCO}/v1alpha1"),
    "OSImageStream": (f"{MCO}/v1", f"{MCO}/v1alpha1"),
    "ClusterVersion": ("config.openshift.io/v1",),
    "NodeModulesConfig": ("kmm.sigs.x-k8s.io/v1beta1",),
    "NodePool": ("hypershift.openshift.io/v1beta1", "hypershift.openshift.io/v1alpha1"),
}
"""Kinds of a fleet, with their API versions."""

_NO_SOURCES = (
    "if the others set no kernelType, a node is assumed to boot the flavour that it boots today, and the missing "
    "sources are assumed to set no osImageURL and no kernelArguments"
)
_CONFIG_KEY = "config"  # the key of a MachineConfig in the ConfigMap of a NodePool


def given_fleet(objects: Mapping[str, Sequence[Manifest]], config_maps: Mapping[Key, Manifest]) -> Fleet | None:
    """Return the fleet of manifests by kind, or None if there are no such manifests. Raise UsageProblem."""
    if not any(objects.get(kind) for kind in KINDS):
        return None
    try:
        manifests = FleetManifests(
            nodes=objects["Node"],
            pools=objects["MachineConfigPool"],
            configs=objects["MachineConfig"],
            streams=objects["OSImageStream"],
            versions=objects["ClusterVersion"],
            layered=objects["MachineOSConfig"],
            loaded=objects["NodeModulesConfig"],
            node_pools=tuple(
                parse_object("NodePool", manifest, partial(_node_pool, config_maps)) for manifest in objects["NodePool"]
            ),
        )
        fleet = fleet_of(manifests, ())
    except Malformed as exc:
        raise UsageProblem(f"--manifests: {exc.message}") from exc
    return fleet_of(manifests, _assumed(fleet))


def _assumed(fleet: Fleet) -> list[str]:
    """Return sentences about objects that are not among the manifests, and what the run assumes instead."""
    if not fleet.known:
        return [f"{ALL_KERNELS}: no Node and no MachineConfigPool among the manifests"]
    assumed = [] if fleet.nodes else ["no Node among the manifests: the nodes that a Module selects are unknown"]
    if fleet.nodes and not fleet.pools and not fleet.hosted:
        assumed.append(f"no MachineConfigPool among the manifests: {NO_POOLS}")
    of_pools = (sentence for pool in fleet.pools for sentence in _missing_configs(pool, fleet))
    return [*assumed, *_missing_node_pools(fleet), *of_pools]


def _missing_node_pools(fleet: Fleet) -> list[str]:
    given = {pool.label for pool in fleet.node_pools}
    named = {node.labels[HOSTED_LABEL] for node in fleet.nodes if HOSTED_LABEL in node.labels}
    missing = [
        f"no NodePool {name} among the manifests: its nodes are judged in the flavour that they boot today, on the "
        "stream that hosted clusters of this release have, without further kernel arguments"
        for name in sorted(named - given)
    ]
    without_config_maps = [
        f"NodePool {pool.name}: no ConfigMap {', '.join(pool.missing_config_maps)} among the manifests: its nodes are "
        "judged in the flavour that they boot today, without further kernel arguments"
        for pool in fleet.node_pools
        if pool.missing_config_maps
    ]
    return [*missing, *without_config_maps]


def _missing_configs(pool: Pool, fleet: Fleet) -> Iterator[str]:
    """Yield a sentence if MachineConfigs of a pool are not among the manifests."""
    missing = fleet.missing_sources(pool)
    sources = f"{len(missing)} of {len(pool.sources)} sources of its MachineConfig are not among the manifests"
    if pool.rendered not in fleet.configs:
        rendered = f"MachineConfig {pool.rendered}" if pool.rendered else "its rendered MachineConfig"
        instead = NO_CONFIGS
        if fleet.sources(pool):
            instead = "its kernelType is read from the MachineConfigs that it selects"
            instead += f", and {sources}: {_NO_SOURCES}" if missing else ""
        yield f"pool {pool.name}: {rendered} is not among the manifests: {instead}"
    elif missing:
        yield f"pool {pool.name}: {sources}, and they are assumed to set no osImageURL"


def _node_pool(config_maps: Mapping[Key, Manifest], manifest: Manifest) -> NodePool:
    namespace = Field(manifest)["metadata"]["namespace"].text()
    configs, missing = list[MachineConfig](), list[str]()
    for name in config_names(manifest):
        config_map = config_maps.get((namespace, name))
        if config_map is None:
            missing.append(name)
            continue
        text = Field(config_map)["data"][_CONFIG_KEY].text()
        for read in read_documents(text, f"ConfigMap {namespace}/{name}, {_CONFIG_KEY}"):
            if isinstance(read, NoObject):
                raise UsageProblem(f"{read.place}: {read.problem}")
            _, document = read
            if document.get("kind") == "MachineConfig":
                configs.append(parse_machine_config(document))
    return parse_node_pool(manifest, configs, missing)
