"""The cases of a run: each Module on each of its target kernels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kmm_preflight.model import ModuleName
from kmm_preflight.nodes.targets import Target
from kmm_preflight.planning import findings
from kmm_preflight.planning.module import Module, RefusedModule
from kmm_preflight.planning.plan import Case, Unresolved
from kmm_preflight.planning.planner import make_plan


def make_cases(
    modules: Iterable[Module | RefusedModule], targets: Mapping[ModuleName, tuple[Target, ...]]
) -> tuple[Case, ...]:
    """Return the cases, by Module and then by target kernel. The Modules must have a moduleLoader."""
    return tuple(_on_nodes(_case(module, target), target) for module in modules for target in targets[module.name])


def _on_nodes(case: Case, target: Target) -> Case:
    """Return the case with the nodes of its target."""
    case = replace(case, notes=target.notes, nodes=target.nodes)
    if isinstance(case, Unresolved):
        return case
    return replace(case, node_names=target.node_names, boot_arguments=target.boot_arguments)


def _case(module: Module | RefusedModule, target: Target) -> Case:
    if isinstance(module, RefusedModule):
        return Unresolved(module.name, target.kernel, findings.MODULE_INVALID(problem=module.problem))
    assert module.container  # a Module without a moduleLoader has no case
    if target.unresolved:
        return Unresolved(module.name, target.kernel, target.unresolved, secret=module.secret)
    return make_plan(module, module.container, target.kernel, target.kernels_today)
