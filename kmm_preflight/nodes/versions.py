"""Ordered upgrades: the version of a Module that each node runs (docs/reference/kmm.md 30)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kmm_preflight.model import ModuleName
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.node import Node
from kmm_preflight.planning.loaded import LoadedModule
from kmm_preflight.planning.module import Module


@dataclass(frozen=True)
class OtherVersion:
    """A version of a Module that nodes keep although the Module has another one."""

    value: str
    """The value of the nodes' label."""
    loaded: LoadedModule | None = None
    """The entry of the nodes' NodeModulesConfig, or None if it was not given."""


class Own(Enum):
    """Nodes without another version."""

    MODULE = "the Module's version"
    """KMM loads the Module's image."""
    NOTHING = "no version"
    """KMM loads nothing: the node has no label, or has nothing loaded in the version of its label."""


NodeVersion = Own | OtherVersion


def version_label(module: ModuleName) -> str:
    """Return the label of nodes that names the version of the Module."""
    return f"kmm.node.kubernetes.io/version-module.{module.namespace}.{module.name}"


def version_on(node: Node, module: Module, fleet: Fleet) -> NodeVersion:
    """Return the version of the Module that KMM keeps on the node."""
    if module.version is None:
        return Own.MODULE
    value = node.labels.get(version_label(module.name))
    if value is None:
        return Own.NOTHING
    if value == module.version:
        return Own.MODULE
    if node.name not in fleet.loaded:
        return Own.NOTHING if fleet.all_loaded_known else OtherVersion(value)
    entries = [entry for entry in fleet.loaded[node.name] if entry.module == module.name]
    return OtherVersion(value, entries[0]) if entries else Own.NOTHING
