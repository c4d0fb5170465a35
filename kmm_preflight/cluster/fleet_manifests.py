"""The fleet in manifests: files from Git, and trees of one or several must-gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kmm_preflight.cluster.documents import read_documents
from kmm_preflight.cluster.fleet import ALL_KERNELS, NO_CONFIGS, NO_POOLS
from kmm_preflight.cluster.inventory import Key
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.fields import Field
from kmm_preflight.model import Manifest
from kmm_preflight.nodes.fleet import Fleet, Found, fleet_of
from kmm_preflight.nodes.machine_config import MachineConfig, parse_machine_config
from kmm_preflight.nodes.node_pool import NodePool, config_names, parse_node_pool

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

_CONFIG_KEY = "config"  # of a NodePool's ConfigMaps


def given_fleet(objects: Mapping[str, Sequence[Manifest]], config_maps: Mapping[Key, Manifest]) -> Fleet | None:
    """The fleet of manifests by kind; None where they hold nothing of one. UsageProblem for what cannot be read."""
    if not any(objects.get(kind) for kind in KINDS):
        return None
    try:
        found = Found(
            nodes=objects["Node"],
            pools=objects["MachineConfigPool"],
            configs=objects["MachineConfig"],
            streams=objects["OSImageStream"],
            versions=objects["ClusterVersion"],
            layered=objects["MachineOSConfig"],
            node_pools=tuple(_node_pool(one, config_maps) for one in objects["NodePool"]),
        )
        fleet = fleet_of(found, ())
    except Malformed as exc:
        raise UsageProblem(f"--manifests: {exc.message}") from exc
    return fleet_of(found, _lacking(fleet))


def _lacking(fleet: Fleet) -> list[str]:
    """What is missing among the manifests, and what is taken instead."""
    if not fleet.known:
        return [f"{ALL_KERNELS}: no Node and no MachineConfigPool among the manifests"]
    said = []
    if not fleet.nodes:
        said.append("no Node among the manifests: which nodes a Module selects is not known")
    if fleet.nodes and not fleet.pools and not fleet.hosted:
        said.append(f"no MachineConfigPool among the manifests: {NO_POOLS}")
    if fleet.hosted and not fleet.node_pools:
        said.append(
            "no NodePool among the manifests, those of the management cluster: nodes are judged in the flavour that "
            "they boot today, on the stream that hosted clusters of this release have"
        )
    for node_pool in fleet.node_pools:
        if node_pool.lacking:
            said.append(
                f"NodePool {node_pool.name}: no ConfigMap {', '.join(node_pool.lacking)} among the manifests: its "
                "nodes are judged in the flavour that they boot today"
            )
    for pool in fleet.pools:
        if pool.rendered not in fleet.configs:
            named = f"MachineConfig {pool.rendered}" if pool.rendered else "its rendered MachineConfig"
            instead = (
                "its kernelType is that of the MachineConfigs that it selects" if fleet.sources(pool) else NO_CONFIGS
            )
            said.append(f"pool {pool.name}: {named} is not among the manifests: {instead}")
        elif missing := [name for name in pool.sources if name not in fleet.configs]:
            said.append(
                f"pool {pool.name}: {len(missing)} of {len(pool.sources)} sources of its MachineConfig are not "
                "among the manifests: none of them is taken to set an osImageURL"
            )
    return said


def _node_pool(manifest: Manifest, config_maps: Mapping[Key, Manifest]) -> NodePool:
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
