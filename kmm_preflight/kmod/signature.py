"""The appended signature of a kernel module, as sign-file writes it and kernels read it.

From the end of the file: a magic line, a header of 12 bytes, a detached CMS message in DER, and before it the bytes
that are signed. The kernel looks at the last one only. It takes less than CMS allows, so what other programs call valid
is judged here by what kernels parse (crypto/asymmetric_keys/pkcs7_parser.c, kernel/module_signature.c).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

from asn1crypto import algos
from asn1crypto import x509 as asn1
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from kmm_preflight.base.decompression import GZIP, XZ, ZSTD
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod import findings
from kmm_preflight.kmod.certificate import Certificate, parse_certificate, why_unfit
from kmm_preflight.kmod.cms import (
    ATTRIBUTES,
    CONTENT,
    EMBEDDED,
    SIGNER_VERSION,
    TWO_VERSIONS,
    VERSION,
    Message,
    Signature,
    SignerIdentifier,
    by_issuer,
    by_key_identifier,
    read_message,
)
from kmm_preflight.kmod.der import element
from kmm_preflight.kmod.packed import UNPACKED_BYTES, plain_pieces
from kmm_preflight.model import Finding

MAGIC = b"~Module signature appended~\n"
# algo, hash, id_type, signer_len, key_id_len, three of padding, sig_len.
_HEADER = struct.Struct(">8BI")
_PKCS7 = 2
_PACKED = {GZIP: "gzip", XZ: "xz", ZSTD: "zstd"}
_PIECE = 1 << 16
# What lib/asn1_decoder.c of the kernel takes; sign-file writes some 400.
_CMS_BYTES = 65535
# How far behind the magic other bytes are still told as such.
_BEHIND_BYTES = 4096
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
_DISPROVED = (findings.SIGNATURE_FORM.id, findings.SIGNATURE_WRONG.id)
_REFUSED_UNASKED = (EMBEDDED, ATTRIBUTES, CONTENT, VERSION, SIGNER_VERSION, TWO_VERSIONS)


def judge_signature(path: str, data: bytes, certificate: Certificate | None) -> Finding | None:
    """None when data carries one signature, whole, over these bytes, by this certificate's key, as kernels take it.

    Else the one finding; of several signatures, of which the last is right, that is a warning. Without a certificate it
    is told whose signature it is. path is that in the image, without its first slash. What is compressed is judged
    unpacked: BoundExceeded when that is too much. Not checked: whether a node trusts the certificate, and its dates,
    which kernels do not look at.
    """
    plain: bytes | bytearray = data
    if packed := _packing(data):
        if data.endswith(MAGIC):
            return findings.SIGNATURE_COMPRESSED(path=path, packed=packed)
        try:
            plain = _unpacked(data, path)
        except Malformed as exc:
            return findings.SIGNATURE_BROKEN(path=path, got=f"damaged {packed} data ({exc.message})")
    if not plain.endswith(MAGIC):
        expected = f"a signature by {certificate.subject}" if certificate else "a signature"
        return findings.SIGNATURE_MISSING(path=path, got=_instead(plain), expected=expected)
    try:
        body, der = _cut(plain)
        message = read_message(der)
    except Malformed as exc:
        return findings.SIGNATURE_BROKEN(path=path, got=exc.message)
    return _judge(path, body, message, certificate)


def refused_unasked(path: str, data: bytes) -> Finding | None:
    """Why a kernel that asks for no signature refuses this one all the same, None when it does not.

    Not reported: a damaged signature by a key that the node trusts, which no file names (docs/reference/loader.md 4).
    """
    plain: bytes | bytearray = data
    if _packing(data):
        try:
            plain = _unpacked(data, path)
        except Malformed:
            return None  # the loader's own finding
    at = len(plain) - len(MAGIC) - _HEADER.size
    if not plain.endswith(MAGIC) or (at >= 0 and _is_foreign(plain, at)):
        return None
    try:
        body, der = _cut(plain)
        message = read_message(der[: element(der, 0, len(der))[1]])  # what comes behind it is passed over
    except Malformed as exc:
        return findings.SIGNATURE_BROKEN(path=path, got=exc.message)
    unlike = [*message.unlike, *(words for one in message.signatures for words in one.unlike)]
    unlike = [words for words in unlike if words.startswith(_REFUSED_UNASKED)]
    unlike += [] if unlike else _disproved(path, body, message)
    return findings.SIGNATURE_FORM(path=path, got=", ".join(unlike)) if unlike else None


def _disproved(path: str, body: memoryview, message: Message) -> list[str]:
    """Words for a certificate in the message that speaks against it: a kernel tries these, trusted or not."""
    for der in message.certificates:
        try:
            certificate = parse_certificate(der, "certificate inside")
        except Malformed:
            return ["a certificate inside that cannot be read"]
        found = _judge(path, body, replace(message, certificates=(der,)), certificate)
        if not certificate.proves_itself() or (found and found.id in _DISPROVED):
            return ["a certificate inside that does not prove it"]
    return []


def _is_foreign(data: bytes | bytearray, at: int) -> bool:
    """Whether it is a signature of another type than a kernel knows, in front of which enough is left."""
    _, _, kind, *_, size = _HEADER.unpack_from(data, at)
    return bool(kind != _PKCS7 and size < at)


def packed_below_signature(path: Path) -> str:
    """How the file is compressed if a signature stands behind what is, "" else: no kernel sees it."""
    with path.open("rb") as file:
        packed = _packing(file.read(len(XZ)))
        file.seek(max(0, path.stat().st_size - len(MAGIC)))
        return packed if file.read() == MAGIC else ""


def signer_of(data: bytes) -> str:
    """Issuer and serial number, or key identifier, that the last signature names; "" where none can be read."""
    try:
        return _last_signer(_unpacked(data, "kmod") if _packing(data) else data)
    except (Malformed, BoundExceeded):
        return ""


def _last_signer(data: bytes | bytearray) -> str:
    signatures = read_message(_cut(data)[1]).signatures
    return signatures[0].signer.words if signatures else ""


def _judge(path: str, body: memoryview, message: Message, certificate: Certificate | None) -> Finding | None:
    if len(message.signatures) != 1:
        return findings.SIGNATURE_FORM(path=path, got=f"{len(message.signatures)} signers")
    signature = message.signatures[0]
    if certificate is None:
        if unlike := _unlike_in_form(message, signature):
            return findings.SIGNATURE_FORM(path=path, got=unlike)
        return _below_it(path, body) or findings.SIGNATURE_SIGNER(path=path, got=signature.signer.words)
    own = _own_signer(certificate, by_ski=bool(signature.signer.ski))
    if signature.signer != own:
        return findings.SIGNATURE_FOREIGN(path=path, got=signature.signer.words, expected=own.words)
    key = certificate.public_key()
    if unlike := _unlike(message, signature, key, certificate):
        return findings.SIGNATURE_FORM(path=path, got=unlike)
    algorithm = _HASHES[signature.hash_oid]
    digest = hashlib.new(algorithm.name, body, usedforsecurity=False).digest()
    try:
        good = _verifies(key, signature.value, digest, algorithm)
    except UnsupportedAlgorithm:
        got = f"{algorithm.name}, which the cryptography of this machine does not verify"
        return findings.SIGNATURE_FORM(path=path, got=got)
    if not good:
        return findings.SIGNATURE_WRONG(path=path, hash=algorithm.name, expected=own.words)
    return _below_it(path, body)


def _below_it(path: str, body: memoryview) -> Finding | None:
    return findings.SIGNATURE_TWICE(path=path, got=_below(body)) if body[-len(MAGIC) :] == MAGIC else None


def _below(body: memoryview) -> str:
    """The signer of the last signature in what is signed, of which no more is copied than one can take."""
    most = 1 + _CMS_BYTES + _HEADER.size + len(MAGIC)
    try:
        return _last_signer(bytes(body[-most:])) or "nobody"
    except Malformed:
        return "somebody who cannot be read"


def _own_signer(certificate: Certificate, by_ski: bool) -> SignerIdentifier:
    """As a signature by this certificate names it. The kernel compares bytes, so other spellings are others."""
    if by_ski:
        return by_key_identifier(certificate.ski)
    tbs = asn1.Certificate.load(certificate.der)["tbs_certificate"]
    return by_issuer(tbs["issuer"], tbs["serial_number"])


def _unlike(message: Message, signature: Signature, key: object, certificate: Certificate) -> str:
    """What of it kernels do not take, or not all of them; "" for a form as sign-file writes it."""
    if unlike := _unlike_in_form(message, signature):
        return unlike
    if any(der != certificate.der for der in message.certificates):
        # A kernel takes the signer's key out of the message, and goes along a chain that it finds there.
        return "other certificates inside"
    if unfit := why_unfit(key):
        return f"a certificate for {unfit}"
    fit = {_RSA} if isinstance(key, rsa.RSAPublicKey) else {_algorithm_of(signature.hash_oid)}
    if signature.algorithm not in fit:
        return f"the signature algorithm {algos.SignedDigestAlgorithmId.map(signature.algorithm)}"
    return "parameters of an algorithm that has none" if signature.parameters else ""


def _unlike_in_form(message: Message, signature: Signature) -> str:
    """The same, as far as it can be told without the signer's certificate."""
    if message.unlike or signature.unlike:
        return ", ".join(message.unlike + signature.unlike)
    known = signature.hash_oid in _HASHES
    return "" if known else f"the hash {algos.DigestAlgorithmId.map(signature.hash_oid)}"


def _algorithm_of(hash_oid: str) -> str:
    """ECDSA with this hash."""
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


def _packing(data: bytes) -> str:
    return next((name for magic, name in _PACKED.items() if data.startswith(magic)), "")


def _unpacked(data: bytes, path: str) -> bytearray:
    plain = bytearray()
    # In pieces, as what a decompressor has not yet taken is copied each time.
    pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
    for piece in plain_pieces(pieces, f"kmod {path}"):
        plain += piece
        if len(plain) > UNPACKED_BYTES:
            raise BoundExceeded(f"kmod {path}: more than {UNPACKED_BYTES >> 20} MiB when unpacked")
    return plain


def _instead(data: bytes | bytearray) -> str:
    """Words for the end of a file without a signature there."""
    at = data.rfind(MAGIC, max(0, len(data) - _BEHIND_BYTES))
    return f"a signature with {len(data) - at - len(MAGIC)} bytes behind it" if at >= 0 else "no signature at its end"


def _cut(data: bytes | bytearray) -> tuple[memoryview, bytes]:
    """What is signed, without a copy, and the CMS message behind it. Malformed tells what is there instead."""
    at = len(data) - len(MAGIC) - _HEADER.size
    if at < 0 or not data.endswith(MAGIC):
        raise Malformed("no header before the magic")
    algo, hashed, kind, *rest, size = _HEADER.unpack_from(data, at)
    if kind != _PKCS7:
        raise Malformed(f"a signature of type {kind} instead of {_PKCS7} (PKCS#7)")
    if algo or hashed or any(rest):
        raise Malformed("a header with bytes set that must be zero")
    if size >= at:
        raise Malformed(f"a signature of {size} bytes in front of which {at} are left")
    if not 0 < size <= _CMS_BYTES:
        raise Malformed(f"a signature of {size} bytes, where kernels take up to {_CMS_BYTES}")
    return memoryview(data)[: at - size], bytes(data[at - size : at])
