"""The nodes of a Module on a kernel that an option names: their names and boot arguments, whatever they will boot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kmm_preflight.model import TargetKernel
from kmm_preflight.nodes.demand import Demand
from kmm_preflight.nodes.target import Target
from kmm_preflight.nodes.targets import merged_arguments


def with_boot_arguments(target: Target, demands: Iterable[Demand]) -> Target:
    """Return the target with the nodes of the demands and their boot arguments, as far as objects show them.

    Nodes count if their pool boots the flavour of the target kernel.
    """
    fitting = [demand for demand in demands if _fits(demand, target.kernel)]
    names = {name for demand in fitting for name in demand.node_names}
    boots = [demand.predicted.boot for demand in fitting if demand.predicted.boot]
    return replace(target, node_names=tuple(sorted(names)), boot_arguments=merged_arguments(boots))


def _fits(demand: Demand, kernel: TargetKernel) -> bool:
    predicted = demand.predicted
    return predicted.flavour in (None, kernel.flavour) and predicted.arch in (None, kernel.arch)
