"""Signatures of images by sigstore, verified with a public key as nodes do (docs/reference/openshift.md 5.4)."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed
from kmm_preflight.oci.reference import Reference
from kmm_preflight.oci.signature_policy import SignaturePolicy

SIGNATURE_KEY = "dev.cosignproject.cosign/signature"
"""The annotation with the signature of a payload, in base64."""

_SIGNED_TYPE = "cosign container image signature"


@dataclass(frozen=True)
class Attachment:
    """A signature of a manifest, unverified."""

    payload: bytes
    """The signed bytes."""
    signature: str | None
    """The signature in base64, or None if the annotation is missing."""


class Verifies(Protocol):
    """Verifies a signature over bytes."""

    def __call__(self, signature: bytes, payload: bytes) -> None:
        """Raise InvalidSignature."""


class UnknownKey(Exception):
    """The key of a policy is of a kind that this suite does not know."""


def refusal(policy: SignaturePolicy, attachments: tuple[Attachment, ...], name: Reference, digest: str) -> str | None:
    """Return why no signature of the manifest with the digest satisfies the key of a policy, or None if one does.

    Without a key, return None if there is any signature. Raise UnknownKey.
    """
    if not attachments:
        return "the registry has no signature of it"
    if policy.key is None:
        return None
    verify = _verifier(policy.key)
    problems = [_problem(attachment, verify, policy, name, digest) for attachment in attachments]
    if None in problems:
        return None
    return "; ".join(dict.fromkeys(problem for problem in problems if problem))


def _problem(
    attachment: Attachment, verify: Verifies, policy: SignaturePolicy, name: Reference, digest: str
) -> str | None:
    if attachment.signature is None:
        return f"a signature has no annotation {SIGNATURE_KEY}"
    try:
        verify(base64.b64decode(attachment.signature, validate=True), attachment.payload)
    except (binascii.Error, ValueError):
        return "a signature is not base64"
    except InvalidSignature:
        return "a signature is by another key, or its payload was changed"
    try:
        signed = parse_payload(attachment.payload)
    except Malformed as exc:
        return f"the payload of a signature is invalid ({exc.message})"
    if signed.digest != digest:
        return f"a signature is for {signed.digest}, not for {digest}"
    if not policy.identity.accepts(signed.name, name):
        return f"a signature is for the name {signed.name}, which {policy.identity.rule} does not accept"
    return None


@dataclass(frozen=True)
class SignedPayload:
    """The claims of a signature."""

    name: str
    """The name of the image."""
    digest: str
    """The digest of the manifest."""


def parse_payload(payload: bytes) -> SignedPayload:
    """Parse the claims. Raise Malformed if a field is missing or unknown, as containers/image refuses it."""
    try:
        document = Field(json.loads(payload, object_pairs_hook=_unique))
    except (ValueError, RecursionError) as exc:
        raise Malformed("not JSON") from exc
    _only(document, "critical", "optional")
    critical = document["critical"]
    _only(critical, "type", "image", "identity")
    _only(critical["image"], "docker-manifest-digest")
    _only(critical["identity"], "docker-reference")
    document["optional"].mapping()
    if critical["type"].text() != _SIGNED_TYPE:
        raise critical["type"].refuse(_SIGNED_TYPE)
    name, digest = critical["identity"]["docker-reference"], critical["image"]["docker-manifest-digest"]
    return SignedPayload(name.text(), digest.text())


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a key occurs twice")
    return names


def _only(field: Field, *keys: str) -> None:
    if set(field.mapping()) != set(keys):
        raise field.refuse(f"the fields {', '.join(keys)}")


def _verifier(pem: bytes) -> Verifies:
    """Return what verifies with a public key in PEM. Raise UnknownKey."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UnknownKey("its key cannot be read") from exc
    match key:
        case ec.EllipticCurvePublicKey():
            return lambda signature, payload: key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPublicKey():
            return lambda signature, payload: key.verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())
        case ed25519.Ed25519PublicKey():
            return lambda signature, payload: key.verify(signature, payload)
    raise UnknownKey("its key is of a kind that this suite does not verify")
