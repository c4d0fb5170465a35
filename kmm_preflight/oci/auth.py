"""Credentials for registries, from auth.json files and pull Secrets; the longest matching path wins."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed
from kmm_preflight.model import Manifest

_PARTS = ("stringData", "data")
_PARTS_OF_LOGIN = {".dockerconfigjson", ".dockercfg"}
_HUB_SERVER = "https://index.docker.io/v1/"
_HUB_KEYS = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class Credential:
    """A login; an identity token stands in for the password where one is given."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Helper:
    """The program docker-credential-NAME, which knows the login for a server."""

    name: str
    server: str


@dataclass(frozen=True)
class Keychain:
    """Credentials by registry path; source says in words whose they are and never a value.

    helpers are names of credential helpers by host, store that for every other host. kubelet says that a kubelet's
    rules hold beside those of auth.json. stand_in says that these are not the node's own, so that a refusal says
    nothing of the node.
    """

    source: str
    credentials: Mapping[str, Credential] = field(repr=False)
    helpers: Mapping[str, str] = field(default_factory=dict)
    store: str = ""
    kubelet: bool = False
    stand_in: bool = False

    def find(self, host: str, repository: str) -> Credential | Helper | None:
        """The host's helper, else the credential of the longest key that is the path or a parent of it, else the store.

        containers-auth.json(5); no wildcards.
        """
        hosts = _HUB_KEYS if host in _HUB_KEYS else (host,)
        server = _HUB_SERVER if host in _HUB_KEYS else host
        for name in hosts:
            if name in self.helpers:
                return Helper(self.helpers[name], server)
        parts = repository.split("/")
        for length in range(len(parts), -1, -1):
            for name in hosts:
                key = "/".join([name, *parts[:length]])
                if key in self.credentials:
                    return self.credentials[key]
        return Helper(self.store, server) if self.store else None

    def every(self, host: str, repository: str) -> tuple[Credential | Helper, ...]:
        """The logins to try for a path: what find finds, then of a kubelet all keys that match, longer ones first."""
        found = self.find(host, repository)
        keys = sorted(self.credentials, reverse=True) if self.kubelet else []
        matching = [self.credentials[key] for key in keys if _kubelet_matches(key, host, repository)]
        return tuple(dict.fromkeys([*([found] if found else []), *matching]))


def _kubelet_matches(key: str, host: str, repository: str) -> bool:
    """Kubernetes' rule: each part of the host as a glob, the same port, and a path that begins with the key's."""
    name, _, path = key.partition("/")
    (globs, port), (parts, wanted) = _split(name), _split(host)
    return (
        port == wanted
        and len(globs) == len(parts)
        and repository.startswith(path)
        and all(fnmatchcase(part, glob) for part, glob in zip(parts, globs, strict=True))
    )


def _split(host: str) -> tuple[list[str], str]:
    name, _, port = host.partition(":")
    return name.split("."), port


def parse_auth_file(text: str, source: str) -> Keychain:
    """The keychain of an auth.json or config.json; Malformed names the entry, never its value."""
    whole = _decoded(text, source)
    helpers = _helpers(whole, source)
    store = whole["credsStore"].value
    if not isinstance(store, str | None):
        raise Malformed(f"{source}: credsStore is no text, expected the name of a credential helper")
    if not whole["auths"].given and (helpers or store):
        return Keychain(source, {}, helpers, store or "")
    return replace(_keychain(whole["auths"], source), helpers=helpers, store=store or "")


def _helpers(whole: Field, source: str) -> dict[str, str]:
    value = whole["credHelpers"].value
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise Malformed(f"{source}: credHelpers is no mapping, expected names of credential helpers by registry")
    return {_key(host): name for host, name in value.items()}


def parse_pull_secret(secret: Manifest, source: str) -> Keychain:
    """The keychain of a Secret of type dockerconfigjson or dockercfg; Malformed when it holds none."""
    for key, nested in ((".dockerconfigjson", True), (".dockercfg", False)):
        text = _secret_text(secret, key, source)
        if text is not None:
            whole = _decoded(text, source)
            return replace(_keychain(whole["auths"] if nested else whole, source), kubelet=True)
    raise Malformed(f"{source}: got neither key .dockerconfigjson nor .dockercfg, expected one of them")


def holds_login(secret: Manifest) -> bool:
    """Whether the Secret has a key for a login at all; a kubelet passes over one that has none."""
    return any(_PARTS_OF_LOGIN & part.keys() for name in _PARTS if isinstance(part := secret.get(name), dict))


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
