"""What a cluster, or manifests in its stead, hold of what concerns a preflight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kmm_preflight.model import Manifest
from kmm_preflight.module import Module

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Inventory:
    """Modules in order of namespace and name; ConfigMaps and Secrets by namespace and name."""

    modules: tuple[Module, ...] = ()
    config_maps: Mapping[Key, Manifest] = field(default_factory=dict)
    secrets: Mapping[Key, Manifest] = field(default_factory=dict, repr=False)
