"""The kernels that the nodes of a Module will boot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kmm_preflight.kernel_version import architecture
from kmm_preflight.model import Finding, Flavour
from kmm_preflight.nodes import findings
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.node import Node
from kmm_preflight.nodes.pool import Pool
from kmm_preflight.nodes.prediction import (
    PredictedKernel,
    Prediction,
    ReleaseStreams,
    default_stream_of,
    flavour_exists,
    hosted_stream,
)
from kmm_preflight.planning.module import Module
from kmm_preflight.release.choice import KernelFilter


@dataclass(frozen=True)
class Demand:
    """A kernel that nodes of a Module will boot."""

    predicted: PredictedKernel
    """The kernel."""
    node_count: int = 0
    """The number of the nodes; 0 if the Module selects no node today."""
    kernels_today: tuple[str, ...] = ()
    """Kernels that the nodes run today, in alphabetical order."""
    notes: tuple[Finding, ...] = ()
    """Findings about the nodes."""
    node_names: tuple[str, ...] = ()
    """Names of the nodes, in alphabetical order."""

    @property
    def words(self) -> str:
        """The nodes, for a report: pool worker-rt (3 nodes, paused)."""
        plural = "" if self.node_count == 1 else "s"
        count = f"{self.node_count} node{plural}" if self.node_count else "no node today"
        return f"{self.predicted.group} ({count}{', paused' if self.predicted.paused else ''})"

    @property
    def filter(self) -> KernelFilter | None:
        """The kernels of the release that fit, or None if the kernel is not in the release or unknown."""
        predicted = self.predicted
        return KernelFilter(predicted.stream, predicted.arch, predicted.flavour) if predicted.in_release else None


def demand_of(module: Module, prediction: Prediction) -> tuple[Demand, ...]:
    """Return the kernels that the nodes of a Module will boot.

    If the Module selects no node today, return the kernels of the pools that could have such a node, with a note.
    """
    selected = [node for node in prediction.fleet.nodes if not node.windows and _selects(module, node)]
    loading = [node for node in selected if not node.keeps_away(module.tolerations)]
    if not loading:
        return _demand_without_nodes(module, prediction, kept_away=len(selected))
    groups: dict[PredictedKernel, list[Node]] = {}
    for node in loading:
        groups.setdefault(prediction.of_node(node), []).append(node)
    return tuple(
        Demand(
            predicted,
            len(nodes),
            tuple(sorted({node.kernel for node in nodes if node.kernel})),
            pool_notes(predicted),
            tuple(sorted(node.name for node in nodes)),
        )
        for predicted, nodes in groups.items()
    )


def _selects(module: Module, node: Node) -> bool:
    return all(node.labels.get(key) == value for key, value in module.selector)


def pool_notes(predicted: PredictedKernel) -> tuple[Finding, ...]:
    """Return the notes about the nodes of a predicted kernel."""
    notes = []
    if predicted.unchanged_because:
        got = predicted.unchanged_because
        notes.append(findings.KERNEL_STAYS(group=predicted.group, got=got, kernel=predicted.kernel))
    if predicted.paused:
        notes.append(findings.POOL_PAUSED(group=predicted.group))
    if predicted.layered and not predicted.unknown_because:
        notes.append(findings.POOL_LAYERED(group=predicted.group))
    return tuple(notes)


def _demand_without_nodes(module: Module, prediction: Prediction, kept_away: int) -> tuple[Demand, ...]:
    """Return the kernels of all pools whose nodes the Module could select, else the kernel of the default stream."""
    fleet, labels = prediction.fleet, dict(module.selector)
    arch = architecture(labels.get("kubernetes.io/arch", ""))
    kernels = [predicted for pool in _candidates(labels, fleet) for predicted in prediction.of_pool(pool, arch)]
    kernels += [prediction.of_node_pool(pool) for pool in fleet.node_pools if _could_have(pool.labels or {}, labels)]
    note = findings.NO_NODE_SELECTED(got=_why_none(len(fleet.nodes), kept_away))
    # A pool for rt will have no arm64 nodes.
    possible = [predicted for predicted in kernels if flavour_exists(predicted)]
    demand = possible or kernels or _default_kernels(fleet, prediction.streams, arch)
    return tuple(Demand(predicted, notes=(note, *pool_notes(predicted))) for predicted in dict.fromkeys(demand))


def _why_none(nodes: int, kept_away: int) -> str:
    """Return the reason why a Module selects none of this many nodes; kept_away have its labels and a taint."""
    if kept_away:
        return f"nodes with its labels have a taint that it does not tolerate: {kept_away} of {nodes}"
    return f"none of {nodes} nodes has its labels" if nodes else "there are no nodes"


def _default_kernels(fleet: Fleet, streams: ReleaseStreams, arch: str | None) -> list[PredictedKernel]:
    """Return the kernels of the default stream, for each architecture and flavour of a node."""
    stream = hosted_stream(streams) if fleet.hosted else fleet.default_stream or default_stream_of(fleet, streams)
    kinds = {(arch or node.arch, node.flavour) for node in fleet.nodes if not node.windows}
    ordered = sorted(kinds or {(arch, Flavour.STANDARD)}, key=lambda kind: (kind[0] or "", kind[1].value))
    return [PredictedKernel("nodes to come", stream, *kind) for kind in ordered]


def _could_have(own: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """True if a node with its own labels could also have the other labels."""
    return all(labels.get(key, value) == value for key, value in own.items())


def _candidates(labels: Mapping[str, str], fleet: Fleet) -> list[Pool]:
    """Return the pools whose nodes may have these labels: pools that the labels name, else all of compute nodes."""
    possible = [pool for pool in fleet.pools if pool.node_selector and not pool.node_selector.forbids(labels)]
    named = [pool for pool in possible if pool.node_selector and pool.node_selector.claimed_by(labels)]
    if own := [pool for pool in named if pool.custom or pool.control_plane]:
        return own
    return [pool for pool in possible if not pool.control_plane]
