"""Files with which buildah reaches registries: auth.json, registries.conf and certificate authorities.

With them buildah pulls an image like the suite: from the cluster's mirrors, with the plan's logins and authorities.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator

from kmm_preflight.errors import Malformed
from kmm_preflight.model import RegistryTLS
from kmm_preflight.oci.auth import Credential, Helper
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.credential_helper import run_credential_helper
from kmm_preflight.oci.credentials import PullCredentials, candidates
from kmm_preflight.oci.mirrors import MirrorRule, PullSource
from kmm_preflight.oci.reference import Reference, on_loopback
from kmm_preflight.oci.registries import Registries

_WILDCARD = "*."


def auth_json(credentials: PullCredentials, images: Iterable[str], registries: Registries) -> bytes:
    """Return auth.json with all logins of the keychains. For these images, use the login that the suite tries first."""
    auths: dict[str, dict[str, str]] = {}
    for keychain in (*reversed(credentials.node), *reversed(credentials.own)):
        auths |= {path: _entry(credential) for path, credential in keychain.credentials.items() if "*" not in path}
    for source, reference in _pull_sources(images, registries):
        keychains = credentials.keychains(on_other_host=source.reference.host != reference.host)
        first = candidates(keychains, source.reference.host, source.reference.repository)[0]
        credential = run_credential_helper(first) if isinstance(first, Helper) else first
        if credential:
            auths[f"{source.reference.host}/{source.reference.repository}"] = _entry(credential)
    return json.dumps({"auths": auths}).encode()


def _entry(credential: Credential) -> dict[str, str]:
    pair = f"{credential.username}:{credential.password}"
    entry = {"auth": base64.b64encode(pair.encode()).decode()}
    return entry | ({"identitytoken": credential.identity_token} if credential.identity_token else {})


def _pull_sources(images: Iterable[str], registries: Registries) -> Iterator[tuple[PullSource, Reference]]:
    for name in images:
        try:
            reference = Reference.parse(name)
        except Malformed:
            continue  # an OCI layout of this run
        for source in registries.mirrors.pull_sources(reference):
            yield source, reference


def registries_conf(images: Iterable[str], tls: RegistryTLS, registries: Registries) -> str:
    """Return containers-registries.conf(5) of a build that uses these images: mirrors, blocked and insecure registries.

    A registry is insecure if the section's or the cluster's TLS settings say so, and on loopback.
    """
    insecure = sorted(
        {
            source.reference.host
            for source, _ in _pull_sources(images, registries)
            if _is_insecure(source, tls, registries)
        }
    )
    out = ['unqualified-search-registries = ["docker.io"]', 'short-name-mode = "disabled"']
    sources = dict.fromkeys(rule.source for rule in registries.mirrors.rules)
    for source in sources:
        out += _registry(source, source in insecure or source in registries.insecure)
        rules = [rule for rule in registries.mirrors.rules if rule.source == source]
        if any(rule.never_source for rule in rules):
            out.append("blocked = true")
        for rule in rules:
            out += _mirrors(rule, insecure)
    for scope in (*insecure, *registries.insecure):
        out += _registry(scope, insecure=True) if scope not in sources else []
    for scope in registries.blocked:
        out += [*_registry(scope, insecure=False), "blocked = true"] if scope not in sources else []
    return "\n".join(out) + "\n"


def _is_insecure(source: PullSource, tls: RegistryTLS, registries: Registries) -> bool:
    allowed = registries.tls(source, tls)
    return on_loopback(source.reference.host) or allowed.insecure or allowed.insecure_skip_tls_verify


def _registry(scope: str, insecure: bool) -> list[str]:
    out = ["", "[[registry]]", f"prefix = {json.dumps(scope)}"]
    if not scope.startswith(_WILDCARD):
        out.append(f"location = {json.dumps(scope)}")
    return [*out, *(["insecure = true"] if insecure else [])]


def _mirrors(rule: MirrorRule, insecure: list[str]) -> Iterator[str]:
    for mirror in rule.mirrors:
        if mirror == rule.source:
            continue  # the source is always tried after its mirrors
        yield "[[registry.mirror]]"
        yield f"location = {json.dumps(mirror)}"
        yield f'pull-from-mirror = "{"digest-only" if rule.by_digest else "tag-only"}"'
        if mirror.partition("/")[0] in insecure:
            yield "insecure = true"


def authorities_pem(network: Network, registries: Registries) -> str:
    """Return all certificate authorities, in PEM, that the suite trusts next to those of the system."""
    own = network.ca.read_text() if network.ca else ""
    return "\n".join(part for part in (own, network.authorities, *registries.authorities.values()) if part)
