"""The nodes of a Module on a kernel that an option names, whatever kernel they will boot by their pools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kmm_preflight.model import TargetKernel
from kmm_preflight.nodes import findings
from kmm_preflight.nodes.demand import Demand
from kmm_preflight.nodes.settling import OrderedUpgrade, settle
from kmm_preflight.nodes.target import Target
from kmm_preflight.nodes.targets import NO_LABELS, merged_arguments
from kmm_preflight.nodes.versions import OtherVersion


def named_targets(target: Target, demands: Iterable[Demand], upgrade: OrderedUpgrade) -> tuple[Target, ...]:
    """Return the target with the nodes of the demands and their boot arguments, once for each version that nodes keep.

    Nodes count if their pool boots the flavour of the target kernel. Without such nodes, return the target as it is.
    """
    fitting = [demand for demand in demands if _fits(demand, target.kernel)]
    if not fitting:
        return (target,)
    by_version: dict[OtherVersion | None, list[tuple[Target, Demand]]] = {}
    for demand in fitting:
        if settled := settle(target, demand, upgrade):
            by_version.setdefault(settled.version, []).append((settled, demand))
    if not by_version:
        return (replace(target, unresolved=findings.NO_NODE_LOADS(got=NO_LABELS)),)
    return tuple(_merged(found) for found in by_version.values())


def _merged(found: list[tuple[Target, Demand]]) -> Target:
    """Return the targets of one version as one target, with the nodes of all demands."""
    names = {name for _, demand in found for name in demand.node_names}
    boots = [demand.predicted.boot for _, demand in found if demand.predicted.boot]
    return replace(
        found[0][0],
        node_names=tuple(sorted(names)),
        boot_arguments=merged_arguments(boots),
        notes=tuple(dict.fromkeys(note for target, _ in found for note in target.notes)),
        unresolved=next((target.unresolved for target, _ in found if target.unresolved), None),
    )


def _fits(demand: Demand, kernel: TargetKernel) -> bool:
    predicted = demand.predicted
    return predicted.flavour in (None, kernel.flavour) and predicted.arch in (None, kernel.arch)
