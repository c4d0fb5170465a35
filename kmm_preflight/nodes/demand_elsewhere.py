"""The kernels that nodes will boot if no label of a Module selects them: nodes of a pool, and nodes of spokes."""

from __future__ import annotations

from kmm_preflight.kernel_version import kernel_architecture, kernel_flavour
from kmm_preflight.model import Finding
from kmm_preflight.nodes import findings
from kmm_preflight.nodes.demand import Demand, pool_notes
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.node import Node
from kmm_preflight.nodes.pool import Pool
from kmm_preflight.nodes.prediction import PredictedKernel, Prediction, flavour_exists
from kmm_preflight.planning.source import BootPlacement, Spoke, SpokePlacement


def boot_demand(placement: BootPlacement, prediction: Prediction) -> tuple[Demand, ...]:
    """Return the kernels of the nodes of all pools that take the MachineConfig. Without a pool, it is unknown."""
    pools = pools_of(placement, prediction.fleet)
    if not pools:
        return (Demand(_of_unknown_pool(placement, prediction.fleet)),)
    return tuple(demand for pool in pools for demand in _of_pool(pool, prediction))


def pools_of(placement: BootPlacement, fleet: Fleet) -> list[Pool]:
    """Return the pools that take the MachineConfig, or that the object names."""
    return [pool for pool in fleet.pools if _takes(pool, placement)]


def spoke_demand(placement: SpokePlacement) -> tuple[Demand, ...]:
    """Return the kernels of the release in the architectures and flavours that nodes of the spokes have today."""
    if not placement.spokes:
        got = "no ManagedCluster was given" if placement.spokes is None else "no ManagedCluster has the labels"
        return (Demand(PredictedKernel("nodes of spokes"), notes=(findings.SPOKES_UNKNOWN(got=got),)),)
    return tuple(demand for spoke in placement.spokes for demand in _of_spoke(spoke))


def _of_spoke(spoke: Spoke) -> list[Demand]:
    group = f"spoke {spoke.name}"
    if not spoke.kernels_today:
        got = f"ManagedCluster {spoke.name} does not report the kernels of its nodes"
        return [Demand(PredictedKernel(group), notes=(findings.SPOKES_UNKNOWN(got=got),))]
    by_prediction: dict[PredictedKernel, list[str]] = {}
    for kernel in spoke.kernels_today:
        predicted = PredictedKernel(group, arch=kernel_architecture(kernel), flavour=kernel_flavour(kernel))
        by_prediction.setdefault(predicted, []).append(kernel)
    return [Demand(predicted, kernels_today=tuple(sorted(kernels))) for predicted, kernels in by_prediction.items()]


def _takes(pool: Pool, placement: BootPlacement) -> bool:
    selector = pool.config_selector
    selected = bool(placement.labels) and selector is not None and selector.matches(dict(placement.labels))
    return pool.name == placement.pool or placement.machine_config in pool.sources or selected


def _of_unknown_pool(placement: BootPlacement, fleet: Fleet) -> PredictedKernel:
    group = f"pool {placement.pool}" if placement.pool else f"nodes of MachineConfig {placement.machine_config}"
    if not fleet.pools:
        reason = "no machine config pool was given"
    elif placement.pool:
        reason = "there is no machine config pool of this name"
    else:
        reason = "no machine config pool that was given takes the MachineConfig"
    return PredictedKernel(group, unknown_because=reason)


def _of_pool(pool: Pool, prediction: Prediction) -> list[Demand]:
    nodes = prediction.nodes_of_pool(pool.name)
    if not nodes:
        note = findings.POOL_WITHOUT_NODES(group=f"pool {pool.name}")
        kernels = prediction.of_pool(pool)
        possible = [predicted for predicted in kernels if flavour_exists(predicted)] or kernels
        return [Demand(predicted, notes=_notes(predicted, note)) for predicted in possible]
    groups: dict[PredictedKernel, list[Node]] = {}
    for node in nodes:
        groups.setdefault(prediction.of_node(node), []).append(node)
    return [_of_nodes(predicted, members) for predicted, members in groups.items()]


def _notes(predicted: PredictedKernel, note: Finding) -> tuple[Finding, ...]:
    return (note, *pool_notes(predicted))


def _of_nodes(predicted: PredictedKernel, nodes: list[Node]) -> Demand:
    return Demand(
        predicted,
        len(nodes),
        tuple(sorted({node.kernel for node in nodes if node.kernel})),
        pool_notes(predicted),
        tuple(sorted(node.name for node in nodes)),
    )
