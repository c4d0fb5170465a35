"""Modules that lose their nodes to another Module: teams often keep one Module for each kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kmm_preflight.model import ModuleName
from kmm_preflight.nodes import findings
from kmm_preflight.nodes.changing_labels import follows_system
from kmm_preflight.nodes.target import Target
from kmm_preflight.planning.module import Module

Targets = Mapping[ModuleName, tuple[Target, ...]]


def with_superseded(modules: Iterable[Module], targets: Targets) -> Targets:
    """Return the targets. If another Module takes over the nodes that a Module loses, the finding names that Module."""
    readable = {module.name: module for module in modules if module.container and module.container.module_name}
    settled = dict(targets)
    for name, module in readable.items():
        settled[name] = tuple(_settled(module, target, readable, targets) for target in targets[name])
    return settled


def _settled(module: Module, target: Target, readable: Mapping[ModuleName, Module], targets: Targets) -> Target:
    heir = _heir(module, target, readable, targets) if _is_lost(target) else None
    if heir is None:
        return target
    got = f"Module {heir} loads the kmod on its nodes after the upgrade"
    return replace(target, unresolved=findings.NO_NODE_LOADS(got=got))


def _is_lost(target: Target) -> bool:
    return target.unresolved is not None and target.unresolved.id == findings.SELECTOR_LOST.id


def _heir(module: Module, target: Target, readable: Mapping[ModuleName, Module], targets: Targets) -> ModuleName | None:
    """Return another Module that selects all nodes of the target by the kernel's labels, and loads the same kmod."""
    kmod = module.container.module_name if module.container else None
    for name, other in readable.items():
        same = other.container is not None and other.container.module_name == kmod
        by_kernel = any(follows_system(key) for key, _ in other.selector)
        if name != module.name and same and by_kernel and any(_takes_over(each, target) for each in targets[name]):
            return name
    return None


def _takes_over(other: Target, target: Target) -> bool:
    same_kernel = other.kernel.version == target.kernel.version
    return same_kernel and other.unresolved is None and set(target.node_names) <= set(other.node_names)
