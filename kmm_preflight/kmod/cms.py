"""The CMS message of an appended signature, as kernels parse it (crypto/asymmetric_keys/pkcs7_parser.c)."""

from __future__ import annotations

from dataclasses import dataclass

from asn1crypto import cms, core
from asn1crypto import x509 as asn1

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.certificate import hex_of, text_of
from kmm_preflight.kmod.der import UNREADABLE, absent, check_der

# DER writes absent parameters as no bytes, or as NULL.
_NO_PARAMETERS = (b"", b"\x05\x00")
EMBEDDED, ATTRIBUTES, CONTENT = "the content embedded", "signed attributes", "content of type"
VERSION, SIGNER_VERSION, TWO_VERSIONS = (
    "CMS of version",
    "a signer of version",
    "CMS of another version than its signer",
)


@dataclass(frozen=True)
class SignerIdentifier:
    """The signer that a signature names: by issuer and serial number, or by key identifier."""

    issuer: bytes | None
    """Bytes of the issuer's name in the message, or None with a key identifier."""
    serial: bytes | None
    """Bytes of the serial number in the message, or None with a key identifier."""
    ski: bytes | None
    """The subject key identifier, or None with issuer and serial number."""
    words: str
    """The signer for a sentence."""


@dataclass(frozen=True)
class SignerInfo:
    """The part of a CMS message that belongs to one signer."""

    signer: SignerIdentifier
    """The signer's name."""
    hash_oid: str
    """The hash algorithm, as dotted numbers."""
    algorithm: str
    """The signature algorithm, as dotted numbers."""
    parameters: bool
    """True if an algorithm has parameters."""
    value: bytes
    """The signature itself."""
    oddities: tuple[str, ...]
    """Parts that sign-file does not write, as words for a sentence."""


@dataclass(frozen=True)
class CmsMessage:
    """A CMS message with signatures."""

    signers: tuple[SignerInfo, ...]
    """The signatures."""
    certificates: tuple[bytes, ...]
    """Certificates inside the message, in DER."""
    oddities: tuple[str, ...]
    """Parts that sign-file does not write, as words for a sentence."""


def by_issuer(issuer: asn1.Name, serial: core.Integer) -> SignerIdentifier:
    """Return the signer with this issuer and serial number in its certificate."""
    words = f"{text_of(issuer)}, serial {hex_of(serial.contents)}"
    return SignerIdentifier(issuer.chosen.contents, serial.contents, None, words)


def by_key_identifier(ski: bytes | None) -> SignerIdentifier:
    """Return the signer with this key identifier, or with no key identifier if ski is None."""
    return SignerIdentifier(None, None, ski, f"key identifier {hex_of(ski)}" if ski else "no key identifier")


def read_message(der: bytes) -> CmsMessage:
    """Parse a CMS message. Raise Malformed if kernels cannot parse it."""
    check_der(der)
    try:
        content = cms.ContentInfo.load(der, strict=True)
        if content["content_type"].native != "signed_data":
            raise Malformed(f"a CMS message of type {content['content_type'].native}")
        return _message(content["content"])
    except UNREADABLE as exc:
        raise Malformed(f"{len(der)} bytes of DER that are not a CMS message") from exc


def _message(signed: cms.SignedData) -> CmsMessage:
    inner, version = signed["encap_content_info"], signed["version"].native
    signers = tuple(_signer_info(info) for info in signed["signer_infos"])
    announced = {algorithm["algorithm"].dotted for algorithm in signed["digest_algorithms"]}
    inside = signed["certificates"]
    certificates = () if absent(inside) else tuple(choice.chosen.dump() for choice in inside)
    odd = {
        f"{VERSION} {version}": version not in {"v1", "v3"},
        TWO_VERSIONS: any(info["version"].native != version for info in signed["signer_infos"]),
        f"{CONTENT} {inner['content_type'].native}": inner["content_type"].native != "data",
        EMBEDDED: not absent(inner["content"]),
        "a revocation list inside": not absent(signed["crls"]),
        "a hash that is not announced": any(signer.hash_oid not in announced for signer in signers),
    }
    return CmsMessage(signers, certificates, _true_keys(odd))


def _signer_info(info: cms.SignerInfo) -> SignerInfo:
    sid = info["sid"]
    by_ski = sid.name == "subject_key_identifier"
    version = info["version"].native
    odd = {
        f"{SIGNER_VERSION} {version}": version != ("v3" if by_ski else "v1"),
        ATTRIBUTES: not absent(info["signed_attrs"]),
        "unsigned attributes": not absent(info["unsigned_attrs"]),
    }
    name = sid.chosen
    algorithms = (info["digest_algorithm"], info["signature_algorithm"])
    return SignerInfo(
        signer=by_key_identifier(name.native) if by_ski else by_issuer(name["issuer"], name["serial_number"]),
        hash_oid=info["digest_algorithm"]["algorithm"].dotted,
        algorithm=info["signature_algorithm"]["algorithm"].dotted,
        parameters=any(algorithm["parameters"].dump() not in _NO_PARAMETERS for algorithm in algorithms),
        value=info["signature"].native,
        oddities=_true_keys(odd),
    )


def _true_keys(odd: dict[str, bool]) -> tuple[str, ...]:
    return tuple(words for words, is_odd in odd.items() if is_odd)
