"""Signatures in a registry: the attachments of an image's manifest, as containers/image reads them.

cosign stores the signatures of a manifest as an image of its own (docs/reference/openshift.md 5.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import BoundExceeded, Malformed, NotFound
from kmm_preflight.oci.document import Descriptor, ManifestAnswer, check_digest, parse_descriptor, parse_json
from kmm_preflight.oci.sigstore import SIGNATURE_KEY, Attachment

_PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_PAYLOAD_BYTES = 1 << 22  # the bound of containers/image for a signature
_MOST = 100


class SignedRepository(Protocol):
    """A repository of a registry, as a source of signatures. It raises PreflightError."""

    def manifest(self, reference: str) -> ManifestAnswer:
        """Return the answer for a tag or digest, unverified. Raise NotFound, AccessDenied or Undecidable."""

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Return the blob's bytes in pieces, unverified."""


def read_attachments(repository: SignedRepository, digest: str, subject: str) -> tuple[Attachment, ...]:
    """Return the signatures of the manifest with this digest. Raise PreflightError."""
    tag = f"{digest.replace(':', '-')}.sig"
    try:
        body = repository.manifest(tag).body
    except NotFound:
        return ()
    where = f"signatures {tag} of {subject}"
    document = parse_json(body, where)
    try:
        if document["mediaType"].text() not in ("", _MANIFEST_TYPE):
            raise document["mediaType"].refuse(_MANIFEST_TYPE)
        layers = document["layers"].items()
        if len(layers) > _MOST:
            raise BoundExceeded(f"{where}: more than {_MOST} signatures")
        return tuple(
            _attachment(repository, layer, where) for layer in layers if layer["mediaType"].text() == _PAYLOAD_TYPE
        )
    except Malformed as exc:
        raise Malformed(f"{where}: {exc.message}") from exc


def _attachment(repository: SignedRepository, layer: Field, where: str) -> Attachment:
    descriptor = parse_descriptor(layer)
    payload = bytearray()
    with repository.blob(descriptor) as pieces:
        for piece in pieces:
            payload += piece
            if len(payload) > _PAYLOAD_BYTES:
                raise BoundExceeded(f"{where}: a signature of more than {_PAYLOAD_BYTES} bytes")
    check_digest(bytes(payload), descriptor.digest, where)
    value = layer["annotations"].mapping().get(SIGNATURE_KEY)
    return Attachment(bytes(payload), value if isinstance(value, str) else None)
