"""Certificates of signing keys, and the keys that kernels accept."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.der import UNREADABLE, absent, element

CERTIFICATE_BYTES = 64 << 10
FIT_KEY = "an RSA key of up to 4096 bits, or an EC key on P-256 or P-384"
_SHOWN_BYTES = 40
_KEY_IDENTIFIER = "2.5.29.14"
# Lengths that crypto/rsa.c of the kernel accepts, in whole words of 64 bits. FIPS mode accepts 2048 and more.
_RSA_BITS = {512, 1024, 1536, 2048, 3072, 4096}
# Kernels accept P-521 only since 6.11.
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_SEQUENCE = b"\x30"
_BEGIN = re.compile(rb"^(\xef\xbb\xbf)?-----BEGIN ", re.MULTILINE)
_INDENTED = re.compile(rb"[ \t]-----BEGIN ")
_LABELS = {b"CERTIFICATE": "certificate", b"PUBLIC KEY": "public key", b"PRIVATE KEY": "private key"}
_SHORT = {
    "common_name": "CN",
    "country_name": "C",
    "email_address": "emailAddress",
    "locality_name": "L",
    "organization_name": "O",
    "organizational_unit_name": "OU",
    "state_or_province_name": "ST",
}


@dataclass(frozen=True)
class Certificate:
    """An X.509 certificate."""

    subject: str
    """Name of the key's owner, as openssl prints it."""
    issuer: str
    """Name of the certificate's signer, as openssl prints it."""
    serial: int
    """Serial number, unique for the issuer."""
    not_before: datetime
    """First moment of validity, with a time zone."""
    not_after: datetime
    """Last moment of validity, with a time zone."""
    der: bytes = field(repr=False)
    """The certificate in DER."""
    ski: bytes | None
    """Subject key identifier, or None without that extension."""

    def public_key(self) -> PublicKeyTypes:
        """Return the certified key, of any kind."""
        return x509.load_der_x509_certificate(self.der).public_key()

    def proves_itself(self) -> bool:
        """True if the certificate has a valid signature by its own key, or names another issuer than itself."""
        certificate = x509.load_der_x509_certificate(self.der)
        if certificate.issuer != certificate.subject:
            return True
        try:
            certificate.verify_directly_issued_by(certificate)
        except (InvalidSignature, UnsupportedAlgorithm, *UNREADABLE):
            return False
        return True


def parse_certificate(data: bytes, subject: str) -> Certificate:
    """Return the first certificate in PEM, or the one in DER; sign-file reads both. Raise Malformed for other bytes.

    subject: what the data is, for the message.
    """
    if len(data) > CERTIFICATE_BYTES:
        raise Malformed(f"{subject}: got {len(data)} bytes, expected a certificate of at most {CERTIFICATE_BYTES}")
    try:
        loaded = _load(data)
        loaded.public_key()
        der = loaded.public_bytes(Encoding.DER)
        tbs = asn1.Certificate.load(der)["tbs_certificate"]
        return Certificate(
            subject=text_of(tbs["subject"]),
            issuer=text_of(tbs["issuer"]),
            serial=int(tbs["serial_number"].native),
            not_before=loaded.not_valid_before_utc,
            not_after=loaded.not_valid_after_utc,
            der=der,
            ski=_key_identifier(tbs),
        )
    except (Malformed, *UNREADABLE, UnsupportedAlgorithm, x509.InvalidVersion, Warning) as exc:
        # Where warnings are errors, the library raises one for a serial number below 1.
        got = describe_bytes(data, damaged="certificate")
        raise Malformed(f"{subject}: got {got}, expected an X.509 certificate, PEM or DER") from exc


def describe_bytes(data: bytes, damaged: str) -> str:
    """Return words for bytes that are not a readable key or certificate. The words contain none of the bytes.

    damaged: the expected kind. If the label of a PEM block has this kind, the block is called damaged.
    """
    if not data.strip():
        return "nothing"
    if is_indented(data):
        return "PEM with spaces before its -----BEGIN"
    label = data.partition(b"-----BEGIN ")[2].partition(b"-----")[0]
    for ending, kind in _LABELS.items():
        if label.endswith(ending):
            return f"a damaged {kind} in PEM" if kind == damaged else f"a {kind} in PEM"
    return f"{len(data)} bytes of DER that cannot be read" if data.startswith(_SEQUENCE) else f"{len(data)} other bytes"


def is_indented(data: bytes) -> bool:
    """True if the data has PEM that sign-file overlooks, since -----BEGIN is not at the start of a line."""
    return bool(_INDENTED.search(data) and not _BEGIN.search(data))


def unfit_key(key: object) -> str | None:
    """Return words for a public key that some kernels do not accept, or None for a key that all accept."""
    match key:
        case rsa.RSAPublicKey():
            return None if -(-key.key_size // 64) * 64 in _RSA_BITS else f"an RSA key of {key.key_size} bits"
        case ec.EllipticCurvePublicKey():
            return None if isinstance(key.curve, _CURVES) else f"an EC key on {key.curve.name}"
        case _:
            return f"a key of kind {type(key).__name__.removesuffix('PublicKey')}"


def unfit_size(key: object) -> str | None:
    """Return words for an RSA key of a size that no kernel accepts, or None for any other key."""
    return unfit_key(key) if isinstance(key, rsa.RSAPublicKey) else None


def _load(data: bytes) -> x509.Certificate:
    if is_indented(data):
        raise ValueError
    if not data.startswith(_SEQUENCE):
        return x509.load_pem_x509_certificate(data)
    # sign-file ignores bytes behind the certificate, such as a newline.
    return x509.load_der_x509_certificate(data[: element(data, 0, len(data))[1]])


def _key_identifier(tbs: asn1.TbsCertificate) -> bytes | None:
    if absent(tbs["extensions"]):
        return None
    extensions = (item for item in tbs["extensions"] if item["extn_id"].dotted == _KEY_IDENTIFIER)
    return next((bytes(item["extn_value"].parsed.native) for item in extensions), None)


def text_of(name: asn1.Name) -> str:
    """Return the name as openssl prints it, in the order of its bytes."""
    pairs = (pair for rdn in name.chosen for pair in rdn)
    return ", ".join(f"{_SHORT.get(pair['type'].native, pair['type'].native)}={_value(pair)}" for pair in pairs)


def _value(pair: asn1.NameTypeAndValue) -> str:
    try:
        return str(pair["value"].native)
    except UNREADABLE:
        # Kernels compare the bytes and never decode them.
        return hex_of(pair["value"].contents or b"")


def hex_of(value: bytes) -> str:
    """Return bytes in hexadecimal, as modinfo prints sig_key."""
    return value[:_SHOWN_BYTES].hex(":").upper() + ("…" if len(value) > _SHOWN_BYTES else "")
