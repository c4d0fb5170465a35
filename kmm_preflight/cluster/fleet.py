"""Read the fleet of a live cluster: nodes, pools, and the MachineConfigs that can decide a kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.api import (
    CLUSTER_VERSIONS,
    LAYERED_POOLS,
    MACHINE_CONFIGS,
    NODE_MODULES,
    NODES,
    OLDER_OS_STREAMS,
    OS_STREAMS,
    POOLS,
    Forbidden,
    ReadApi,
    ResourceKind,
)
from kmm_preflight.model import Manifest, NotJudged
from kmm_preflight.nodes.day1 import Day1Kmods
from kmm_preflight.nodes.fleet import Fleet, FleetManifests, fleet_of
from kmm_preflight.nodes.selection import ALL_KERNELS

_T = TypeVar("_T")
# Names of MachineConfigs that the machine config operator makes: for OpenShift's roles, and for any pool.
_OF_ROLES = re.compile(r"(00-(master|worker|arbiter)|01-(master|worker|arbiter)-(container-runtime|kubelet))")
_OF_POOLS = re.compile(r"9[789]-(.+?)-generated-.+")

NO_POOLS = "nodes are judged on every stream of the release and in the flavour that they boot today"
NO_CONFIGS = (
    "a pool is assumed to boot the flavour that its nodes boot today, and the release's OS image without further "
    "kernel arguments"
)
NO_SOURCES = "every pool is assumed to boot the release's OS image"
NO_NODE_POOLS = (
    "NodePools are in the management cluster, which was not read: nodes are judged in the flavour that they boot "
    "today, on the stream that hosted clusters of this release have"
)
NO_LAYERS = "every pool is assumed to boot an OS image that the cluster does not build"
NO_NODE_MODULES = "images of other versions than a Module's own are unknown"
NO_STREAMS = "pools are assumed to boot the default stream of the release"
NO_VERSION = "the version that the cluster was installed with is unknown"


class _OptionalReader:
    """Read objects that the account may be forbidden to read. Collect what is assumed instead."""

    def __init__(self, api: ReadApi) -> None:
        self._api = api
        self.assumed: list[str] = []
        self.forbidden: dict[ResourceKind, str] = {}

    def list(self, kind: ResourceKind, instead: str) -> tuple[Manifest, ...] | None:
        """Return all objects of the kind, or None if they are forbidden or the kind does not exist."""
        return self._read(partial(self._api.list, kind), kind, instead)

    def get(self, kind: ResourceKind, name: str, instead: str) -> Manifest | None:
        """Return the object, or None if it is forbidden or does not exist."""
        return self._read(partial(self._api.get, kind, name), kind, instead)

    def _read(self, read: Callable[[], _T], kind: ResourceKind, instead: str) -> _T | None:
        try:
            return read()
        except Forbidden as exc:
            self.forbidden[kind] = exc.message
            self.assumed.append(f"{instead}, because {kind.resource} could not be read: {exc.message}")
            return None


def read_fleet(api: ReadApi, ordered: bool = False) -> Fleet:
    """Read the fleet. `assumed` names the objects that are forbidden or not served.

    ordered is true if a Module has a version: then the NodeModulesConfigs name images that nodes keep.
    """
    reader = _OptionalReader(api)
    nodes = reader.list(NODES, ALL_KERNELS)
    if nodes is None:
        return Fleet(assumed=tuple(reader.assumed), day1=read_day1(api))
    if not nodes:
        return Fleet(assumed=(f"{ALL_KERNELS}: the cluster has no nodes",), day1=read_day1(api))
    loaded = reader.list(NODE_MODULES, NO_NODE_MODULES) if ordered else None
    pools = reader.list(POOLS, NO_POOLS)
    if not pools:
        fleet = fleet_of(FleetManifests(nodes, loaded=loaded or (), all_loaded_known=loaded is not None), ())
        fleet = replace(fleet, day1=_with_forbidden(Day1Kmods(), reader, api))
        reason = f"{NO_POOLS}: the cluster {'serves' if pools is None else 'has'} no {POOLS.resource}"
        return replace(fleet, assumed=(NO_NODE_POOLS,) if fleet.hosted else tuple(reader.assumed or [reason]))
    manifests = FleetManifests(
        nodes=nodes,
        pools=pools,
        configs=_configs(reader, pools),
        streams=_streams(reader),
        versions=_list_of(reader.get(CLUSTER_VERSIONS, "version", NO_VERSION)),
        layered=reader.list(LAYERED_POOLS, NO_LAYERS) or (),
        loaded=loaded or (),
        all_loaded_known=loaded is not None,
    )
    fleet = fleet_of(manifests, reader.assumed)
    return replace(fleet, day1=_with_forbidden(fleet.day1, reader, api))


def read_day1(api: ReadApi) -> Day1Kmods:
    """Read the kmods of the MachineConfigs that pools take, for a run that reads no nodes."""
    reader = _OptionalReader(api)
    pools = (reader.list(POOLS, NO_POOLS) if api.serves(POOLS) else None) or ()
    manifests = FleetManifests(pools=pools, configs=_configs(reader, pools))
    return _with_forbidden(fleet_of(manifests, ()).day1, reader, api)


def _with_forbidden(found: Day1Kmods, reader: _OptionalReader, api: ReadApi) -> Day1Kmods:
    """Return the kmods. If a resource is forbidden that the cluster serves, MachineConfigs are not judged."""
    not_judged = [
        NotJudged(
            "every MachineConfig with a kmod that nodes load at boot", f"{kind.resource} could not be read: {why}"
        )
        for kind, why in reader.forbidden.items()
        if kind in (POOLS, MACHINE_CONFIGS) and api.serves(kind)
    ]
    return replace(found, not_judged=(*found.not_judged, *not_judged))


def _streams(reader: _OptionalReader) -> Sequence[Manifest]:
    """Return the OSImageStream. OpenShift 4.21 and 4.22 serve it in v1alpha1 only."""
    assumed = len(reader.assumed)
    stream = reader.get(OS_STREAMS, "cluster", NO_STREAMS)
    if stream is None and len(reader.assumed) == assumed:
        stream = reader.get(OLDER_OS_STREAMS, "cluster", NO_STREAMS)
    return _list_of(stream)


def _configs(reader: _OptionalReader, pools: Sequence[Manifest]) -> list[Manifest]:
    """Return the rendered MachineConfigs of the pools, and their sources that a user made."""
    rendered, sources = list[str](), list[str]()
    for pool in pools:
        configuration = Field(pool)["spec"]["configuration"]
        rendered.append(configuration["name"].text())
        sources += [source["name"].text() for source in configuration["source"]]
    pool_names = {Field(pool)["metadata"]["name"].text() for pool in pools}
    by_users = sorted({name for name in sources if name and not made_by_operator(name, pool_names)})
    assumed = len(reader.assumed)
    configs = _get_all(reader, [name for name in dict.fromkeys(rendered) if name], NO_CONFIGS)
    return configs if len(reader.assumed) > assumed else [*configs, *_get_all(reader, by_users, NO_SOURCES)]


def made_by_operator(name: str, pools: Collection[str]) -> bool:
    """True if the machine config operator makes the MachineConfig of this name. Its osImageURL is not a user's."""
    match = _OF_POOLS.fullmatch(name)
    return bool(_OF_ROLES.fullmatch(name)) or (match is not None and match[1] in pools)


def _get_all(reader: _OptionalReader, names: Sequence[str], instead: str) -> list[Manifest]:
    """Return the MachineConfigs that exist. If one is forbidden, return an empty list and read no more."""
    configs, assumed = list[Manifest](), len(reader.assumed)
    for name in names:
        config = reader.get(MACHINE_CONFIGS, name, instead)
        if len(reader.assumed) > assumed:
            return []
        configs += _list_of(config)
    return configs


def _list_of(manifest: Manifest | None) -> list[Manifest]:
    return [manifest] if manifest else []
