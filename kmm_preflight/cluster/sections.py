"""The ConfigMaps and Secrets that build and sign sections name, of manifests or asked of a cluster when needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from kmm_preflight.cluster.api import CONFIG_MAPS, SECRETS, Api
from kmm_preflight.cluster.inventory import Inventory, Key
from kmm_preflight.model import Manifest


@dataclass(frozen=True)
class GivenSections:
    """What manifests hold."""

    config_maps: Mapping[Key, Manifest]
    secrets: Mapping[Key, Manifest] = field(repr=False)

    def config_map(self, key: Key) -> Manifest | None:
        """See Sources."""
        return self.config_maps.get(key)

    def secret(self, key: Key) -> Manifest | None:
        """See Sources."""
        return self.secrets.get(key)


class ClusterSections:
    """What a cluster has, asked for the first time that it is needed: a key is read only where something is signed."""

    def __init__(self, connect: Callable[[], Api]) -> None:
        """connect is called once, and only when something is asked for."""
        self._connect = connect
        self._secrets: dict[Key, Manifest | None] = {}

    @cached_property
    def _api(self) -> Api:
        return self._connect()

    def config_map(self, key: Key) -> Manifest | None:
        """See Sources."""
        return self._api.get(CONFIG_MAPS, key[1], key[0])

    def secret(self, key: Key) -> Manifest | None:
        """See Sources."""
        if key not in self._secrets:
            self._secrets[key] = self._api.get(SECRETS, key[1], key[0])
        return self._secrets[key]


def given_sections(inventory: Inventory) -> GivenSections:
    """Those of manifests."""
    return GivenSections(inventory.config_maps, inventory.secrets)
