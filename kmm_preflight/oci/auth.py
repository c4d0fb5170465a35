"""Keychains: credentials for registries, from auth.json files and pull Secrets. The longest matching path wins."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed
from kmm_preflight.model import Manifest

_SECRET_FIELDS = ("stringData", "data")
_LOGIN_KEYS = {
    ".dockerconfigjson": "kubernetes.io/dockerconfigjson",
    ".dockercfg": "kubernetes.io/dockercfg",
}
_HUB_SERVER = "https://index.docker.io/v1/"
_HUB_KEYS = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class Credential:
    """A login to a registry. If it has an identity token, the token is used instead of the password."""

    username: str = field(repr=False)
    """The user name; empty if the login has only an identity token."""
    password: str = field(repr=False)
    """The password; empty if the login has only an identity token."""
    identity_token: str | None = field(default=None, repr=False)
    """The refresh token for the registry's token server."""


@dataclass(frozen=True)
class Helper:
    """A credential helper: the program docker-credential-NAME, which returns the login for a server."""

    name: str
    """The NAME of the program."""
    server: str
    """The server that the program needs as its input."""


@dataclass(frozen=True)
class Keychain:
    """The credentials of a single source: an auth.json file or a pull Secret."""

    source: str
    """The name of the source for messages. It contains no secret value."""
    credentials: Mapping[str, Credential] = field(repr=False)
    """Credentials by registry path: host[:port][/path]."""
    helpers: Mapping[str, str] = field(default_factory=dict)
    """Names of credential helpers by host."""
    store: str | None = None
    """The name of the credential helper for every other host."""
    kubelet: bool = False
    """True if a kubelet's rules for keys apply in addition to those of auth.json."""
    stand_in: bool = False
    """True if these credentials are not the node's: then a refusal proves nothing about the node."""

    def find(self, host: str, repository: str) -> Credential | Helper | None:
        """Return the login for a path by the rules of containers-auth.json(5), without wildcards.

        The first match decides: the host's helper, the credential with the longest key that is the path or a parent
        of the path, the store.
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
        """Return the logins to try for a path: the result of `find`, then all keys that match by a kubelet's rules.

        Longer keys come first.
        """
        first = self.find(host, repository)
        keys = sorted(self.credentials, reverse=True) if self.kubelet else []
        matching = [self.credentials[key] for key in keys if _kubelet_matches(key, host, repository)]
        return tuple(dict.fromkeys([*([first] if first else []), *matching]))


def _kubelet_matches(key: str, host: str, repository: str) -> bool:
    """True if the key matches: each part of its host as a glob, an equal port, and a path that begins with its path."""
    name, _, path = key.partition("/")
    (globs, key_port), (parts, port) = _split(name), _split(host)
    return (
        key_port == port
        and len(globs) == len(parts)
        and repository.startswith(path)
        and all(fnmatchcase(part, glob) for part, glob in zip(parts, globs, strict=True))
    )


def _split(host: str) -> tuple[list[str], str]:
    name, _, port = host.partition(":")
    return name.split("."), port


def parse_auth_file(text: str, source: str) -> Keychain:
    """Parse an auth.json or config.json. Raise Malformed with the name of the entry, never with its value."""
    document = _decoded(text, source)
    helpers = _helpers(document, source)
    store = document["credsStore"].value
    if not isinstance(store, str | None):
        raise Malformed(f"{source}: credsStore is not text, expected the name of a credential helper")
    if not document["auths"].given and (helpers or store):
        return Keychain(source, {}, helpers, store or None)
    return replace(_keychain(document["auths"], source), helpers=helpers, store=store or None)


def _helpers(document: Field, source: str) -> dict[str, str]:
    value = document["credHelpers"].value
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise Malformed(f"{source}: credHelpers is not a mapping, expected names of credential helpers by registry")
    return {_key(host): name for host, name in value.items()}


def parse_pull_secret(secret: Manifest, source: str) -> Keychain:
    """Return the logins of a pull Secret. Without a type, the key decides. Raise Malformed."""
    for key, of in _LOGIN_KEYS.items():
        text = _secret_text(secret, key, source) if (secret.get("type") or of) == of else None
        if text is not None:
            document = _decoded(text, source)
            auths = document["auths"] if key == ".dockerconfigjson" else document
            return replace(_keychain(auths, source), kubelet=True)
    raise Malformed(f"{source}: has neither the key .dockerconfigjson nor .dockercfg")


def holds_login(secret: Manifest) -> bool:
    """True if the Secret has a key for logins."""
    return bool(_keys(secret) & _LOGIN_KEYS.keys())


def no_login(secret: Manifest) -> str | None:
    """Return why a kubelet reads no login from the Secret, or None (docs/reference/kmm.md 12.2)."""
    keys, kind = _keys(secret), secret.get("type") or "Opaque"
    if not holds_login(secret):
        return f"it has neither the key {' nor '.join(_LOGIN_KEYS)}"
    if any(kind == of and key in keys for key, of in _LOGIN_KEYS.items()):
        return None
    wanted = " or ".join(f"{key} of a Secret of type {of}" for key, of in _LOGIN_KEYS.items() if key in keys)
    return f"its type is {kind}, and a kubelet reads {wanted}"


def _keys(secret: Manifest) -> set[str]:
    return {key for name in _SECRET_FIELDS if isinstance(part := secret.get(name), dict) for key in part}


def _secret_text(secret: Manifest, key: str, source: str) -> str | None:
    # A manifest that was not applied yet may have stringData: the API server encodes it into data.
    plain, encoded = (part.get(key) if isinstance(part := secret.get(name), dict) else None for name in _SECRET_FIELDS)
    if isinstance(plain, str):
        return plain
    if not isinstance(encoded, str):
        return None
    try:
        return _text_of_base64(encoded)
    except ValueError as exc:
        raise Malformed(f"{source}: key {key} is not text in base64") from exc


def _text_of_base64(encoded: str) -> str:
    """Decode base64 text. Ignore line ends, as Kubernetes does. Raise ValueError if it is not text in base64."""
    text = encoded.replace("\r", "").replace("\n", "")
    if "=" not in text:  # a login may come without padding
        text += "=" * (-len(text) % 4)
    return base64.b64decode(text, validate=True).decode()


def _decoded(text: str, source: str) -> Field:
    # Field.mapping is not used: its error would show the value.
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"{source}: not JSON, expected an auth.json") from exc
    if not isinstance(value, dict):
        raise Malformed(f"{source}: not a JSON object, expected an auth.json")
    return Field(value, source)


def _keychain(auths: Field, source: str) -> Keychain:
    if not isinstance(auths.value, dict):
        raise Malformed(f"{source}: no mapping of registries, expected the auths of an auth.json")
    # docker writes an entry without a login if a credential helper keeps the login.
    read = {_key(name): _credential(auths[name], source, name) for name in auths.value}
    return Keychain(source, {key: credential for key, credential in read.items() if credential != _NO_LOGIN})


def _key(name: str) -> str:
    """Return a key as a path, without scheme, API version and closing slash."""
    bare = name.split("://", 1)[-1].rstrip("/")
    return bare.removesuffix("/v1").removesuffix("/v2")


_NO_LOGIN = Credential("", "")


def _credential(entry: Field, source: str, name: str) -> Credential:
    problem = f"{source}: the entry of {name} is not a login, expected auth (base64 of user:password)"
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
    return Credential(username, password, values.get("identitytoken") or None)
