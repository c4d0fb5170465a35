"""Read the objects of all kinds that bring kmods beside Module, from a cluster or from manifests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kmm_preflight.cluster.api import MANAGED_CLUSTERS, Forbidden, ReadApi, ResourceKind
from kmm_preflight.cluster.inventory import Inventory
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.model import Manifest, NotJudged
from kmm_preflight.nodes.day1 import Day1Kmods
from kmm_preflight.planning.boot_time import BootTimeKmod
from kmm_preflight.planning.kinds import SOURCE_KINDS, SourceKind
from kmm_preflight.planning.managed_cluster_module import ManagedClusterModule
from kmm_preflight.planning.module import refused_module
from kmm_preflight.planning.source import BootPlacement, KmodSource


@dataclass(frozen=True)
class OtherSources:
    """Objects that bring kmods beside Modules."""

    sources: tuple[KmodSource, ...] = ()
    """The objects."""
    not_judged: tuple[NotJudged, ...] = ()
    """Kinds that the account may not list."""
    assumed: tuple[str, ...] = ()
    """Sentences about objects that could not be read, and what the run assumes instead."""


def resource_of(kind: SourceKind) -> ResourceKind:
    """Return the resource of a kind."""
    return ResourceKind(kind.group, kind.version, kind.plural, kind.namespaced)


def read_other_sources(api: ReadApi) -> OtherSources:
    """Read the objects of all other kinds that the cluster serves. A kind that may not be listed is not judged."""
    sources, not_judged = list[KmodSource](), list[NotJudged]()
    for kind in SOURCE_KINDS:
        resource = resource_of(kind)
        # Without the right to list, the API server answers 403 also for a resource that it does not serve.
        if not api.serves(resource):
            continue
        try:
            manifests = api.list(resource) or ()
        except Forbidden as exc:
            not_judged.append(NotJudged(f"every {kind.kind}", f"{resource.resource} could not be read: {exc.message}"))
            continue
        sources += [_parsed(kind, manifest) for manifest in manifests]
    return _on_spokes(api, OtherSources(tuple(sources), tuple(not_judged)))


def _parsed(kind: SourceKind, manifest: Manifest) -> KmodSource:
    try:
        return kind.parse(manifest, "")
    except (Malformed, BoundExceeded) as exc:
        return refused_module(manifest, exc, kind=kind.kind)


def _on_spokes(api: ReadApi, found: OtherSources) -> OtherSources:
    """Return the objects of a hub with the spokes. Without the right to list spokes, their nodes stay unknown."""
    if not any(isinstance(source, ManagedClusterModule) for source in found.sources):
        return found
    try:
        clusters = api.list(MANAGED_CLUSTERS) if api.serves(MANAGED_CLUSTERS) else None
    except Forbidden as exc:
        instead = f"the spokes are unknown, because {MANAGED_CLUSTERS.resource} could not be read: {exc.message}"
        return replace(found, assumed=(*found.assumed, instead))
    return found if clusters is None else replace(found, sources=on_spokes(found.sources, clusters))


def on_spokes(sources: Iterable[KmodSource], clusters: tuple[Manifest, ...]) -> tuple[KmodSource, ...]:
    """Return the objects. Those of a hub have the spokes that they select."""
    return tuple(source.on(clusters) if isinstance(source, ManagedClusterModule) else source for source in sources)


def with_day1(inventory: Inventory, found: Day1Kmods) -> Inventory:
    """Return the inventory with the kmods of MachineConfigs.

    A MachineConfig that KMM's operator writes for a BootModuleConfig is not judged twice.
    """
    written = {
        (source.placement.machine_config, source.image, source.kmod)
        for source in inventory.other_sources
        if isinstance(source, BootTimeKmod)
    }
    own = [kmod for kmod in found.kmods if not _is_written(kmod, written)]
    return replace(
        inventory,
        other_sources=(*inventory.other_sources, *own),
        not_judged=(*inventory.not_judged, *found.not_judged),
    )


def _is_written(kmod: BootTimeKmod, written: set[tuple[str, str, str]]) -> bool:
    placement: BootPlacement = kmod.placement
    # A rendered MachineConfig has the name of none of its sources.
    rendered = placement.machine_config.startswith("rendered-")
    return any(
        (rendered or name == placement.machine_config) and (image, name_of_kmod) == (kmod.image, kmod.kmod)
        for name, image, name_of_kmod in written
    )
