"""ConfigMaps and Secrets that build and sign sections name: from manifests, or from the cluster when needed."""

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
"""Bytes by file name."""

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


class SectionObjects(Protocol):
    """ConfigMaps and Secrets by namespace and name."""

    def config_map(self, key: Key) -> Manifest | None:
        """Return the ConfigMap, or None if it does not exist."""

    def secret(self, key: Key) -> Manifest | None:
        """Return the Secret, or None if it does not exist."""


@dataclass(frozen=True)
class GivenSections:
    """ConfigMaps and Secrets from manifests."""

    config_maps: Mapping[Key, Manifest]
    """ConfigMaps."""
    secrets: Mapping[Key, Manifest] = field(repr=False)
    """Secrets."""

    def config_map(self, key: Key) -> Manifest | None:
        """Return the ConfigMap, or None if it is not among the manifests."""
        return self.config_maps.get(key)

    def secret(self, key: Key) -> Manifest | None:
        """Return the Secret, or None if it is not among the manifests."""
        return self.secrets.get(key)


class ClusterSections:
    """ConfigMaps and Secrets of a cluster, read when needed: a private key is read only to sign."""

    def __init__(self, connect: Callable[[], Api]) -> None:
        """Take the function that connects to the cluster. It is called once, at the first read."""
        self._connect = connect
        self._secrets: dict[Key, Manifest | None] = {}

    @cached_property
    def _api(self) -> Api:
        return self._connect()

    def config_map(self, key: Key) -> Manifest | None:
        """Return the ConfigMap, or None if it does not exist. It is read each time."""
        return self._api.get(CONFIG_MAPS, key[1], key[0])

    def secret(self, key: Key) -> Manifest | None:
        """Return the Secret, or None if it does not exist. It is read once."""
        if key not in self._secrets:
            self._secrets[key] = self._api.get(SECRETS, key[1], key[0])
        return self._secrets[key]


def given_sections(inventory: Inventory) -> GivenSections:
    """Return the ConfigMaps and Secrets of manifests."""
    return GivenSections(inventory.config_maps, inventory.secrets)


def texts_of(config_map: Manifest) -> dict[str, str]:
    """Return the texts of a ConfigMap by key."""
    data = config_map.get("data")
    return {str(key): value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}


def files_of(secret: Manifest, subject: str) -> Files:
    """Return the contents of a Secret by key. Raise Malformed if a value is not base64; the error has no value."""
    encoded, plain = (part if isinstance(part := secret.get(name), dict) else {} for name in ("data", "stringData"))
    files = {}
    for key in (*encoded, *plain):
        if not _KEY.fullmatch(str(key)) or str(key) in (".", ".."):
            raise Malformed(f"{subject}: got a key {key!r}, expected letters, digits, -, _ and .")
    for key, value in encoded.items():
        try:
            files[str(key)] = base64.b64decode("".join(str(value).split()), validate=True)
        except ValueError as exc:
            raise Malformed(f"{subject}: the value of key {key} is not base64") from exc
    # A manifest may have stringData. The API server encodes it and moves it to data.
    return files | {str(key): _encoded(str(value), f"{subject}: key {key}") for key, value in plain.items()}


def text_of(config_map: Manifest, key: str, subject: str) -> str:
    """Return a text of a ConfigMap. Raise Malformed if the text cannot be written to a file."""
    text = texts_of(config_map)[key]
    _encoded(text, f"{subject}: key {key}")
    return text


def _encoded(text: str, subject: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise Malformed(f"{subject} is not valid text (half a character at {exc.start})") from exc


def words_of(key: Key) -> str:
    """Return namespace/name, for messages."""
    return "/".join(key)
