"""The appended signature of a kmod, checked as kernels check it.

Kernels accept less than CMS allows (crypto/asymmetric_keys/pkcs7_parser.c). A signature that other programs call valid
can be invalid here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from asn1crypto import algos
from asn1crypto import x509 as asn1
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod import findings
from kmm_preflight.kmod.certificate import Certificate, unfit_key, unfit_size
from kmm_preflight.kmod.cms import (
    ATTRIBUTES,
    CONTENT,
    EMBEDDED,
    SIGNER_VERSION,
    TWO_VERSIONS,
    VERSION,
    CmsMessage,
    SignerIdentifier,
    SignerInfo,
    by_issuer,
    by_key_identifier,
    read_message,
)
from kmm_preflight.kmod.der import element
from kmm_preflight.kmod.embedded_certificates import all_self_signed, certificate_problem, is_unknown
from kmm_preflight.kmod.packed import compression
from kmm_preflight.kmod.signature_rules import ANY_KERNEL, SignatureRules
from kmm_preflight.kmod.signed_file import (
    MAGIC,
    PlainBytes,
    cut_signature,
    has_signature_of_other_type,
    signer_below,
    unpack_kmod,
    unsigned_end,
)
from kmm_preflight.model import Finding
from kmm_preflight.text import listed

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.2.840.113549.2.5": hashes.MD5(),
    "1.3.14.3.2.26": hashes.SHA1(),
    "2.16.840.1.101.3.4.2.4": hashes.SHA224(),
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
    "2.16.840.1.101.3.4.2.8": hashes.SHA3_256(),
    "2.16.840.1.101.3.4.2.9": hashes.SHA3_384(),
    "2.16.840.1.101.3.4.2.10": hashes.SHA3_512(),
}
_RSA = "1.2.840.113549.1.1.1"
_ECDSA = {
    "sha1": "1.2.840.10045.4.1",
    "sha224": "1.2.840.10045.4.3.1",
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
    "sha3-256": "2.16.840.1.101.3.4.3.10",
    "sha3-384": "2.16.840.1.101.3.4.3.11",
    "sha3-512": "2.16.840.1.101.3.4.3.12",
}
# Oddities that every kernel refuses, also without enforcement of signatures.
_ALWAYS_REFUSED = (EMBEDDED, ATTRIBUTES, CONTENT, VERSION, SIGNER_VERSION, TWO_VERSIONS)


def judge_signature(
    path: str, data: bytes, certificate: Certificate | None, rules: SignatureRules = ANY_KERNEL
) -> Finding | None:
    """Return None if the kmod has exactly one signature, by the certificate's key, that the kernel accepts.

    Otherwise return the finding. Two signatures, the last of them valid, are a warning. Without a certificate the
    finding names the signer. A compressed kmod is unpacked first: raise BoundExceeded if it is too large. Not checked:
    whether a node trusts the certificate, and its dates, which kernels ignore. path: the kmod's path in the image,
    without the leading slash.
    """
    plain: PlainBytes = data
    if packed := compression(data):
        if data.endswith(MAGIC):
            return findings.SIGNATURE_COMPRESSED(path=path, packed=packed)
        try:
            plain = unpack_kmod(data, path)
        except Malformed as exc:
            return findings.SIGNATURE_BROKEN(path=path, got=f"damaged {packed} data ({exc.message})")
    if not plain.endswith(MAGIC):
        expected = f"a signature by {certificate.subject}" if certificate else "a signature"
        return findings.SIGNATURE_MISSING(path=path, got=unsigned_end(plain), expected=expected)
    try:
        body, der = cut_signature(plain)
        message = read_message(der)
    except Malformed as exc:
        return findings.SIGNATURE_BROKEN(path=path, got=exc.message)
    return _judge(_Signed(path, body, message, rules), certificate)


def judge_unenforced_signature(path: str, data: bytes, rules: SignatureRules = ANY_KERNEL) -> Finding | None:
    """Return the finding for a signature that the kernel refuses even if it does not enforce signatures, or None.

    Not found: a damaged signature by a key that the node trusts, since no file names those keys. The rules are the
    kernel's (docs/reference/loader.md 4).
    """
    plain: PlainBytes = data
    if compression(data):
        try:
            plain = unpack_kmod(data, path)
        except Malformed:
            return None  # the check of the object reports the damaged stream
    if not plain.endswith(MAGIC) or has_signature_of_other_type(plain):
        return None
    try:
        body, der = cut_signature(plain)
        message = read_message(der[: element(der, 0, len(der))[1]])  # kernels ignore bytes behind the message
    except Malformed as exc:
        return findings.SIGNATURE_BROKEN(path=path, got=exc.message)
    signed = _Signed(path, body, message, rules)
    return findings.SIGNATURE_FORM(path=path, got=problem) if (problem := _always_refused(signed)) else None


@dataclass(frozen=True)
class _Signed:
    """A kmod with a signature, and the kernel that checks it."""

    path: str
    """The kmod's path in findings."""
    body: memoryview
    """The signed bytes."""
    message: CmsMessage
    """The signature."""
    rules: SignatureRules
    """Methods that the kernel knows."""


def _always_refused(signed: _Signed) -> str | None:
    """Return words for a signature that is refused also where none is required, or None."""
    message = signed.message
    unknown = is_unknown(message, signed.rules) or any(_unknown_method(signed, info) for info in message.signers)
    if unknown and not signed.rules.forgives:
        return "a method that this kernel does not know"
    # A kernel that does not know a certificate inside reads no more of the message.
    if is_unknown(message, signed.rules):
        return None
    oddities = [*message.oddities, *(words for signer in message.signers for words in signer.oddities)]
    refused = [words for words in oddities if words.startswith(_ALWAYS_REFUSED)]
    return ", ".join(refused) or certificate_problem(message, signed.rules, _names, partial(_proves, signed))


def _unknown_method(signed: _Signed, info: SignerInfo) -> bool:
    """True if the kernel does not know the hash or the algorithm of a signer."""
    algorithm = _HASHES.get(info.hash_oid)
    if algorithm is None or not signed.rules.knows_hash(algorithm.name):
        return True
    return info.algorithm not in (_RSA, _ECDSA.get(algorithm.name))


def _names(info: SignerInfo, certificate: Certificate) -> bool:
    """True if the kernel takes a certificate inside for the signer's: by issuer and serial number only.

    The certificate's key must be of the kind that the signer's algorithm has.
    """
    is_rsa = isinstance(certificate.public_key(), rsa.RSAPublicKey)
    return is_rsa == (info.algorithm == _RSA) and info.signer == _signer_of_certificate(certificate, by_ski=False)


def _proves(signed: _Signed, info: SignerInfo, certificate: Certificate) -> bool | None:
    """True if the signature is valid by the certificate, None if the kernel does not know its method."""
    if _unknown_method(signed, info):
        return None
    algorithm = _HASHES[info.hash_oid]
    digest = hashlib.new(algorithm.name.replace("sha3-", "sha3_"), signed.body, usedforsecurity=False).digest()
    try:
        return _verifies(certificate.public_key(), info.value, digest, algorithm)
    except UnsupportedAlgorithm:
        return None


def _judge(signed: _Signed, certificate: Certificate | None) -> Finding | None:
    path, message = signed.path, signed.message
    if not message.signers:
        return findings.SIGNATURE_FORM(path=path, got="no signer")
    if certificate is None:
        if problem := _form_problem(signed):
            return findings.SIGNATURE_FORM(path=path, got=problem)
        words = listed([info.signer.words for info in message.signers])
        return _second_signature(path, signed.body) or findings.SIGNATURE_SIGNER(path=path, got=words)
    own = [info for info in message.signers if _is_by(info, certificate)]
    if not own:
        info = message.signers[0]
        expected = _signer_of_certificate(certificate, by_ski=bool(info.signer.ski)).words
        return findings.SIGNATURE_FOREIGN(path=path, got=info.signer.words, expected=expected)
    return _judge_own(signed, own, certificate)


def _judge_own(signed: _Signed, own: Sequence[SignerInfo], certificate: Certificate) -> Finding | None:
    """Check the signers that name the certificate. Kernels do not need the others (pkcs7_validate_trust)."""
    path, key = signed.path, certificate.public_key()
    for info in own:
        if problem := _form_problem(signed) or _key_problem(signed, info, key, certificate):
            return findings.SIGNATURE_FORM(path=path, got=problem)
        valid = _proves(signed, info, certificate)
        name = _HASHES[info.hash_oid].name
        if valid is None:
            got = f"{name}, which the cryptography of this machine does not verify"
            return findings.SIGNATURE_FORM(path=path, got=got)
        if not valid:
            return findings.SIGNATURE_WRONG(path=path, hash=name, expected=info.signer.words)
    return _second_signature(path, signed.body)


def _is_by(info: SignerInfo, certificate: Certificate) -> bool:
    return info.signer == _signer_of_certificate(certificate, by_ski=bool(info.signer.ski))


def _second_signature(path: str, body: memoryview) -> Finding | None:
    """Return the finding if the signed bytes end with another signature."""
    return findings.SIGNATURE_TWICE(path=path, got=signer_below(body)) if body[-len(MAGIC) :] == MAGIC else None


def _signer_of_certificate(certificate: Certificate, by_ski: bool) -> SignerIdentifier:
    """Return the signer as a signature by the certificate names it. The kernel compares the bytes."""
    if by_ski:
        return by_key_identifier(certificate.ski)
    tbs = asn1.Certificate.load(certificate.der)["tbs_certificate"]
    return by_issuer(tbs["issuer"], tbs["serial_number"])


def _form_problem(signed: _Signed) -> str | None:
    """Return words for parts of the message that some kernels refuse, as far as no certificate is needed to see it."""
    oddities = [*signed.message.oddities, *(words for info in signed.message.signers for words in info.oddities)]
    if oddities:
        return ", ".join(dict.fromkeys(oddities))
    for info in signed.message.signers:
        algorithm = _HASHES.get(info.hash_oid)
        if algorithm is None or not signed.rules.knows_hash(algorithm.name):
            return f"the hash {algos.DigestAlgorithmId.map(info.hash_oid)}"
    return None


def _key_problem(signed: _Signed, info: SignerInfo, key: PublicKeyTypes, certificate: Certificate) -> str | None:
    """Return words for certificates, keys and algorithms in the message that some kernels refuse."""
    if problem := _other_certificates_problem(signed, certificate):
        return problem
    if unfit := unfit_size(key) if signed.rules.knows_key(key) else unfit_key(key) or "an EC key":
        return f"a certificate for {unfit}"
    fit = _RSA if isinstance(key, rsa.RSAPublicKey) else _ECDSA.get(_HASHES[info.hash_oid].name)
    if info.algorithm != fit:
        return f"the signature algorithm {algos.SignedDigestAlgorithmId.map(info.algorithm)}"
    return "parameters of an algorithm that has none" if info.parameters else None


def _other_certificates_problem(signed: _Signed, certificate: Certificate) -> str | None:
    """Return words for certificates inside that may keep a kernel from the signer's key, or None.

    A kernel checks each of them, and follows the chain of certificates that it finds there.
    """
    message = signed.message
    if all(der == certificate.der for der in message.certificates):
        return None
    if is_unknown(message, signed.rules) or not all_self_signed(message):
        return "other certificates inside"
    return certificate_problem(message, signed.rules, _names, partial(_proves, signed))


def _verifies(key: object, signature: bytes, digest: bytes, algorithm: hashes.HashAlgorithm) -> bool:
    try:
        match key:
            case rsa.RSAPublicKey():
                key.verify(signature, digest, padding.PKCS1v15(), Prehashed(algorithm))
            case ec.EllipticCurvePublicKey():
                key.verify(signature, digest, ec.ECDSA(Prehashed(algorithm)))
            case _:
                return False
    except InvalidSignature:
        return False
    return True
