"""Credentials from auth.json files and pull Secrets. No message contains a credential."""

from __future__ import annotations

import base64
import json

import pytest

from kmm_preflight.cluster.credentials import Credentials
from kmm_preflight.errors import Malformed
from kmm_preflight.model import Manifest
from kmm_preflight.oci.auth import Credential, Keychain, parse_auth_file, parse_pull_secret
from kmm_preflight.oci.credentials import PullCredentials


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _keychain(*keys: str) -> Keychain:
    auths = {key: {"auth": _encoded(f"user:{key}")} for key in keys}
    return parse_auth_file(json.dumps({"auths": auths}), "the table")


@pytest.mark.parametrize(
    ("keys", "host", "repository", "key"),
    [
        (["quay.io"], "quay.io", "a/b", "quay.io"),
        (["quay.io", "quay.io/a", "quay.io/a/b"], "quay.io", "a/b", "quay.io/a/b"),
        (["quay.io", "quay.io/a"], "quay.io", "a/b/c", "quay.io/a"),
        (["quay.io/a/b"], "quay.io", "a/bc", None),
        (["quay.io/a"], "quay.io", "b", None),
        (["quay.io"], "quay.io:443", "a", None),
        (["registry:5000"], "registry:5000", "a", "registry:5000"),
        (["registry"], "registry:5000", "a", None),
        (["https://quay.io"], "quay.io", "a", "https://quay.io"),
        (["https://quay.io/v2/"], "quay.io", "a", "https://quay.io/v2/"),
        (["https://index.docker.io/v1/"], "docker.io", "library/busybox", "https://index.docker.io/v1/"),
        (["docker.io"], "docker.io", "a/b", "docker.io"),
        (["docker.io/a", "index.docker.io"], "docker.io", "a/b", "docker.io/a"),
        ([], "quay.io", "a", None),
    ],
)
def test_find(keys: list[str], host: str, repository: str, key: str | None) -> None:
    credential = _keychain(*keys).find(host, repository)
    assert credential == (Credential("user", key) if key else None)


@pytest.mark.parametrize(
    ("entry", "credential"),
    [
        ({"auth": _encoded("u:p:q")}, Credential("u", "p:q")),
        ({"auth": _encoded("u:")}, Credential("u", "")),
        ({"auth": _encoded("ü:p")[:4] + "\n" + _encoded("ü:p")[4:]}, Credential("ü", "p")),
        ({"username": "u", "password": "p"}, Credential("u", "p")),
        ({"auth": _encoded("u:p"), "identitytoken": "t"}, Credential("u", "p", "t")),
        ({"auth": _encoded("u:p"), "email": None}, Credential("u", "p")),
        ({}, None),
    ],
    ids=["auth", "no password", "auth in two lines", "in clear", "identity token", "more keys", "kept by a helper"],
)
def test_entry(entry: dict[str, object], credential: Credential | None) -> None:
    keychain = parse_auth_file(json.dumps({"auths": {"quay.io": entry}}), "the table")
    assert keychain.find("quay.io", "a") == credential


CONFIG = json.dumps({"auths": {"quay.io": {"auth": _encoded("u:p")}}})
OLD_CONFIG = json.dumps({"quay.io": {"auth": _encoded("u:p")}})
IN_LINES = "\n".join([_encoded(CONFIG)[:20], _encoded(CONFIG)[20:], ""])


@pytest.mark.parametrize(
    "secret",
    [
        {"data": {".dockerconfigjson": _encoded(CONFIG)}},
        {"data": {".dockercfg": _encoded(OLD_CONFIG)}},
        {"stringData": {".dockerconfigjson": CONFIG}},
        {"stringData": {".dockerconfigjson": CONFIG}, "data": {".dockerconfigjson": "old"}},
        {"data": {".dockerconfigjson": _encoded(CONFIG), ".dockercfg": "ignored"}},
        {"data": {".dockerconfigjson": IN_LINES}},
    ],
    ids=["dockerconfigjson", "dockercfg", "stringData", "stringData wins", "the newer wins", "base64 in lines"],
)
def test_pull_secret(secret: Manifest) -> None:
    expected = Keychain("Secret ns/s", {"quay.io": Credential("u", "p")}, kubelet=True)
    assert parse_pull_secret(secret, "Secret ns/s") == expected


HIDDEN = "aHVudGVyMg"


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ({}, "has neither the key .dockerconfigjson nor .dockercfg"),
        ({"data": {"password": HIDDEN}}, "has neither the key"),
        ({"data": {".dockerconfigjson": 5}}, "has neither the key"),
        ({"data": HIDDEN}, "has neither the key"),
        ({"data": [HIDDEN]}, "has neither the key"),
        ({"data": {".dockerconfigjson": f"{HIDDEN}!"}}, "key .dockerconfigjson is not text in base64"),
        ({"data": {".dockerconfigjson": base64.b64encode(b"\xff").decode()}}, "is not text in base64"),
        ({"stringData": {".dockerconfigjson": HIDDEN}}, "not JSON"),
        ({"stringData": {".dockerconfigjson": "[" * 100_000}}, "not JSON"),
        ({"stringData": {".dockerconfigjson": json.dumps(HIDDEN)}}, "not a JSON object"),
        ({"stringData": {".dockerconfigjson": json.dumps([HIDDEN])}}, "not a JSON object"),
        ({"stringData": {".dockerconfigjson": OLD_CONFIG}}, "no mapping of registries"),
        ({"stringData": {".dockerconfigjson": json.dumps({"auths": HIDDEN})}}, "no mapping of registries"),
        ({"stringData": {".dockercfg": json.dumps({"quay.io": HIDDEN})}}, "the entry of quay.io is not a login"),
        (
            {"stringData": {".dockercfg": json.dumps({"quay.io": {"auth": HIDDEN}})}},
            "the entry of quay.io is not a login",
        ),
        (
            {"stringData": {".dockercfg": json.dumps({"quay.io": {"auth": _encoded(HIDDEN)}})}},
            "the entry of quay.io is not a login",
        ),
    ],
)
def test_pull_secret_refused_without_a_value_in_the_message(secret: Manifest, words: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_pull_secret(secret, "Secret ns/s")
    assert words in caught.value.message
    assert caught.value.message.startswith("Secret ns/s: ")
    assert HIDDEN not in caught.value.message


def test_repr_and_str_hide_credentials() -> None:
    keychain = parse_auth_file(CONFIG, "auth.json")
    assert repr(keychain) == "Keychain(source='auth.json', helpers={}, store=None, kubelet=False, stand_in=False)"
    assert repr(keychain.find("quay.io", "a")) == "Credential()"
    assert str(Credentials(PullCredentials((keychain,)))) == "auth.json"
    assert str(PullCredentials()) == "no credentials"
