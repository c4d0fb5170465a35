"""The certificate of a signing key, and which keys kernels verify kmods with."""

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
# crypto/rsa.c of the kernel; lengths count in words of 64 bits. FIPS mode takes those from 2048 on.
_RSA_BITS = {512, 1024, 1536, 2048, 3072, 4096}
# P-521 is known only since 6.11.
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
    """An X.509 certificate: names as text, the bytes as DER; ski is its subject key identifier, b"" without one."""

    subject: str
    issuer: str
    serial: int
    not_before: datetime
    not_after: datetime
    der: bytes = field(repr=False)
    ski: bytes

    def public_key(self) -> PublicKeyTypes:
        """The key that it is for, of whatever kind."""
        return x509.load_der_x509_certificate(self.der).public_key()

    def proves_itself(self) -> bool:
        """Whether it has a signature of its own key, or names another issuer than itself."""
        certificate = x509.load_der_x509_certificate(self.der)
        if certificate.issuer != certificate.subject:
            return True
        try:
            certificate.verify_directly_issued_by(certificate)
        except (InvalidSignature, UnsupportedAlgorithm, *UNREADABLE):
            return False
        return True


def parse_certificate(data: bytes, subject: str) -> Certificate:
    """The certificate in PEM, of which the first counts, or in DER; sign-file takes both. Else Malformed."""
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
        # A warning, where warnings are errors: of a serial number below 1.
        got = what_it_is(data, damaged="certificate")
        raise Malformed(f"{subject}: got {got}, expected an X.509 certificate, PEM or DER") from exc


def what_it_is(data: bytes, damaged: str) -> str:
    """Words for bytes that are no readable key or certificate; of the bytes themselves not one is told.

    damaged is what they should be: if they are labelled so, they are broken.
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
    """Whether there is PEM that sign-file passes over, since it knows it by how a line begins."""
    return bool(_INDENTED.search(data) and not _BEGIN.search(data))


def why_unfit(key: object) -> str:
    """Words for a public key by which no kernel, or not every one, verifies a module; "" for one that is fit."""
    match key:
        case rsa.RSAPublicKey():
            return "" if -(-key.key_size // 64) * 64 in _RSA_BITS else f"an RSA key of {key.key_size} bits"
        case ec.EllipticCurvePublicKey():
            return "" if isinstance(key.curve, _CURVES) else f"an EC key on {key.curve.name}"
        case _:
            return f"a key of kind {type(key).__name__.removesuffix('PublicKey')}"


def _load(data: bytes) -> x509.Certificate:
    if is_indented(data):
        raise ValueError
    if not data.startswith(_SEQUENCE):
        return x509.load_pem_x509_certificate(data)
    # sign-file passes over what comes behind the certificate, such as a newline.
    return x509.load_der_x509_certificate(data[: element(data, 0, len(data))[1]])


def _key_identifier(tbs: asn1.TbsCertificate) -> bytes:
    if absent(tbs["extensions"]):
        return b""
    found = (one for one in tbs["extensions"] if one["extn_id"].dotted == _KEY_IDENTIFIER)
    return next((bytes(one["extn_value"].parsed.native) for one in found), b"")


def text_of(name: asn1.Name) -> str:
    """The name as openssl prints it, in the order of its bytes."""
    pairs = (pair for rdn in name.chosen for pair in rdn)
    return ", ".join(f"{_SHORT.get(pair['type'].native, pair['type'].native)}={_value(pair)}" for pair in pairs)


def _value(pair: asn1.NameTypeAndValue) -> str:
    try:
        return str(pair["value"].native)
    except UNREADABLE:
        # Kernels compare the bytes and never read them.
        return hex_of(pair["value"].contents or b"")


def hex_of(value: bytes) -> str:
    """As modinfo prints sig_key."""
    return value[:_SHOWN_BYTES].hex(":").upper() + ("…" if len(value) > _SHOWN_BYTES else "")
