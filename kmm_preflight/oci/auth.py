"""Credentials for registries, from auth.json files and pull Secrets; the longest matching path wins."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from kmm_preflight.errors import Malformed
from kmm_preflight.fields import Field
from kmm_preflight.model import Manifest

_PARTS = ("stringData", "data")
_HUB_KEYS = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class Credential:
    """A login; an identity token stands in for the password where one is given."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Keychain:
    """Credentials by registry path; source says in words whose they are and never a value."""

    source: str
    credentials: Mapping[str, Credential] = field(repr=False)

    def find(self, host: str, repository: str) -> Credential | None:
        """The credential of the longest key that is the path or a parent of it (containers-auth.json)."""
        hosts = _HUB_KEYS if host in _HUB_KEYS else (host,)
        parts = repository.split("/")
        for length in range(len(parts), -1, -1):
            for name in hosts:
                key = "/".join([name, *parts[:length]])
                if key in self.credentials:
                    return self.credentials[key]
        return None


def parse_auth_file(text: str, source: str) -> Keychain:
    """The keychain of an auth.json or config.json; Malformed names the entry, never its value."""
    return _keychain(_decoded(text, source)["auths"], source)


def parse_pull_secret(secret: Manifest, source: str) -> Keychain:
    """The keychain of a Secret of type dockerconfigjson or dockercfg; Malformed when it holds none."""
    for key, nested in ((".dockerconfigjson", True), (".dockercfg", False)):
        text = _secret_text(secret, key, source)
        if text is not None:
            whole = _decoded(text, source)
            return _keychain(whole["auths"] if nested else whole, source)
    raise Malformed(f"{source}: got neither key .dockerconfigjson nor .dockercfg, expected one of them")


def _secret_text(secret: Manifest, key: str, source: str) -> str | None:
    # stringData is what a manifest may hold before the API server has encoded it.
    plain, encoded = (part.get(key) if isinstance(part := secret.get(name), dict) else None for name in _PARTS)
    if isinstance(plain, str):
        return plain
    if not isinstance(encoded, str):
        return None
    try:
        return _text_of_base64(encoded)
    except ValueError as exc:
        raise Malformed(f"{source}: key {key} is no base64 of text") from exc


def _text_of_base64(encoded: str) -> str:
    """Line ends are passed over, as Kubernetes does; ValueError for what is no base64 of text."""
    return base64.b64decode(encoded.replace("\r", "").replace("\n", ""), validate=True).decode()


def _decoded(text: str, source: str) -> Field:
    # Not by Field.mapping: its refusal would show what stands there.
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"{source}: got no JSON, expected an auth.json") from exc
    if not isinstance(value, dict):
        raise Malformed(f"{source}: got no JSON object, expected an auth.json")
    return Field(value, source)


def _keychain(auths: Field, source: str) -> Keychain:
    if not isinstance(auths.value, dict):
        raise Malformed(f"{source}: got no mapping of registries, expected the auths of an auth.json")
    # docker writes an empty entry where a credential helper keeps the login.
    given = [name for name, entry in auths.value.items() if entry != {}]
    return Keychain(source, {_key(name): _credential(auths[name], source, name) for name in given})


def _key(name: str) -> str:
    """A key as a path: no scheme, no API version, no closing slash."""
    bare = name.split("://", 1)[-1].rstrip("/")
    return bare.removesuffix("/v1").removesuffix("/v2")


def _credential(entry: Field, source: str, name: str) -> Credential:
    problem = f"{source}: the entry of {name} is no login, expected auth (base64 of user:password)"
    if not isinstance(entry.value, dict):
        raise Malformed(problem)
    values = {key: value for key, value in entry.value.items() if isinstance(value, str)}
    username, password = values.get("username", ""), values.get("password", "")
    if encoded := values.get("auth"):
        try:
            username, colon, password = _text_of_base64(encoded).partition(":")
        except ValueError as exc:
            raise Malformed(problem) from exc
        if not colon:
            raise Malformed(problem)
    return Credential(username, password, values.get("identitytoken", ""))
