"""The fleet of a live cluster: nodes, pools, and of MachineConfigs only those that can decide of a kernel."""

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
    NODES,
    OLDER_OS_STREAMS,
    OS_STREAMS,
    POOLS,
    Forbidden,
    ReadApi,
    ResourceKind,
)
from kmm_preflight.model import Manifest
from kmm_preflight.nodes.fleet import Fleet, FleetManifests, fleet_of

_T = TypeVar("_T")
# What the machine config operator makes itself: for the roles that OpenShift has, and for any pool.
_OF_ROLES = re.compile(r"(00-(master|worker|arbiter)|01-(master|worker|arbiter)-(container-runtime|kubelet))")
_OF_POOLS = re.compile(r"9[789]-(.+?)-generated-.+")

ALL_KERNELS = "every Module is judged on every kernel taken of the release"
NO_NODES = f"{ALL_KERNELS}, because no node tells which it boots"
NO_POOLS = "nodes are judged on every stream of the release and in the flavour that they boot today"
NO_CONFIGS = "a pool boots the flavour that its nodes boot today, and no image of its own"
NO_SOURCES = "no pool boots an image of its own"
NO_NODE_POOLS = (
    "NodePools stand in the management cluster, which was not asked: nodes are judged in the flavour that they boot "
    "today, on the stream that hosted clusters of this release have"
)
NO_LAYERS = "no pool boots an image that the cluster builds"


class _Asking:
    """Questions that need not be answered: what was refused, and what is taken instead."""

    def __init__(self, api: ReadApi) -> None:
        self._api = api
        self.lacking: list[str] = []

    def list(self, kind: ResourceKind, instead: str) -> tuple[Manifest, ...] | None:
        """All objects of the kind; None where they may not be read, or there is no such kind."""
        return self._asked(partial(self._api.list, kind), kind, instead)

    def get(self, kind: ResourceKind, name: str, instead: str) -> Manifest | None:
        """One object; None where it may not be read, or is not there."""
        return self._asked(partial(self._api.get, kind, name), kind, instead)

    def _asked(self, ask: Callable[[], _T], kind: ResourceKind, instead: str) -> _T | None:
        try:
            return ask()
        except Forbidden as exc:
            self.lacking.append(f"{instead}, because {kind.resource} could not be read: {exc.message}")
            return None


def read_fleet(api: ReadApi) -> Fleet:
    """The fleet; what may not be read, or is not served, is told in `lacking` and never fatal."""
    ask = _Asking(api)
    nodes = ask.list(NODES, NO_NODES)
    if nodes is None:
        return Fleet(lacking=tuple(ask.lacking))
    if not nodes:
        return Fleet(lacking=(f"{NO_NODES}: the cluster has none",))
    pools = ask.list(POOLS, NO_POOLS)
    if not pools:
        fleet = fleet_of(FleetManifests(nodes), ())
        why = f"{NO_POOLS}: the cluster {'serves' if pools is None else 'has'} no {POOLS.resource}"
        return replace(fleet, lacking=(NO_NODE_POOLS,) if fleet.hosted else tuple(ask.lacking or [why]))
    found = FleetManifests(
        nodes=nodes,
        pools=pools,
        configs=_configs(ask, pools),
        streams=_streams(ask),
        versions=_one(ask.get(CLUSTER_VERSIONS, "version", "nothing is taken of the version first installed")),
        layered=ask.list(LAYERED_POOLS, NO_LAYERS) or (),
    )
    return fleet_of(found, ask.lacking)


def _streams(ask: _Asking) -> Sequence[Manifest]:
    """The OSImageStream, which is served in v1alpha1 alone by OpenShift 4.21 and 4.22."""
    instead, refused = "pools boot the default stream of the release", len(ask.lacking)
    found = ask.get(OS_STREAMS, "cluster", instead)
    if found is None and len(ask.lacking) == refused:
        found = ask.get(OLDER_OS_STREAMS, "cluster", instead)
    return _one(found)


def _configs(ask: _Asking, pools: Sequence[Manifest]) -> list[Manifest]:
    """What the pools aim at, and those of its sources that somebody made; each asked for once."""
    aims, sources = list[str](), list[str]()
    for pool in pools:
        configuration = Field(pool)["spec"]["configuration"]
        aims.append(configuration["name"].text())
        sources += [one["name"].text() for one in configuration["source"]]
    names = {Field(pool)["metadata"]["name"].text() for pool in pools}
    theirs = sorted({name for name in sources if name and not made_by_operator(name, names)})
    refused = len(ask.lacking)
    rendered = _each(ask, [name for name in dict.fromkeys(aims) if name], NO_CONFIGS)
    return rendered if len(ask.lacking) > refused else [*rendered, *_each(ask, theirs, NO_SOURCES)]


def made_by_operator(name: str, pools: Collection[str]) -> bool:
    """Whether the machine config operator makes the MachineConfig of this name: it sets no osImageURL of a user."""
    hit = _OF_POOLS.fullmatch(name)
    return bool(_OF_ROLES.fullmatch(name)) or (hit is not None and hit[1] in pools)


def _each(ask: _Asking, names: Sequence[str], instead: str) -> list[Manifest]:
    """Those that are there; after the first refusal no more is asked."""
    found, refused = list[Manifest](), len(ask.lacking)
    for name in names:
        one = ask.get(MACHINE_CONFIGS, name, instead)
        if len(ask.lacking) > refused:
            return []
        found += _one(one)
    return found


def _one(found: Manifest | None) -> list[Manifest]:
    return [found] if found else []
