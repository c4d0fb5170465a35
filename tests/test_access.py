"""How a builder reaches registries: the files that buildah reads say what the suite itself would do."""

from __future__ import annotations

import base64
import json
import tomllib
from pathlib import Path
from typing import Any

from kmm_preflight.build.access import auth_json, authorities_pem, registries_conf
from kmm_preflight.model import VERIFIED_HTTPS, RegistryTLS
from kmm_preflight.oci.auth import Credential, Keychain
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.mirrors import MirrorRule, Mirrors
from kmm_preflight.oci.registries import Registries

OWN = Keychain("own", {"r.example/team": Credential("own", "1"), "*.example": Credential("glob", "2")}, kubelet=True)
NODE = Keychain("node", {"r.example/team": Credential("node", "3"), "mirror.example": Credential("mirror", "4"),
                         "token.example": Credential("", "", "identity")})  # fmt: skip
BY_DIGEST = MirrorRule("r.example/team", ("mirror.example/team", "r.example/team"), by_digest=True)
BY_TAG = MirrorRule("r.example/team", ("127.0.0.1:5000/team",), by_digest=False)
NEVER = MirrorRule("*.never.example", ("mirror.example/never",), by_digest=True, never_source=True)
MIRRORED = Registries(Mirrors((BY_DIGEST, BY_TAG, NEVER)), blocked=("bad.example",), insecure=("plain.example",))


def logins(*images: str, registries: Registries = MIRRORED) -> dict[str, tuple[str, str]]:
    """User and password by path."""
    auths = json.loads(auth_json(PullCredentials((OWN,), (NODE,)), images, registries))["auths"]
    pairs = {path: base64.b64decode(entry["auth"]).decode().split(":") for path, entry in auths.items()}
    return {path: (user, password) for path, (user, password) in pairs.items()}


def told(*images: str, tls: RegistryTLS = VERIFIED_HTTPS, registries: Registries = MIRRORED) -> dict[str, Any]:
    """The registries by prefix."""
    document = tomllib.loads(registries_conf(images, tls, registries))
    assert document["unqualified-search-registries"] == ["docker.io"]
    return {entry.pop("prefix"): entry for entry in document.get("registry", [])}


def test_the_module_s_own_login_comes_first_and_a_mirror_gets_the_node_s() -> None:
    found = logins("r.example/team/base@sha256:" + "0" * 64, "other.example/x:1")
    assert found["r.example/team/base"] == ("own", "1")
    assert found["mirror.example/team/base"] == ("mirror", "4")
    assert found["other.example/x"] == ("glob", "2")
    assert found["r.example/team"] == ("own", "1")


def test_an_identity_token_is_handed_on() -> None:
    auths = json.loads(auth_json(PullCredentials((), (NODE,)), (), Registries()))["auths"]
    assert auths["token.example"]["identitytoken"] == "identity"


def test_a_layout_of_our_own_needs_no_login() -> None:
    assert logins("oci:/tmp/x:result", registries=Registries()).keys() == logins(registries=Registries()).keys()


def test_mirrors_what_is_blocked_and_what_is_insecure() -> None:
    found = told("r.example/team/base:1", "127.0.0.1:6000/x:1")
    assert found["r.example/team"] == {
        "location": "r.example/team",
        "mirror": [
            {"location": "mirror.example/team", "pull-from-mirror": "digest-only"},
            {"location": "127.0.0.1:5000/team", "pull-from-mirror": "tag-only", "insecure": True},
        ],
    }
    assert found["*.never.example"]["blocked"] is True
    assert "location" not in found["*.never.example"]
    assert found["bad.example"] == {"location": "bad.example", "blocked": True}
    assert found["plain.example"] == {"location": "plain.example", "insecure": True}
    assert found["127.0.0.1:6000"] == {"location": "127.0.0.1:6000", "insecure": True}


def test_a_section_s_own_tls_is_for_its_names_alone() -> None:
    insecure = RegistryTLS(insecure_skip_tls_verify=True)
    assert told("a.example/x:1", tls=insecure, registries=Registries()) == {
        "a.example": {"location": "a.example", "insecure": True}
    }
    assert told("a.example/x:1", registries=Registries()) == {}


def test_authorities(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("ours\n")
    network = Network(tmp_path / "ca.pem", authorities="cluster\n")
    assert authorities_pem(network, Registries(authorities={"a": "one\n"})).split() == ["ours", "cluster", "one"]
    assert authorities_pem(Network(), Registries()) == ""
