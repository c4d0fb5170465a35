"""Sigstore signatures of images, as cosign makes and stores them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from .layout import OCI_CONFIG, OCI_MANIFEST, Blob, Image

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def public_pem(key: PrivateKey) -> bytes:
    """Return the public key in PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


@dataclass(frozen=True)
class Signature:
    """A signature: the payload, and the annotation with the signed bytes."""

    payload: bytes
    """The payload."""
    annotation: str | None
    """The signature in base64."""
    media_type: str = PAYLOAD_TYPE
    """Type of the layer."""


def claims(name: str, digest: str, **more: Any) -> dict[str, Any]:
    """Return the claims of a signature. more replaces fields of critical."""
    critical = {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature", **more}  # fmt: skip
    return {"critical": critical, "optional": None}


def sign(key: PrivateKey, body: Mapping[str, Any]) -> Signature:
    """Return a signature over these claims."""
    payload = json.dumps(body).encode()
    match key:
        case ec.EllipticCurvePrivateKey():
            signed = key.sign(payload, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPrivateKey():
            signed = key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
        case _:
            signed = key.sign(payload)
    return Signature(payload, base64.b64encode(signed).decode())


def attachment(signatures: Sequence[Signature]) -> Image:
    """Return the image that holds signatures."""
    config = Blob(b'{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}', OCI_CONFIG)
    layers, blobs = [], [config]
    for signature in signatures:
        blob = Blob(signature.payload, signature.media_type)
        blobs.append(blob)
        annotations = {SIGNATURE: signature.annotation} if signature.annotation is not None else {}
        layers.append(blob.descriptor(annotations=annotations))
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(), "layers": layers}
    return Image(Blob(json.dumps(body).encode(), OCI_MANIFEST), blobs)


def tag_of(digest: str) -> str:
    """Return the tag of the signatures of a manifest."""
    return f"{digest.replace(':', '-')}.sig"
