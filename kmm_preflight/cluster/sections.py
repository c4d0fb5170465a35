"""ConfigMaps and Secrets that build and sign sections name: from manifests, or read from the cluster on demand."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from kmm_preflight.cluster.api import CONFIG_MAPS, SECRETS, Api
from kmm_preflight.cluster.inventory import Inventory, Key
from kmm_preflight.errors import Malformed
from kmm_preflight.model import Manifest

Files = Mapping[str, bytes]
"""Contents by file name."""

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


class SectionObjects(Protocol):
    """Where objects of a Module's namespace come from. Raises as errors.py says."""

    def config_map(self, key: Key) -> Manifest | None:
        """The ConfigMap; None when there is none."""

    def secret(self, key: Key) -> Manifest | None:
        """The Secret; None when there is none."""


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


def texts_of(config_map: Manifest) -> dict[str, str]:
    """The texts of a ConfigMap by key."""
    data = config_map.get("data")
    return {str(key): value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}


def files_of(secret: Manifest, subject: str) -> Files:
    """The contents of a Secret by key; Malformed, with the key and none of the value, for what is no base64."""
    encoded, plain = (part if isinstance(part := secret.get(name), dict) else {} for name in ("data", "stringData"))
    files = {}
    for key in (*encoded, *plain):
        if not _KEY.fullmatch(str(key)) or str(key) in (".", ".."):
            raise Malformed(f"{subject}: got a key {key!r}, expected letters, digits, -, _ and .")
    for key, value in encoded.items():
        try:
            files[str(key)] = base64.b64decode("".join(str(value).split()), validate=True)
        except ValueError as exc:
            raise Malformed(f"{subject}: key {key} is no base64") from exc
    # stringData is what a manifest may hold before the API server has encoded it.
    return files | {str(key): _encoded(str(value), f"{subject}: key {key}") for key, value in plain.items()}


def text_of(config_map: Manifest, key: str, subject: str) -> str:
    """A text of a ConfigMap; Malformed when it is none that a file can hold."""
    text = texts_of(config_map)[key]
    _encoded(text, f"{subject}: key {key}")
    return text


def _encoded(text: str, subject: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise Malformed(f"{subject} holds no text (half a character at {exc.start})") from exc


def words_of(key: Key) -> str:
    """An object's name as messages have it."""
    return "/".join(key)
