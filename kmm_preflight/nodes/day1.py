"""Kmods that MachineConfigs bring: those of the MachineConfigs that nodes take, and those that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import PreflightError
from kmm_preflight.model import Manifest, NotJudged
from kmm_preflight.nodes.pool import Pool
from kmm_preflight.planning.boot_time import BootTimeKmod
from kmm_preflight.planning.day1_machine_config import KIND, parse_day1_machine_config

_RENDERED = "rendered-"


@dataclass(frozen=True)
class Day1Kmods:
    """The kmods of MachineConfigs."""

    kmods: tuple[BootTimeKmod, ...] = ()
    """Kmods of the MachineConfigs that nodes take, by name."""
    not_judged: tuple[NotJudged, ...] = ()
    """MachineConfigs whose kmod cannot be read."""


def day1_kmods(configs: Iterable[Manifest], pools: Sequence[Pool]) -> Day1Kmods:
    """Return the kmods of MachineConfigs.

    A rendered MachineConfig repeats the units of its sources. It counts if a pool names it and no source has its kmod.
    """
    kmods, not_judged = list[BootTimeKmod](), list[NotJudged]()
    for manifest in configs:
        try:
            kmod = parse_day1_machine_config(manifest)
        except PreflightError as exc:
            name = Field(manifest)["metadata"]["name"].value
            not_judged.append(NotJudged(f"{KIND} {name}", f"its kmod that nodes load at boot: {exc.message}"))
            continue
        if kmod:
            kmods.append(kmod)
    sources = [kmod for kmod in kmods if not kmod.name.name.startswith(_RENDERED)]
    known = {(kmod.image, kmod.kmod) for kmod in sources}
    by_config = {kmod.name.name: kmod for kmod in kmods if (kmod.image, kmod.kmod) not in known}
    rendered = [
        replace(by_config[pool.rendered], placement=replace(by_config[pool.rendered].placement, pool=pool.name))
        for pool in pools
        if pool.rendered in by_config and pool.rendered.startswith(_RENDERED)
    ]
    # Several pools may share a rendered MachineConfig only if a tree was edited by hand.
    unique = {kmod.name: kmod for kmod in (*sources, *rendered)}
    return Day1Kmods(tuple(unique[name] for name in sorted(unique)), tuple(not_judged))
