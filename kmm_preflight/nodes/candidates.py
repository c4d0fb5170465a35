"""Pools that could have nodes of a Module although no node of theirs has its labels today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kmm_preflight.kernel_version import architecture
from kmm_preflight.model import Flavour
from kmm_preflight.nodes.changing_labels import follows_system
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.node import HOSTED_LABEL, taints_keep_away
from kmm_preflight.nodes.node_pool import NodePool
from kmm_preflight.nodes.pool import Pool
from kmm_preflight.nodes.prediction import (
    PredictedKernel,
    Prediction,
    ReleaseStreams,
    default_stream_of,
    flavour_exists,
    hosted_stream,
)
from kmm_preflight.nodes.versions import version_label
from kmm_preflight.planning.module import Module

_ARCH = "kubernetes.io/arch"
# Labels that nodes of every compute pool have.
_OF_EVERY_NODE = {"kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux", "node-role.kubernetes.io/worker": ""}
_OF_EVERY_ARCH = (_ARCH, "beta.kubernetes.io/arch")
# Node feature discovery sets these labels on nodes of any pool that have the hardware.
_DISCOVERED = "feature.node.kubernetes.io/"
_HOST = "kubernetes.io/hostname"


@dataclass(frozen=True)
class PoolsToCome:
    """Kernels of nodes to come."""

    kernels: tuple[PredictedKernel, ...] = ()
    """Kernels of pools whose next node the Module could select."""
    unsure: tuple[PredictedKernel, ...] = ()
    """Kernels of pools without nodes, if nothing says whether their nodes will have the labels."""


def candidates_beside_nodes(module: Module, prediction: Prediction) -> PoolsToCome:
    """Return the kernels of pools without nodes, for a Module that selects nodes of other pools."""
    if _HOST in dict(module.selector):
        return PoolsToCome()  # the node with this name is there already
    fleet, labels, needed = prediction.fleet, _stable(module), _needed(module)
    sure, unsure = list[PredictedKernel](), list[PredictedKernel]()
    for pool in _candidates(labels, fleet):
        if prediction.members(pool):
            continue
        requirements = pool.node_selector.requirements if pool.node_selector else ()
        named = {requirement.key for requirement in requirements}
        predicted = prediction.of_pool(pool, selected_arch(module))
        (sure if _explained(needed, named) else unsure).extend(predicted)
    used = {node.labels[HOSTED_LABEL] for node in fleet.nodes if HOSTED_LABEL in node.labels}
    for node_pool in _node_pools(module, fleet):
        if node_pool.label not in used:
            known = _explained(needed, set(node_pool.labels or {}))
            (sure if known else unsure).append(prediction.of_node_pool(node_pool))
    return PoolsToCome(_existing(sure), _existing(unsure))


def candidates_instead(module: Module, prediction: Prediction) -> tuple[PredictedKernel, ...]:
    """Return the kernels of all pools that could have a node, for a Module that selects no node today.

    Return none if no pool could have a node with its labels. Without any pool, return kernels of the default stream.
    """
    fleet, labels, arch = prediction.fleet, _stable(module), selected_arch(module)
    kernels = [predicted for pool in _candidates(labels, fleet) for predicted in prediction.of_pool(pool, arch)]
    kernels += [prediction.of_node_pool(pool) for pool in _node_pools(module, fleet)]
    if not fleet.pools and not fleet.node_pools:
        kernels = _default_kernels(fleet, prediction.streams, arch)
    return _existing(kernels) or tuple(dict.fromkeys(kernels))


def selected_arch(module: Module) -> str | None:
    """Return the architecture that the Module selects, in Go's spelling, or None."""
    labels = dict(module.selector)
    return next((architecture(labels[key]) for key in _OF_EVERY_ARCH if key in labels), None)


def missing_arch(module: Module, fleet: Fleet) -> str | None:
    """Return the architecture that the Module selects, if all nodes and pools have others. Else return None."""
    labels = dict(module.selector)
    wanted = next((labels[key] for key in _OF_EVERY_ARCH if key in labels), None)
    if wanted is None or not fleet.arches:
        return None
    have = {*fleet.arches, *(pool.arch for pool in fleet.node_pools)}
    have |= {value for pool in fleet.pools for value in _named_values(pool)}
    return None if wanted in have or architecture(wanted) in have else wanted


def _named_values(pool: Pool) -> list[str]:
    requirements = pool.node_selector.requirements if pool.node_selector else ()
    return [value for requirement in requirements if requirement.key in _OF_EVERY_ARCH for value in requirement.values]


def _stable(module: Module) -> dict[str, str]:
    """Return the labels of the selector that an upgrade does not change."""
    return {key: value for key, value in module.selector if not follows_system(key)}


def _needed(module: Module) -> dict[str, str]:
    """Return the labels that a node must have for the Module, and that somebody must set."""
    labels = dict(module.selector)
    if module.version is not None:
        labels[version_label(module.name)] = module.version
    return {key: value for key, value in _stable(replace(module, selector=tuple(labels.items()))).items()
            if _OF_EVERY_NODE.get(key) != value and key not in _OF_EVERY_ARCH and not key.startswith(_DISCOVERED)
            }  # fmt: skip


def _explained(needed: Mapping[str, str], named: set[str]) -> bool:
    """True if the pool names all labels that a node needs. Its names do not forbid the values."""
    return set(needed) <= named


def _node_pools(module: Module, fleet: Fleet) -> list[NodePool]:
    """Return the NodePools whose nodes the Module could select."""
    labels, arch = _stable(module), selected_arch(module)
    return [
        pool
        for pool in fleet.node_pools
        if arch in (None, pool.arch)
        and all(labels.get(key, value) == value for key, value in (pool.labels or {}).items())
        and not taints_keep_away(pool.taints, module.tolerations)
    ]


def _existing(kernels: list[PredictedKernel]) -> tuple[PredictedKernel, ...]:
    """Return the kernels that OpenShift has: a pool for rt will have no arm64 nodes."""
    return tuple(dict.fromkeys(predicted for predicted in kernels if flavour_exists(predicted)))


def _default_kernels(fleet: Fleet, streams: ReleaseStreams, arch: str | None) -> list[PredictedKernel]:
    """Return the kernels of the default stream, for each architecture and flavour of a node."""
    stream = hosted_stream(streams) if fleet.hosted else fleet.default_stream or default_stream_of(fleet, streams)
    kinds = {(arch or node.arch, node.flavour) for node in fleet.nodes if node.has_kernel and node.core_os}
    ordered = sorted(kinds or {(arch, Flavour.STANDARD)}, key=lambda kind: (kind[0] or "", kind[1].value))
    return [PredictedKernel("nodes to come", stream, *kind) for kind in ordered]


def _candidates(labels: Mapping[str, str], fleet: Fleet) -> list[Pool]:
    """Return the pools whose nodes may have these labels: pools that the labels name, else all of compute nodes."""
    possible = [pool for pool in fleet.pools if pool.node_selector and not pool.node_selector.forbids(labels)]
    named = [pool for pool in possible if pool.node_selector and pool.node_selector.claimed_by(labels)]
    if own := [pool for pool in named if pool.custom or pool.control_plane]:
        return own
    return [pool for pool in possible if not pool.control_plane]
