"""Key and certificate of a sign section: check them before anything is signed.

No byte of a key gets into a sentence, a repr or an exception. So the library's own messages are not shown either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from asn1crypto import parser
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
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
    unfit_size,
)
from kmm_preflight.kmod.signature_rules import ANY_KERNEL, SignatureRules
from kmm_preflight.model import Finding
from kmm_preflight.stages import findings as stages_findings

KEY_BYTES = 64 << 10
_SEQUENCE = b"\x30"
# PEM label by the type of the element after the version: an algorithm in PKCS#8, a number in PKCS#1, bytes in SEC 1.
_LABELS = {0x30: "PRIVATE KEY", 0x02: "RSA PRIVATE KEY", 0x04: "EC PRIVATE KEY"}


@dataclass(frozen=True)
class KeyNames:
    """Names of the two Secrets."""

    key_secret: str
    """namespace/name of the Secret with the key."""
    cert_secret: str
    """namespace/name of the Secret with the certificate."""


def check_keys(
    key: bytes, cert: bytes, names: KeyNames, now: datetime, rules: SignatureRules = ANY_KERNEL
) -> tuple[Certificate | None, tuple[Finding, ...]]:
    """Return the certificate, or None if it is damaged, and findings about key and certificate. now must be aware.

    rules: the kernel that is to check the signatures.

    A certificate that is not valid now is only a warning: kernels do not check its dates.
    """
    problems: list[Finding] = []
    private = certificate = None
    try:
        private = _read_key(key, rules)
    except Malformed as exc:
        problems.append(findings.SIGN_KEY_INVALID(secret=names.key_secret, got=exc.message, expected=FIT_KEY))
    try:
        certificate = parse_certificate(cert, f"certificate in Secret {names.cert_secret}")
    except Malformed as exc:
        problems.append(stages_findings.SIGN_CERT_INVALID(problem=exc.message))
    if certificate:
        problems += _check_certificate(certificate, names, now, rules)
    if certificate and private and _public(private) != _public(certificate):
        problems.append(
            findings.SIGN_KEY_MISMATCH(key=names.key_secret, cert=names.cert_secret, expected=certificate.subject)
        )
    return certificate, tuple(problems)


def pem_label(key: bytes) -> str | None:
    """Return the PEM label for a key in DER, or None for a key in PEM.

    sign-file reads keys only with PEM_read_bio_PrivateKey, so it refuses DER. KMM's documentation allows DER.
    """
    if not key.startswith(_SEQUENCE):
        return None
    try:
        inside = parser.parse(key)[4]
        return _LABELS.get(inside[parser.peek(inside)])  # the element after the version
    except (ValueError, IndexError):
        return None


def _check_certificate(
    certificate: Certificate, names: KeyNames, now: datetime, rules: SignatureRules
) -> Iterator[Finding]:
    if unfit := _unfit(certificate.public_key(), rules):
        yield stages_findings.SIGN_CERT_INVALID(
            problem=f"certificate in Secret {names.cert_secret}: got one for {unfit}, expected one for {FIT_KEY}"
        )
    got = None
    if now > certificate.not_after:
        got = f"it expired on {certificate.not_after:%Y-%m-%d}"
    elif now < certificate.not_before:
        got = f"it begins on {certificate.not_before:%Y-%m-%d}"
    if got:
        yield findings.SIGN_CERT_EXPIRED(secret=names.cert_secret, now=f"{now:%Y-%m-%d}", got=got)


def _read_key(key: bytes, rules: SignatureRules) -> PrivateKeyTypes:
    """Return the private key. Raise Malformed with a description of other content, but never with the content."""
    if len(key) > KEY_BYTES:
        raise Malformed(f"{len(key)} bytes")
    if is_indented(key):
        raise Malformed(_described(key))
    load = load_der_private_key if key.startswith(_SEQUENCE) else load_pem_private_key
    try:
        # First without validation, which searches primes: they can be very long in a key that no kernel accepts.
        unfit = _unfit(load(key, None, unsafe_skip_rsa_key_validation=True).public_key(), rules)
        if unfit:
            raise Malformed(unfit)
        return load(key, None)
    except TypeError:
        raise Malformed("an encrypted key, for which there is no passphrase here") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed(_described(key)) from None


def _unfit(key: PublicKeyTypes, rules: SignatureRules) -> str | None:
    """Return words for a public key that the kernel does not accept, or None."""
    return unfit_size(key) if rules.knows_key(key) else unfit_key(key)


def _described(key: bytes) -> str:
    """Describe content that is not a private key. KMM's documentation once used the certificate as the key."""
    try:
        parse_certificate(key, "key")
    except Malformed:
        return describe_bytes(key, damaged="private key")
    return "a certificate"


def _public(holder: Certificate | PrivateKeyTypes) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
