"""Files with which buildah reaches registries: they say the same as the suite's own rules."""

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
    """Return user and password by path."""
    auths = json.loads(auth_json(PullCredentials((OWN,), (NODE,)), images, registries))["auths"]
    pairs = {path: base64.b64decode(entry["auth"]).decode().split(":") for path, entry in auths.items()}
    return {path: (user, password) for path, (user, password) in pairs.items()}


def registries_by_prefix(
    *images: str, tls: RegistryTLS = VERIFIED_HTTPS, registries: Registries = MIRRORED
) -> dict[str, Any]:
    """Return the entries of registries.conf by prefix."""
    document = tomllib.loads(registries_conf(images, tls, registries))
    assert document["unqualified-search-registries"] == ["docker.io"]
    return {entry.pop("prefix"): entry for entry in document.get("registry", [])}


def test_the_module_s_login_is_first_and_a_mirror_gets_the_node_s() -> None:
    users = logins("r.example/team/base@sha256:" + "0" * 64, "other.example/x:1")
    assert users["r.example/team/base"] == ("own", "1")
    assert users["mirror.example/team/base"] == ("mirror", "4")
    assert users["other.example/x"] == ("glob", "2")
    assert users["r.example/team"] == ("own", "1")


def test_an_identity_token_is_in_auth_json() -> None:
    auths = json.loads(auth_json(PullCredentials((), (NODE,)), (), Registries()))["auths"]
    assert auths["token.example"]["identitytoken"] == "identity"


def test_an_oci_layout_needs_no_login() -> None:
    assert logins("oci:/tmp/x:result", registries=Registries()).keys() == logins(registries=Registries()).keys()


def test_mirrors_blocked_and_insecure_registries_are_listed() -> None:
    entries = registries_by_prefix("r.example/team/base:1", "127.0.0.1:6000/x:1")
    assert entries["r.example/team"] == {
        "location": "r.example/team",
        "mirror": [
            {"location": "mirror.example/team", "pull-from-mirror": "digest-only"},
            {"location": "127.0.0.1:5000/team", "pull-from-mirror": "tag-only", "insecure": True},
        ],
    }
    assert entries["*.never.example"]["blocked"] is True
    assert "location" not in entries["*.never.example"]
    assert entries["bad.example"] == {"location": "bad.example", "blocked": True}
    assert entries["plain.example"] == {"location": "plain.example", "insecure": True}
    assert entries["127.0.0.1:6000"] == {"location": "127.0.0.1:6000", "insecure": True}


def test_a_section_s_tls_applies_only_to_its_images() -> None:
    insecure = RegistryTLS(insecure_skip_tls_verify=True)
    assert registries_by_prefix("a.example/x:1", tls=insecure, registries=Registries()) == {
        "a.example": {"location": "a.example", "insecure": True}
    }
    assert registries_by_prefix("a.example/x:1", registries=Registries()) == {}


def test_authorities_of_option_and_cluster_are_joined(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("ours\n")
    network = Network(tmp_path / "ca.pem", authorities="cluster\n")
    assert authorities_pem(network, Registries(authorities={"a": "one\n"})).split() == ["ours", "cluster", "one"]
    assert authorities_pem(Network(), Registries()) == ""
