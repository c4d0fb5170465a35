"""Kernel arguments of MachineConfigs, as the nodes of a pool boot with them (docs/reference/openshift.md 4.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kmm_preflight.model import BootArguments
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.machine_config import MachineConfig, merge_order
from kmm_preflight.nodes.node_pool import NodePool
from kmm_preflight.nodes.pool import Pool

# A word may have quoted parts with spaces. A quote without its pair reaches to the end (lib/cmdline.c, next_arg).
_WORD = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')


def split_arguments(item: str) -> list[str]:
    """Return the words of an item of spec.kernelArguments, without the quotes that the kernel removes."""
    return [word for match in _WORD.finditer(item) if (word := _without_quotes(match[0]))]


def boot_arguments(group: str, sources: Sequence[MachineConfig]) -> BootArguments:
    """Return the boot arguments of nodes with these MachineConfigs, in the order of the merge."""
    merged = merge_order(sources)
    items = dict.fromkeys(item for source in merged for item in source.kernel_arguments)
    words = tuple(word for item in items for word in split_arguments(item))
    return BootArguments(group, words, any(source.fips for source in merged))


def pool_arguments(pool: Pool, fleet: Fleet) -> BootArguments | None:
    """Return the boot arguments of a pool's nodes. Without any MachineConfig of the pool, return None.

    The rendered MachineConfig decides. Without it, merge those of its sources that were given.
    """
    rendered = fleet.configs.get(pool.rendered) if pool.rendered else None
    sources = [rendered] if rendered else fleet.sources(pool)
    return boot_arguments(f"pool {pool.name}", sources) if sources else None


def node_pool_arguments(pool: NodePool) -> BootArguments | None:
    """Return the boot arguments of a NodePool's nodes. If none of its ConfigMaps was given, return None."""
    if pool.missing_config_maps and not pool.configs:
        return None
    return boot_arguments(f"NodePool {pool.name}", pool.configs)


def _without_quotes(word: str) -> str:
    """Return the word without quotes around it or around its value, which the kernel removes."""
    name, equals, value = word.partition("=")
    if word.startswith('"'):
        return word[1:].removesuffix('"')
    if equals and value.startswith('"'):
        return f"{name}={value[1:].removesuffix(chr(34))}"
    return word
