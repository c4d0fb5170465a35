"""The appended signature of a kmod, checked as kernels check it.

Kernels accept less than CMS allows (crypto/asymmetric_keys/pkcs7_parser.c). A signature that other programs call valid
can be invalid here.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from asn1crypto import algos
from asn1crypto import x509 as asn1
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod import findings
from kmm_preflight.kmod.certificate import Certificate, parse_certificate, unfit_key
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
from kmm_preflight.kmod.packed import compression
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

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.3.14.3.2.26": hashes.SHA1(),
    "2.16.840.1.101.3.4.2.4": hashes.SHA224(),
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}
_RSA = "1.2.840.113549.1.1.1"
_ECDSA = {
    "1.2.840.10045.4.1": "sha1",
    "1.2.840.10045.4.3.1": "sha224",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
# Findings that show that a certificate inside a message does not belong to the signature.
_DISPROVED = (findings.SIGNATURE_FORM.id, findings.SIGNATURE_WRONG.id)
# Oddities that every kernel refuses, also without enforcement of signatures.
_ALWAYS_REFUSED = (EMBEDDED, ATTRIBUTES, CONTENT, VERSION, SIGNER_VERSION, TWO_VERSIONS)


def judge_signature(path: str, data: bytes, certificate: Certificate | None) -> Finding | None:
    """Return None if the kmod has exactly one signature, by the certificate's key, that kernels accept.

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
    return _judge(path, body, message, certificate)


def judge_unenforced_signature(path: str, data: bytes) -> Finding | None:
    """Return the finding for a signature that kernels refuse even if they do not enforce signatures, or None.

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
    oddities = [*message.oddities, *(words for signer in message.signers for words in signer.oddities)]
    refused = [words for words in oddities if words.startswith(_ALWAYS_REFUSED)]
    refused += [] if refused else _disproved(path, body, message)
    return findings.SIGNATURE_FORM(path=path, got=", ".join(refused)) if refused else None


def _disproved(path: str, body: memoryview, message: CmsMessage) -> list[str]:
    """Return words for a certificate inside the message that does not fit the signature.

    A kernel tries such certificates, trusted or not.
    """
    for der in message.certificates:
        try:
            certificate = parse_certificate(der, "certificate inside")
        except Malformed:
            return ["a certificate inside that cannot be read"]
        finding = _judge(path, body, replace(message, certificates=(der,)), certificate)
        if not certificate.proves_itself() or (finding and finding.id in _DISPROVED):
            return ["a certificate inside that does not prove it"]
    return []


def _judge(path: str, body: memoryview, message: CmsMessage, certificate: Certificate | None) -> Finding | None:
    if len(message.signers) != 1:
        return findings.SIGNATURE_FORM(path=path, got=f"{len(message.signers)} signers")
    info = message.signers[0]
    if certificate is None:
        if problem := _form_problem(message, info):
            return findings.SIGNATURE_FORM(path=path, got=problem)
        return _second_signature(path, body) or findings.SIGNATURE_SIGNER(path=path, got=info.signer.words)
    own = _signer_of_certificate(certificate, by_ski=bool(info.signer.ski))
    if info.signer != own:
        return findings.SIGNATURE_FOREIGN(path=path, got=info.signer.words, expected=own.words)
    key = certificate.public_key()
    if problem := _form_problem(message, info) or _key_problem(message, info, key, certificate):
        return findings.SIGNATURE_FORM(path=path, got=problem)
    algorithm = _HASHES[info.hash_oid]
    digest = hashlib.new(algorithm.name, body, usedforsecurity=False).digest()
    try:
        valid = _verifies(key, info.value, digest, algorithm)
    except UnsupportedAlgorithm:
        got = f"{algorithm.name}, which the cryptography of this machine does not verify"
        return findings.SIGNATURE_FORM(path=path, got=got)
    if not valid:
        return findings.SIGNATURE_WRONG(path=path, hash=algorithm.name, expected=own.words)
    return _second_signature(path, body)


def _second_signature(path: str, body: memoryview) -> Finding | None:
    """Return the finding if the signed bytes end with another signature."""
    return findings.SIGNATURE_TWICE(path=path, got=signer_below(body)) if body[-len(MAGIC) :] == MAGIC else None


def _signer_of_certificate(certificate: Certificate, by_ski: bool) -> SignerIdentifier:
    """Return the signer as a signature by the certificate names it. The kernel compares the bytes."""
    if by_ski:
        return by_key_identifier(certificate.ski)
    tbs = asn1.Certificate.load(certificate.der)["tbs_certificate"]
    return by_issuer(tbs["issuer"], tbs["serial_number"])


def _form_problem(message: CmsMessage, info: SignerInfo) -> str | None:
    """Return words for parts of the message that some kernels refuse, as far as no certificate is needed to see it."""
    if message.oddities or info.oddities:
        return ", ".join(message.oddities + info.oddities)
    known = info.hash_oid in _HASHES
    return None if known else f"the hash {algos.DigestAlgorithmId.map(info.hash_oid)}"


def _key_problem(message: CmsMessage, info: SignerInfo, key: object, certificate: Certificate) -> str | None:
    """Return words for certificates, keys and algorithms in the message that some kernels refuse."""
    if any(der != certificate.der for der in message.certificates):
        # A kernel uses the signer's key from the message, and follows the chain of certificates that it finds there.
        return "other certificates inside"
    if unfit := unfit_key(key):
        return f"a certificate for {unfit}"
    fit = _RSA if isinstance(key, rsa.RSAPublicKey) else _ecdsa_with(info.hash_oid)
    if info.algorithm != fit:
        return f"the signature algorithm {algos.SignedDigestAlgorithmId.map(info.algorithm)}"
    return "parameters of an algorithm that has none" if info.parameters else None


def _ecdsa_with(hash_oid: str) -> str:
    """Return the algorithm ECDSA with this hash, as dotted numbers."""
    return next(oid for oid, name in _ECDSA.items() if name == _HASHES[hash_oid].name)


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
