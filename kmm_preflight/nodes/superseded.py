"""Modules that lose their nodes to another Module: teams often keep one Module for each kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kmm_preflight.model import ModuleName
from kmm_preflight.nodes import findings
from kmm_preflight.nodes.target import Target
from kmm_preflight.planning.module import Module

Targets = Mapping[ModuleName, tuple[Target, ...]]


def without_superseded(modules: Iterable[Module], targets: Targets) -> tuple[Targets, Mapping[ModuleName, str]]:
    """Return the targets without those whose nodes load the kmod by another Module after the upgrade.

    Also return the Modules that have no target left, with the reason.
    """
    readable = {module.name: module for module in modules if module.container and module.container.module_name}
    kept, reasons = dict(targets), dict[ModuleName, str]()
    for name, module in readable.items():
        heirs = {target: _heir(module, target, readable, targets) for target in targets[name] if _is_lost(target)}
        kept[name] = tuple(target for target in targets[name] if heirs.get(target) is None)
        found = [str(heir) for heir in heirs.values() if heir]
        if found and not kept[name]:
            reasons[name] = f"Module {found[0]} loads its kmod on these nodes after the upgrade"
    return kept, reasons


def _is_lost(target: Target) -> bool:
    return target.unresolved is not None and target.unresolved.id == findings.SELECTOR_LOST.id


def _heir(module: Module, target: Target, readable: Mapping[ModuleName, Module], targets: Targets) -> ModuleName | None:
    """Return another Module with the kmod of the Module that has all nodes of the target on the kernel, or None."""
    kmod = module.container.module_name if module.container else None
    for name, other in readable.items():
        same = other.container is not None and other.container.module_name == kmod
        if name != module.name and same and any(_takes_over(each, target) for each in targets[name]):
            return name
    return None


def _takes_over(other: Target, target: Target) -> bool:
    same_kernel = other.kernel.version == target.kernel.version
    return same_kernel and other.unresolved is None and set(target.node_names) <= set(other.node_names)
