"""The appended signature of a kernel module, as sign-file writes it and kernels read it.

From the end of the file: a magic line, a header of 12 bytes, a detached CMS message in DER, and before it the bytes
that are signed. The kernel looks at the last one only. It takes less than CMS allows, so what other programs call valid
is judged here by what kernels parse (crypto/asymmetric_keys/pkcs7_parser.c, kernel/module_signature.c).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding

from kmm_preflight import findings
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.elf import UNPACKED_BYTES
from kmm_preflight.model import Finding
from kmm_preflight.oci.compression import GZIP, XZ, ZSTD, decompressed

MAGIC = b"~Module signature appended~\n"
CERTIFICATE_BYTES = 64 << 10
FIT_KEY = "an RSA key of up to 4096 bits, or an EC key on P-256 or P-384"
# algo, hash, id_type, signer_len, key_id_len, three of padding, sig_len.
_HEADER = struct.Struct(">8BI")
_PKCS7 = 2
_PACKED = {GZIP: "gzip", XZ: "xz", ZSTD: "zstd"}
_PIECE = 1 << 16
# What lib/asn1_decoder.c of the kernel takes; sign-file writes some 400.
_CMS_BYTES = 65535
_ELEMENTS = 4096
_LONG_TAG, _CONSTRUCTED = 0x1F, 0x20
# How far behind the magic other bytes are still told as such.
_BEHIND_BYTES = 4096
_SHOWN_BYTES = 40
_KEY_IDENTIFIER = "2.5.29.14"
# crypto/rsa.c of the kernel; lengths count in words of 64 bits. FIPS mode takes those from 2048 on.
_RSA_BITS = {512, 1024, 1536, 2048, 3072, 4096}
# P-521 is known only since 6.11.
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.3.14.3.2.26": hashes.SHA1(),
    "2.16.840.1.101.3.4.2.4": hashes.SHA224(),
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}
# No parameters are written as nothing or as NULL.
_NONE = (b"", b"\x05\x00")
_RSA = "1.2.840.113549.1.1.1"
_ECDSA = {
    "1.2.840.10045.4.1": "sha1",
    "1.2.840.10045.4.3.1": "sha224",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
_SEQUENCE = b"\x30"
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
_EMBEDDED, _ATTRIBUTES, _CONTENT = "the content embedded", "signed attributes", "content of type"
_DISPROVED = (findings.SIGNATURE_FORM.id, findings.SIGNATURE_WRONG.id)
_REFUSED_UNASKED = (_EMBEDDED, _ATTRIBUTES, _CONTENT)
# What asn1crypto raises for bytes that are not what they should be; it has no class of its own.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError)


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


@dataclass(frozen=True)
class _Signer:
    """Whom a signature names: by issuer and serial number as they stand in its bytes, or by key identifier."""

    issuer: bytes
    serial: bytes
    ski: bytes
    words: str


@dataclass(frozen=True)
class _Signature:
    """One signer's part of a CMS message. unlike tells what sign-file would not have written."""

    signer: _Signer
    hash_oid: str
    algorithm: str
    parameters: bool
    value: bytes
    unlike: tuple[str, ...]


@dataclass(frozen=True)
class _Message:
    """What a CMS message holds, as far as kernels look at it."""

    signatures: tuple[_Signature, ...]
    certificates: tuple[bytes, ...]
    unlike: tuple[str, ...]


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
            subject=_text(tbs["subject"]),
            issuer=_text(tbs["issuer"]),
            serial=int(tbs["serial_number"].native),
            not_before=loaded.not_valid_before_utc,
            not_after=loaded.not_valid_after_utc,
            der=der,
            ski=_key_identifier(tbs),
        )
    except (Malformed, *_UNREADABLE, UnsupportedAlgorithm, x509.InvalidVersion, Warning) as exc:
        # A warning, where warnings are errors: of a serial number below 1.
        got = what_it_is(data, damaged="certificate")
        raise Malformed(f"{subject}: got {got}, expected an X.509 certificate, PEM or DER") from exc


def what_it_is(data: bytes, damaged: str) -> str:
    """Words for bytes that are no readable key or certificate; of the bytes themselves not one is told.

    damaged is what they should be: if they are labelled so, they are broken.
    """
    if not data.strip():
        return "nothing"
    label = data.partition(b"-----BEGIN ")[2].partition(b"-----")[0]
    for ending, kind in _LABELS.items():
        if label.endswith(ending):
            return f"a damaged {kind} in PEM" if kind == damaged else f"a {kind} in PEM"
    return f"{len(data)} bytes of DER that cannot be read" if data.startswith(_SEQUENCE) else f"{len(data)} other bytes"


def why_unfit(key: object) -> str:
    """Words for a public key by which no kernel, or not every one, verifies a module; "" for one that is fit."""
    match key:
        case rsa.RSAPublicKey():
            return "" if -(-key.key_size // 64) * 64 in _RSA_BITS else f"an RSA key of {key.key_size} bits"
        case ec.EllipticCurvePublicKey():
            return "" if isinstance(key.curve, _CURVES) else f"an EC key on {key.curve.name}"
        case _:
            return f"a key of kind {type(key).__name__.removesuffix('PublicKey')}"


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
        message = _read(der)
    except Malformed as exc:
        return findings.SIGNATURE_BROKEN(path=path, got=exc.message)
    return _judge(path, body, message, certificate)


def refused_unasked(path: str, data: bytes) -> Finding | None:
    """Why a kernel that asks for no signature refuses this one all the same, None when it does not.

    By loader-reference 4. Not told: a damaged signature by a key that the node trusts, which no file names.
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
        message = _read(der)
    except Malformed as exc:
        return findings.SIGNATURE_BROKEN(path=path, got=exc.message)
    unlike = [*message.unlike, *(words for one in message.signatures for words in one.unlike)]
    unlike = [words for words in unlike if words.startswith(_REFUSED_UNASKED)]
    unlike += [] if unlike else _disproved(path, body, message)
    return findings.SIGNATURE_FORM(path=path, got=", ".join(unlike)) if unlike else None


def _disproved(path: str, body: memoryview, message: _Message) -> list[str]:
    """Words for a certificate in the message that speaks against it: a kernel tries these, trusted or not."""
    for der in message.certificates:
        try:
            certificate = parse_certificate(der, "certificate inside")
        except Malformed:
            return ["a certificate inside that cannot be read"]
        found = _judge(path, body, replace(message, certificates=(der,)), certificate)
        if not _proves_itself(der) or (found and found.id in _DISPROVED):
            return ["a certificate inside that does not prove it"]
    return []


def _proves_itself(der: bytes) -> bool:
    """Whether a certificate that names itself as its issuer has a signature of its own key."""
    certificate = x509.load_der_x509_certificate(der)
    if certificate.issuer != certificate.subject:
        return True
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, UnsupportedAlgorithm, *_UNREADABLE):
        return False
    return True


def _is_foreign(data: bytes | bytearray, at: int) -> bool:
    """Whether it is a signature of another type than a kernel knows, in front of which enough is left."""
    _, _, kind, *_, size = _HEADER.unpack_from(data, at)
    return bool(kind != _PKCS7 and size < at)


def packed_below_signature(path: Path) -> str:
    """How the file is compressed if a signature stands behind what is, "" else: modprobe cannot unpack that."""
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
    signatures = _read(_cut(data)[1]).signatures
    return signatures[0].signer.words if signatures else ""


def _load(data: bytes) -> x509.Certificate:
    if not data.startswith(_SEQUENCE):
        return x509.load_pem_x509_certificate(data)
    # sign-file passes over what comes behind the certificate, such as a newline.
    return x509.load_der_x509_certificate(data[: _element(data, 0, len(data))[1]])


def _judge(path: str, body: memoryview, message: _Message, certificate: Certificate | None) -> Finding | None:
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


def _own_signer(certificate: Certificate, by_ski: bool) -> _Signer:
    """As a signature by this certificate names it. The kernel compares bytes, so other spellings are others."""
    if by_ski:
        return _by_ski(certificate.ski)
    tbs = asn1.Certificate.load(certificate.der)["tbs_certificate"]
    return _by_issuer(tbs["issuer"], tbs["serial_number"])


def _by_issuer(issuer: asn1.Name, serial: core.Integer) -> _Signer:
    words = f"{_text(issuer)}, serial {_hex(serial.contents)}"
    return _Signer(issuer.chosen.contents, serial.contents, b"", words)


def _by_ski(ski: bytes) -> _Signer:
    return _Signer(b"", b"", ski, f"key identifier {_hex(ski)}" if ski else "no key identifier")


def _unlike(message: _Message, signature: _Signature, key: object, certificate: Certificate) -> str:
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


def _unlike_in_form(message: _Message, signature: _Signature) -> str:
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
    for piece in decompressed(pieces, f"kmod {path}"):
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


def _read(der: bytes) -> _Message:
    """The CMS message; Malformed when it is none that kernels can parse."""
    _check_der(der)
    try:
        content = cms.ContentInfo.load(der, strict=True)
        if content["content_type"].native != "signed_data":
            raise Malformed(f"a CMS message of type {content['content_type'].native}")
        return _message(content["content"])
    except _UNREADABLE as exc:
        raise Malformed(f"{len(der)} bytes of DER that are no CMS message") from exc


def _message(signed: cms.SignedData) -> _Message:
    inner = signed["encap_content_info"]
    signatures = tuple(_signature(info) for info in signed["signer_infos"])
    announced = {algorithm["algorithm"].dotted for algorithm in signed["digest_algorithms"]}
    certificates = () if _absent(signed["certificates"]) else tuple(one.chosen.dump() for one in signed["certificates"])
    odd = {
        f"CMS of version {signed['version'].native}": signed["version"].native not in {"v1", "v3"},
        f"{_CONTENT} {inner['content_type'].native}": inner["content_type"].native != "data",
        _EMBEDDED: not _absent(inner["content"]),
        "a revocation list inside": not _absent(signed["crls"]),
        "a hash that is not announced": any(one.hash_oid not in announced for one in signatures),
    }
    return _Message(signatures, certificates, _words_of(odd))


def _signature(info: cms.SignerInfo) -> _Signature:
    sid = info["sid"]
    by_ski = sid.name == "subject_key_identifier"
    version = info["version"].native
    odd = {
        f"a signer of version {version}": version != ("v3" if by_ski else "v1"),
        _ATTRIBUTES: not _absent(info["signed_attrs"]),
        "unsigned attributes": not _absent(info["unsigned_attrs"]),
    }
    named = sid.chosen
    return _Signature(
        signer=_by_ski(named.native) if by_ski else _by_issuer(named["issuer"], named["serial_number"]),
        hash_oid=info["digest_algorithm"]["algorithm"].dotted,
        algorithm=info["signature_algorithm"]["algorithm"].dotted,
        parameters=any(
            info[one]["parameters"].dump() not in _NONE for one in ("digest_algorithm", "signature_algorithm")
        ),
        value=info["signature"].native,
        unlike=_words_of(odd),
    )


def _absent(value: object) -> bool:
    return isinstance(value, core.Void)


def _words_of(odd: dict[str, bool]) -> tuple[str, ...]:
    return tuple(words for words, is_so in odd.items() if is_so)


def _check_der(data: bytes) -> None:
    """Malformed unless data is one element that ends where data does, and all inside ends where it should.

    asn1crypto reads on past what does not fit, and takes lengths that only BER allows.
    """
    regions, count = [(0, len(data))], 0
    while regions:
        at, end = regions.pop()
        while at < end:
            inside, after = _element(data, at, end)
            count += 1
            if count > _ELEMENTS:
                raise Malformed(f"DER of more than {_ELEMENTS} elements")
            if at == 0 and after != len(data):
                raise Malformed(f"{len(data) - after} bytes behind the CMS message")
            if data[at] & _CONSTRUCTED:
                regions.append((inside, after))
            at = after


def _element(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Where the content of the element begins and ends."""
    short = 0x80
    if at + 2 > end or data[at] & _LONG_TAG == _LONG_TAG:
        raise Malformed("a CMS message that is broken DER")
    size, inside = data[at + 1], at + 2
    if size >= short:
        inside += size - short
        size = int.from_bytes(data[at + 2 : inside]) if size - short in {1, 2} else 0
        if size < short or data[at + 2] == 0:
            raise Malformed("a CMS message that is broken DER")
    if inside + size > end:
        raise Malformed("a CMS message that is cut short")
    return inside, inside + size


def _key_identifier(tbs: asn1.TbsCertificate) -> bytes:
    if _absent(tbs["extensions"]):
        return b""
    found = (one for one in tbs["extensions"] if one["extn_id"].dotted == _KEY_IDENTIFIER)
    return next((bytes(one["extn_value"].parsed.native) for one in found), b"")


def _text(name: asn1.Name) -> str:
    """The name as openssl prints it, in the order of its bytes."""
    pairs = (pair for rdn in name.chosen for pair in rdn)
    return ", ".join(f"{_SHORT.get(pair['type'].native, pair['type'].native)}={_value(pair)}" for pair in pairs)


def _value(pair: asn1.NameTypeAndValue) -> str:
    try:
        return str(pair["value"].native)
    except _UNREADABLE:
        # Kernels compare the bytes and never read them.
        return _hex(pair["value"].contents or b"")


def _hex(value: bytes) -> str:
    """As modinfo prints sig_key."""
    return value[:_SHOWN_BYTES].hex(":").upper() + ("…" if len(value) > _SHOWN_BYTES else "")
