"""The key and the certificate of a sign section, looked at before anything is signed with them.

No byte of a key gets into a sentence, a repr or an exception: not even the library's own words are passed on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from asn1crypto import parser
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from kmm_preflight.build import findings
from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.certificate import (
    FIT_KEY,
    Certificate,
    describe_bytes,
    is_indented,
    parse_certificate,
    unfit_key,
)
from kmm_preflight.model import Finding
from kmm_preflight.stages import findings as stages_findings

KEY_BYTES = 64 << 10
_SEQUENCE = b"\x30"
# PKCS#8 has an algorithm there, PKCS#1 a number, SEC 1 bytes.
_LABELS = {0x30: "PRIVATE KEY", 0x02: "RSA PRIVATE KEY", 0x04: "EC PRIVATE KEY"}


@dataclass(frozen=True)
class KeyNames:
    """The Secrets that hold the two, as namespace/name."""

    key_secret: str
    cert_secret: str


def check_keys(
    key: bytes, cert: bytes, names: KeyNames, now: datetime
) -> tuple[Certificate | None, tuple[Finding, ...]]:
    """The certificate, None when there is none to read, and all that makes signing with the two useless.

    A certificate that is not valid on now (aware) is a warning alone: kernels do not look at its dates.
    """
    found: list[Finding] = []
    private = certificate = None
    try:
        private = _read_key(key)
    except Malformed as exc:
        found.append(findings.SIGN_KEY_INVALID(secret=names.key_secret, got=exc.message, expected=FIT_KEY))
    try:
        certificate = parse_certificate(cert, f"certificate in Secret {names.cert_secret}")
    except Malformed as exc:
        found.append(stages_findings.SIGN_CERT_INVALID(problem=exc.message))
    if certificate:
        found += _check_certificate(certificate, names, now)
    if certificate and private and _public(private) != _public(certificate):
        found.append(
            findings.SIGN_KEY_MISMATCH(key=names.key_secret, cert=names.cert_secret, expected=certificate.subject)
        )
    return certificate, tuple(found)


def pem_label(key: bytes) -> str:
    """The words between the dashes that make PEM of a key in DER; "" for one that is in PEM.

    sign-file reads keys with PEM_read_bio_PrivateKey alone, so that it refuses DER, which KMM's documentation allows.
    """
    if not key.startswith(_SEQUENCE):
        return ""
    try:
        inside = parser.parse(key)[4]
        return _LABELS.get(inside[parser.peek(inside)], "")  # what stands behind the version
    except (ValueError, IndexError):
        return ""


def _check_certificate(certificate: Certificate, names: KeyNames, now: datetime) -> Iterator[Finding]:
    if unfit := unfit_key(certificate.public_key()):
        yield stages_findings.SIGN_CERT_INVALID(
            problem=f"certificate in Secret {names.cert_secret}: got one for {unfit}, expected one for {FIT_KEY}"
        )
    got = ""
    if now > certificate.not_after:
        got = f"one that expired on {certificate.not_after:%Y-%m-%d}"
    elif now < certificate.not_before:
        got = f"one that begins on {certificate.not_before:%Y-%m-%d}"
    if got:
        yield findings.SIGN_CERT_EXPIRED(secret=names.cert_secret, now=f"{now:%Y-%m-%d}", got=got)


def _read_key(key: bytes) -> PrivateKeyTypes:
    """The private key; Malformed says what is there instead, and nothing that stands in it."""
    if len(key) > KEY_BYTES:
        raise Malformed(f"{len(key)} bytes")
    if is_indented(key):
        raise Malformed(_instead(key))
    load = load_der_private_key if key.startswith(_SEQUENCE) else load_pem_private_key
    try:
        # Without validation first: it looks for primes, and of a key that no kernel takes these can be very long.
        unfit = unfit_key(load(key, None, unsafe_skip_rsa_key_validation=True).public_key())
        if unfit:
            raise Malformed(unfit)
        return load(key, None)
    except TypeError:
        raise Malformed("an encrypted key, for which there is no passphrase here") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed(_instead(key)) from None


def _instead(key: bytes) -> str:
    """Words for what is no private key: KMM's documentation itself once showed the certificate in its place."""
    try:
        parse_certificate(key, "key")
    except Malformed:
        return describe_bytes(key, damaged="private key")
    return "a certificate"


def _public(holder: Certificate | PrivateKeyTypes) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
