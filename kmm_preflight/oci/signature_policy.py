"""Signature policies of nodes: ClusterImagePolicy and ImagePolicy (docs/reference/openshift.md 5.3)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.model import Manifest
from kmm_preflight.oci.mirror_scope import bare_host
from kmm_preflight.oci.reference import Reference
from kmm_preflight.oci.signed_identity import SignedIdentity, parse_identity

CLUSTER_POLICY = "ClusterImagePolicy"
NAMESPACE_POLICY = "ImagePolicy"
API_VERSIONS = ("config.openshift.io/v1", "config.openshift.io/v1alpha1")


@dataclass(frozen=True)
class SignaturePolicy:
    """An object that requires a signature of images."""

    name: str
    """Kind and name of the object, for messages."""
    scopes: tuple[str, ...]
    """Scopes of the image names to which it applies."""
    identity: SignedIdentity
    """The rule for the name in the signature."""
    namespace: str | None = None
    """The namespace to whose Pods it applies, or None for the whole cluster."""
    key: bytes | None = None
    """The public key in PEM, or None if the root of trust is not a key."""
    beyond_key: str | None = None
    """The part of the root of trust that this suite does not verify, in words, or None."""


@dataclass(frozen=True)
class SignaturePolicies:
    """All signature policies of a cluster."""

    policies: tuple[SignaturePolicy, ...] = ()
    """The policies, in the order of the objects."""

    def required(self, reference: Reference, namespace: str | None) -> tuple[SignaturePolicy, ...]:
        """Return the policies for an image that a Pod of the namespace uses: all of the most precise scope.

        An image must satisfy each of them. None as namespace means a pull without a Pod.
        """
        effective = [(scope, policy) for policy in self.policies for scope in self._scopes(policy, namespace)]
        for scope in scopes_of(reference):
            if found := tuple(policy for other, policy in effective if other == scope):
                return found
        return ()

    def _scopes(self, policy: SignaturePolicy, namespace: str | None) -> Iterator[str]:
        """Yield the scopes that count. An ImagePolicy cannot change what a ClusterImagePolicy says."""
        if policy.namespace is None:
            yield from policy.scopes
        elif policy.namespace == namespace:
            of_cluster = [scope for other in self.policies if other.namespace is None for scope in other.scopes]
            yield from (scope for scope in policy.scopes if not any(is_inside(scope, outer) for outer in of_cluster))


def scopes_of(reference: Reference) -> Iterator[str]:
    """Yield the scopes that an image is in, the most precise first, as policy.json has them."""
    name = f"{reference.host}/{reference.repository}"
    yield f"{name}@{reference.digest}" if reference.digest else f"{name}:{reference.tag}"
    while name:
        yield name
        name = name.rpartition("/")[0]
    host = bare_host(reference)
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"


def is_inside(scope: str, outer: str) -> bool:
    """True if each image of the scope is in the outer scope."""
    if outer.startswith("*."):
        host = scope.partition("/")[0].removeprefix("*.").partition(":")[0]
        return scope == outer or host.endswith(outer[1:])
    return scope == outer or scope.startswith((f"{outer}/", f"{outer}:", f"{outer}@"))


def parse_signature_policies(manifests: Iterable[Manifest]) -> SignaturePolicies:
    """Parse ClusterImagePolicy and ImagePolicy objects. Raise UsageProblem with the field."""
    policies = []
    for manifest in manifests:
        try:
            policies.append(_policy(Field(manifest)))
        except Malformed as exc:
            metadata = manifest.get("metadata")
            name = metadata.get("name") if isinstance(metadata, dict) else "without a name"
            raise UsageProblem(f"{manifest.get('kind')} {name}: {exc.message}") from exc
    return SignaturePolicies(tuple(policies))


def _policy(document: Field) -> SignaturePolicy:
    metadata, spec = document["metadata"], document["spec"]
    kind, name = document["kind"].text(), metadata["name"].text()
    namespace = metadata["namespace"].text() if kind == NAMESPACE_POLICY else None
    root = spec["policy"]["rootOfTrust"]
    key, beyond = _root(root)
    identity = parse_identity(spec["policy"]["signedIdentity"])
    if not identity.is_known:
        beyond = f"names by {identity.rule}"
    return SignaturePolicy(
        name=f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}",
        scopes=spec["scopes"].present("a list of scopes").texts(),
        identity=identity,
        namespace=namespace,
        key=key,
        beyond_key=beyond,
    )


def _root(root: Field) -> tuple[bytes | None, str | None]:
    """Return the key, and what is not verified."""
    kind = root["policyType"].present("the type of the root of trust").text()
    if kind != "PublicKey":
        return None, f"signatures by {kind}"
    public_key = root["publicKey"]
    beyond = "entries in Rekor" if public_key["rekorKeyData"].given else None
    return _decoded(public_key["keyData"]), beyond


def _decoded(field: Field) -> bytes:
    text = field.present("a public key in base64").text()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Malformed(f"{field.path}: not base64, expected a public key") from exc
