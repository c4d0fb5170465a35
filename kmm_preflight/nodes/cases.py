"""The cases of a run: each Module on each of its target kernels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kmm_preflight.model import ModuleName
from kmm_preflight.nodes.target import Target
from kmm_preflight.planning.loaded import make_loaded_plan
from kmm_preflight.planning.module import Module, RefusedModule
from kmm_preflight.planning.plan import Case, Unresolved
from kmm_preflight.planning.source import KmodSource


def make_cases(modules: Iterable[KmodSource], targets: Mapping[ModuleName, tuple[Target, ...]]) -> tuple[Case, ...]:
    """Return the cases, by Module and then by target kernel. All objects must bring kmods."""
    return tuple(_on_nodes(_case(module, target), target) for module in modules for target in targets[module.name])


def _on_nodes(case: Case, target: Target) -> Case:
    """Return the case with the nodes of its target."""
    version = target.version.value if target.version else None
    case = replace(case, notes=target.notes, nodes=target.nodes, version=version)
    if isinstance(case, Unresolved):
        return case
    return replace(case, node_names=target.node_names, boot_arguments=target.boot_arguments)


def _case(source: KmodSource, target: Target) -> Case:
    if target.unresolved and not isinstance(source, RefusedModule):
        return Unresolved(source.name, target.kernel, target.unresolved, secret=source.secret)
    if target.version and target.version.loaded and isinstance(source, Module):
        return make_loaded_plan(source, target.version.loaded, target.kernel, target.kernels_today)
    return source.case_on(target.kernel, target.kernels_today)
