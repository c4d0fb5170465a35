"""The other Modules of a run that load kmods on the nodes of a Module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kmm_preflight.model import ModuleName
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.node_set import LoadedSet, Neighbour

_MODULE = ModuleName("", "").kind


@dataclass(frozen=True)
class Shared:
    """The nodes that two plans share."""

    certain: bool
    """True if there is a node that loads both. False if that is only possible."""
    covers: bool
    """True if each node of the first plan loads the second plan too."""


def shared_nodes(plan: Plan, other: Plan) -> Shared | None:
    """Return the nodes that two plans of different Modules share, or None if no node can load both.

    Names of nodes decide if both plans have them. Otherwise labels decide: a node may have all labels of both selectors
    unless they give one label two values.
    """
    if plan.module == other.module or (plan.kernel.version, plan.kernel.arch) != (
        other.kernel.version,
        other.kernel.arch,
    ):
        return None
    if plan.node_names and other.node_names:
        mine, theirs = frozenset(plan.node_names), frozenset(other.node_names)
        return Shared(True, mine <= theirs) if mine & theirs else None
    if plan.module.kind != _MODULE or other.module.kind != _MODULE:
        return Shared(False, False)
    own, foreign = dict(plan.selector), dict(other.selector)
    if _forbids(own, foreign):
        return None
    covers = foreign.items() <= own.items()
    return Shared(covers or own.items() <= foreign.items(), covers)


def _forbids(own: Mapping[str, str], foreign: Mapping[str, str]) -> bool:
    return any(foreign.get(key, value) != value for key, value in own.items())


class Neighbours:
    """The other Modules of a run, each with its kmods."""

    def __init__(self, plans: Sequence[Plan], loaded: Callable[[Plan], LoadedSet]) -> None:
        """loaded returns the kmods of a plan. It is called once for each plan that is needed."""
        self._plans, self._loaded = plans, loaded
        self._known: dict[str, LoadedSet] = {}

    def of(self, plan: Plan) -> tuple[Neighbour, ...]:
        """Return the Modules that may share a node with the plan, in the order of the run's plans."""
        return tuple(
            Neighbour(other.module, self._set(other), shared.certain, shared.covers)
            for other in self._plans
            if (shared := shared_nodes(plan, other))
        )

    def _set(self, plan: Plan) -> LoadedSet:
        if plan.id not in self._known:
            self._known[plan.id] = self._loaded(plan)
        return self._known[plan.id]
