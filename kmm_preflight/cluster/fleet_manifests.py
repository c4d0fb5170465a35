"""The fleet in manifests: files from Git, and trees of one or several must-gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.documents import read_documents
from kmm_preflight.cluster.fleet import ALL_KERNELS, NO_CONFIGS, NO_POOLS
from kmm_preflight.cluster.inventory import Key
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.model import Manifest
from kmm_preflight.nodes.fleet import Fleet, FleetManifests, fleet_of, read_one
from kmm_preflight.nodes.machine_config import MachineConfig, parse_machine_config
from kmm_preflight.nodes.node import HOSTED_LABEL
from kmm_preflight.nodes.node_pool import NodePool, config_names, parse_node_pool
from kmm_preflight.nodes.pool import Pool

MCO = "machineconfiguration.openshift.io"
KINDS = {
    "Node": ("v1",),
    "MachineConfigPool": (f"{MCO}/v1",),
    "MachineConfig": (f"{MCO}/v1",),
    "MachineOSConfig": (f"{MCO}/v1", f"{MCO}/v1alpha1"),
    "OSImageStream": (f"{MCO}/v1", f"{MCO}/v1alpha1"),
    "ClusterVersion": ("config.openshift.io/v1",),
    "NodePool": ("hypershift.openshift.io/v1beta1", "hypershift.openshift.io/v1alpha1"),
}
"""What a fleet is read from: API versions by kind."""

_NO_SOURCES = (
    "where the others set no kernelType a node has the flavour that it boots today, and none is taken to set an "
    "osImageURL"
)
_CONFIG_KEY = "config"  # of a NodePool's ConfigMaps


def given_fleet(objects: Mapping[str, Sequence[Manifest]], config_maps: Mapping[Key, Manifest]) -> Fleet | None:
    """The fleet of manifests by kind; None where they hold nothing of one. UsageProblem for what cannot be read."""
    if not any(objects.get(kind) for kind in KINDS):
        return None
    try:
        found = FleetManifests(
            nodes=objects["Node"],
            pools=objects["MachineConfigPool"],
            configs=objects["MachineConfig"],
            streams=objects["OSImageStream"],
            versions=objects["ClusterVersion"],
            layered=objects["MachineOSConfig"],
            node_pools=tuple(
                read_one("NodePool", one, partial(_node_pool, config_maps)) for one in objects["NodePool"]
            ),
        )
        fleet = fleet_of(found, ())
    except Malformed as exc:
        raise UsageProblem(f"--manifests: {exc.message}") from exc
    return fleet_of(found, _lacking(fleet))


def _lacking(fleet: Fleet) -> list[str]:
    """What is missing among the manifests, and what is taken instead."""
    if not fleet.known:
        return [f"{ALL_KERNELS}: no Node and no MachineConfigPool among the manifests"]
    said = [] if fleet.nodes else ["no Node among the manifests: which nodes a Module selects is not known"]
    if fleet.nodes and not fleet.pools and not fleet.hosted:
        said.append(f"no MachineConfigPool among the manifests: {NO_POOLS}")
    of_pools = (words for pool in fleet.pools if (words := _lacking_of(pool, fleet)))
    return [*said, *_lacking_of_hosted(fleet), *of_pools]


def _lacking_of_hosted(fleet: Fleet) -> list[str]:
    given = {pool.label for pool in fleet.node_pools}
    named = {node.labels[HOSTED_LABEL] for node in fleet.nodes if HOSTED_LABEL in node.labels}
    absent = [
        f"no NodePool {name} among the manifests: its nodes are judged in the flavour that they boot today, on the "
        "stream that hosted clusters of this release have"
        for name in sorted(named - given)
    ]
    without = [
        f"NodePool {pool.name}: no ConfigMap {', '.join(pool.lacking)} among the manifests: its nodes are judged in "
        "the flavour that they boot today"
        for pool in fleet.node_pools
        if pool.lacking
    ]
    return [*absent, *without]


def _lacking_of(pool: Pool, fleet: Fleet) -> str:
    missing = fleet.missing_sources(pool)
    of_sources = f"{len(missing)} of {len(pool.sources)} sources of its MachineConfig are not among the manifests"
    if pool.rendered not in fleet.configs:
        named = f"MachineConfig {pool.rendered}" if pool.rendered else "its rendered MachineConfig"
        instead = NO_CONFIGS
        if fleet.sources(pool):
            instead = "its kernelType is that of the MachineConfigs that it selects"
            instead += f", and {of_sources}: {_NO_SOURCES}" if missing else ""
        return f"pool {pool.name}: {named} is not among the manifests: {instead}"
    return f"pool {pool.name}: {of_sources}: none of them is taken to set an osImageURL" if missing else ""


def _node_pool(config_maps: Mapping[Key, Manifest], manifest: Manifest) -> NodePool:
    namespace = Field(manifest)["metadata"]["namespace"].text()
    configs, lacking = list[MachineConfig](), list[str]()
    for name in config_names(manifest):
        held = config_maps.get((namespace, name))
        if held is None:
            lacking.append(name)
            continue
        text = Field(held)["data"][_CONFIG_KEY].text()
        for _, document in read_documents(text, f"ConfigMap {namespace}/{name}, {_CONFIG_KEY}"):
            if document.get("kind") == "MachineConfig":
                configs.append(parse_machine_config(document))
    return parse_node_pool(manifest, configs, lacking)
