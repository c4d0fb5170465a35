"""Settling of a target: labels and versions of its nodes, once the target kernel is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kmm_preflight.model import Finding
from kmm_preflight.nodes import findings
from kmm_preflight.nodes.changing_labels import PendingLabel, value_after
from kmm_preflight.nodes.demand import Demand
from kmm_preflight.nodes.target import Target
from kmm_preflight.nodes.versions import OtherVersion


@dataclass(frozen=True)
class OrderedUpgrade:
    """An ordered upgrade of a Module."""

    version: str | None = None
    """The version of the Module. None without ordered upgrades."""
    one_folder: bool = False
    """True if KMM is known to copy only the folder of the kernel that a NodeModulesConfig names."""


NO_UPGRADE = OrderedUpgrade()
"""No ordered upgrade."""


def settle(target: Target, demand: Demand, upgrade: OrderedUpgrade) -> Target | None:
    """Return the target with what the kernel says about the nodes, or None if the Module does not select them on it."""
    if demand.unresolved:
        return replace(target, unresolved=demand.unresolved)
    if target.unresolved:
        # Nobody knows whether nodes to come will have the label, or the kernel.
        return None if demand.pending and not demand.node_count else target
    kernel, group = target.kernel.version, demand.predicted.group
    holds = {label: label.holds_on(kernel) for label in demand.pending}
    missed = [label for label, held in holds.items() if held is False]
    if missed:
        return replace(target, unresolved=_lost(kernel, group, missed[0])) if demand.selected_today else None
    unclear = [label.key for label, held in holds.items() if held is None]
    if unclear:
        return replace(target, unresolved=findings.SELECTOR_UNCLEAR(group=group, key=unclear[0]))
    if not demand.selected_today and demand.node_count:
        new = next(label for label in demand.pending if label.wanted != label.today)
        target = _noted(target, findings.SELECTOR_NEW(group=group, key=new.key, got=new.wanted))
    return _with_version(target, demand.version, upgrade) if demand.version else target


def _lost(kernel: str, group: str, label: PendingLabel) -> Finding:
    got = value_after(label.key, kernel) or "another value"
    return findings.SELECTOR_LOST(kernel=kernel, group=group, key=label.key, got=got, expected=label.wanted)


def _noted(target: Target, note: Finding) -> Target:
    return replace(target, notes=(*target.notes, note))


def _with_version(target: Target, version: OtherVersion, upgrade: OrderedUpgrade) -> Target:
    """Return the target for nodes that keep another version of the Module (docs/reference/kmm.md 30)."""
    kernel, got, expected = target.kernel.version, version.value, upgrade.version
    target = replace(target, version=version)
    if version.loaded is None:
        return replace(target, unresolved=findings.VERSION_IMAGE_UNKNOWN(got=got, expected=expected))
    target = _noted(target, findings.VERSION_KEPT(got=got, kernel=kernel, expected=expected))
    today = version.loaded.kernel
    if not today or today == kernel.removesuffix("+"):
        return target
    if upgrade.one_folder:
        other = findings.VERSION_KERNEL(got=got, today=today, kernel=kernel, expected=expected)
        return replace(target, unresolved=other)
    return _noted(target, findings.VERSION_KERNEL_UNCLEAR(got=got, today=today, kernel=kernel, expected=expected))
