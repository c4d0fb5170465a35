"""The CMS message of an appended signature, as far as kernels look at it (crypto/asymmetric_keys/pkcs7_parser.c)."""

from __future__ import annotations

from dataclasses import dataclass

from asn1crypto import cms, core
from asn1crypto import x509 as asn1

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.certificate import hex_of, text_of
from kmm_preflight.kmod.der import UNREADABLE, absent, check_der

# No parameters are written as nothing or as NULL.
_NONE = (b"", b"\x05\x00")
EMBEDDED, ATTRIBUTES, CONTENT = "the content embedded", "signed attributes", "content of type"
VERSION, SIGNER_VERSION, TWO_VERSIONS = (
    "CMS of version",
    "a signer of version",
    "CMS of another version than its signer",
)


@dataclass(frozen=True)
class SignerIdentifier:
    """Whom a signature names: by issuer and serial number as they stand in its bytes, or by key identifier."""

    issuer: bytes
    serial: bytes
    ski: bytes
    words: str


@dataclass(frozen=True)
class Signature:
    """One signer's part of a CMS message. unlike tells what sign-file would not have written."""

    signer: SignerIdentifier
    hash_oid: str
    algorithm: str
    parameters: bool
    value: bytes
    unlike: tuple[str, ...]


@dataclass(frozen=True)
class Message:
    """What a CMS message holds, as far as kernels look at it."""

    signatures: tuple[Signature, ...]
    certificates: tuple[bytes, ...]
    unlike: tuple[str, ...]


def by_issuer(issuer: asn1.Name, serial: core.Integer) -> SignerIdentifier:
    """The signer that is named by a certificate's issuer and serial number."""
    words = f"{text_of(issuer)}, serial {hex_of(serial.contents)}"
    return SignerIdentifier(issuer.chosen.contents, serial.contents, b"", words)


def by_key_identifier(ski: bytes) -> SignerIdentifier:
    """The signer that is named by a key identifier."""
    return SignerIdentifier(b"", b"", ski, f"key identifier {hex_of(ski)}" if ski else "no key identifier")


def read_message(der: bytes) -> Message:
    """The CMS message; Malformed when it is none that kernels can parse."""
    check_der(der)
    try:
        content = cms.ContentInfo.load(der, strict=True)
        if content["content_type"].native != "signed_data":
            raise Malformed(f"a CMS message of type {content['content_type'].native}")
        return _message(content["content"])
    except UNREADABLE as exc:
        raise Malformed(f"{len(der)} bytes of DER that are no CMS message") from exc


def _message(signed: cms.SignedData) -> Message:
    inner, version = signed["encap_content_info"], signed["version"].native
    signatures = tuple(_signature(info) for info in signed["signer_infos"])
    announced = {algorithm["algorithm"].dotted for algorithm in signed["digest_algorithms"]}
    certificates = () if absent(signed["certificates"]) else tuple(one.chosen.dump() for one in signed["certificates"])
    odd = {
        f"{VERSION} {version}": version not in {"v1", "v3"},
        TWO_VERSIONS: any(info["version"].native != version for info in signed["signer_infos"]),
        f"{CONTENT} {inner['content_type'].native}": inner["content_type"].native != "data",
        EMBEDDED: not absent(inner["content"]),
        "a revocation list inside": not absent(signed["crls"]),
        "a hash that is not announced": any(one.hash_oid not in announced for one in signatures),
    }
    return Message(signatures, certificates, _words_of(odd))


def _signature(info: cms.SignerInfo) -> Signature:
    sid = info["sid"]
    by_ski = sid.name == "subject_key_identifier"
    version = info["version"].native
    odd = {
        f"{SIGNER_VERSION} {version}": version != ("v3" if by_ski else "v1"),
        ATTRIBUTES: not absent(info["signed_attrs"]),
        "unsigned attributes": not absent(info["unsigned_attrs"]),
    }
    named = sid.chosen
    return Signature(
        signer=by_key_identifier(named.native) if by_ski else by_issuer(named["issuer"], named["serial_number"]),
        hash_oid=info["digest_algorithm"]["algorithm"].dotted,
        algorithm=info["signature_algorithm"]["algorithm"].dotted,
        parameters=any(
            info[one]["parameters"].dump() not in _NONE for one in ("digest_algorithm", "signature_algorithm")
        ),
        value=info["signature"].native,
        unlike=_words_of(odd),
    )


def _words_of(odd: dict[str, bool]) -> tuple[str, ...]:
    return tuple(words for words, is_so in odd.items() if is_so)
