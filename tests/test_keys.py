"""Keys and certificates of Secrets: the check agrees with the kernel's sign-file."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from kmm_preflight.build.keys import KEY_BYTES, KeyNames, check_keys, pem_label
from kmm_preflight.kmod.signature import judge_signature
from kmm_preflight.kmod.signature_rules import SignatureRules
from kmm_preflight.model import Finding, Severity

from .real.kmod import headers
from .signing_desk import make_pair

NAMES = KeyNames("kmm-ci/signing-key", "kmm-ci/signing-cert")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 12, 31, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
PEM, DER = Encoding.PEM, Encoding.DER
PKCS8, TRADITIONAL = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Secrets = Callable[[], tuple[bytes, bytes]]
RSA, OTHER, EC, ED, LARGE = "rsa", "other rsa", "ec", "ed25519", "large rsa"
BITS = {RSA: 2048, OTHER: 2048, LARGE: 4160}


@cache
def key_of(name: str) -> Key:
    """Return the key of that name. Generate it at the first call."""
    if name in BITS:
        return rsa.generate_private_key(65537, BITS[name])
    return ec.generate_private_key(ec.SECP256R1()) if name == EC else ed25519.Ed25519PrivateKey.generate()


def key_bytes(name: str, encoding: Encoding = PEM, form: PrivateFormat = PKCS8, passphrase: bytes = b"") -> bytes:
    hidden: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key_of(name).private_bytes(encoding, form, hidden)


def cert_bytes(name: str, encoding: Encoding = PEM) -> bytes:
    key = key_of(name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signing key")])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 77, BEGIN, END)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()).public_bytes(
        encoding
    )


def damaged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + b"\0\1\2\3" + data[middle + 4 :]


@dataclass(frozen=True)
class SignFile:
    """Kernel's sign-file, with a kmod to sign."""

    program: Path
    kmod: bytes
    folder: Path

    def __call__(self, key: bytes, cert: bytes) -> bytes | None:
        """Return the signed kmod, or None if sign-file refuses."""
        for name, data in (("key", key), ("cert", cert), ("kmod", self.kmod)):
            (self.folder / name).write_bytes(data)
        command: list[str | Path] = [self.program, "sha256", "key", "cert", "kmod"]
        ended = subprocess.run(command, cwd=self.folder, capture_output=True, stdin=subprocess.DEVNULL)
        return (self.folder / "kmod").read_bytes() if ended.returncode == 0 else None


@pytest.fixture
def sign_file(tmp_path: Path, kernels: tuple[str, str], kmods: Mapping[str, bytes]) -> SignFile:
    return SignFile(headers(kernels[1]) / "scripts/sign-file", kmods[kernels[1]], tmp_path)


# The bytes of key and certificate, and whether sign-file takes the key as it is.
GOOD: dict[str, tuple[Secrets, bool]] = {
    "pem": (lambda: (key_bytes(RSA), cert_bytes(RSA)), True),
    "traditional": (lambda: (key_bytes(RSA, form=TRADITIONAL), cert_bytes(RSA)), True),
    "der": (lambda: (key_bytes(RSA, DER), cert_bytes(RSA, DER)), False),
    "traditional-der": (lambda: (key_bytes(RSA, DER, TRADITIONAL), cert_bytes(RSA, DER)), False),
    "ec": (lambda: (key_bytes(EC), cert_bytes(EC, DER)), True),
    "ec-traditional": (lambda: (key_bytes(EC, form=TRADITIONAL), cert_bytes(EC)), True),
    "ec-der": (lambda: (key_bytes(EC, DER, TRADITIONAL), cert_bytes(EC)), False),
    "both-in-one": (lambda: (cert_bytes(RSA) + key_bytes(RSA), key_bytes(RSA) + cert_bytes(RSA)), True),
    "text-around": (lambda: (b"Bag Attributes\n" + key_bytes(RSA) + b"\n", b"subject=CN\n" + cert_bytes(RSA)), True),
    "carriage-returns": (
        lambda: (key_bytes(RSA).replace(b"\n", b"\r\n"), cert_bytes(RSA).replace(b"\n", b"\r\n")),
        True,
    ),
}


def as_signed_with(key: bytes) -> bytes:
    """Return the key as the Dockerfile of a signing passes it to sign-file."""
    label = (pem_label(key) or "").encode()
    begin, end = b"-----BEGIN %s-----\n" % label, b"-----END %s-----\n" % label
    return begin + base64.encodebytes(key) + end if label else key


@pytest.mark.parametrize("case", GOOD)
def test_good_keys_sign(case: str, sign_file: SignFile) -> None:
    secrets, taken = GOOD[case]
    key, cert = secrets()
    certificate, found = check_keys(key, cert, NAMES, NOW)
    assert found == ()
    assert certificate is not None
    assert (certificate.subject, certificate.serial) == ("CN=signing key", 77)
    assert (sign_file(key, cert) is not None) == taken, "whether sign-file reads this key by itself"
    signed = sign_file(as_signed_with(key), cert)
    assert signed is not None
    assert judge_signature("kmod", signed, certificate) is None


# The bytes of key and certificate, the findings with words of theirs, whether sign-file ends well all the same.
BAD: dict[str, tuple[Secrets, dict[str, str], bool]] = {
    "no-key": (lambda: (b"", cert_bytes(RSA)), {"sign-key-invalid": "got nothing,"}, False),
    "certificate-as-key": (
        lambda: (cert_bytes(RSA), cert_bytes(RSA)),
        {"sign-key-invalid": "got a certificate,"},
        False,
    ),
    "der-certificate-as-key": (
        lambda: (cert_bytes(RSA, DER), cert_bytes(RSA)),
        {"sign-key-invalid": "got a certificate,"},
        False,
    ),
    "public-key": (
        lambda: (key_of(RSA).public_key().public_bytes(PEM, PublicFormat.SubjectPublicKeyInfo), cert_bytes(RSA)),
        {"sign-key-invalid": "got a public key in PEM,"},
        False,
    ),
    "encrypted": (
        lambda: (key_bytes(RSA, passphrase=b"secret"), cert_bytes(RSA)),
        {"sign-key-invalid": "got an encrypted key"},
        False,
    ),
    "encrypted-der": (
        lambda: (key_bytes(RSA, DER, passphrase=b"secret"), cert_bytes(RSA)),
        {"sign-key-invalid": "got an encrypted key"},
        False,
    ),
    "encrypted-traditional": (
        lambda: (key_bytes(RSA, form=TRADITIONAL, passphrase=b"secret"), cert_bytes(RSA)),
        {"sign-key-invalid": "got an encrypted key"},
        False,
    ),
    "damaged-key": (
        lambda: (damaged(key_bytes(RSA)), cert_bytes(RSA)),
        {"sign-key-invalid": "got a damaged private key in PEM"},
        False,
    ),
    "cut-der-key": (
        lambda: (key_bytes(RSA, DER)[:-9], cert_bytes(RSA)),
        {"sign-key-invalid": "bytes of DER that cannot be read"},
        False,
    ),
    "indented-key": (
        lambda: (b"  " + key_bytes(RSA), cert_bytes(RSA)),
        {"sign-key-invalid": "got PEM with spaces before its -----BEGIN,"},
        False,
    ),
    "indented-certificate": (
        lambda: (key_bytes(RSA), b"  " + cert_bytes(RSA)),
        {"sign-cert-invalid": "got PEM with spaces before its -----BEGIN,"},
        False,
    ),
    "too-long": (
        lambda: (key_bytes(RSA) + b"#" * KEY_BYTES, cert_bytes(RSA)),
        {"sign-key-invalid": "bytes, expected"},
        True,
    ),
    "ed25519": (
        lambda: (key_bytes(ED), cert_bytes(ED)),
        {"sign-key-invalid": "a key of kind Ed25519", "sign-cert-invalid": "a key of kind Ed25519"},
        False,
    ),
    "too-large": (
        lambda: (key_bytes(LARGE), cert_bytes(LARGE)),
        {"sign-key-invalid": "an RSA key of 4160 bits", "sign-cert-invalid": "an RSA key of 4160 bits"},
        True,
    ),
    "no-certificate": (
        lambda: (key_bytes(RSA), b""),
        {"sign-cert-invalid": "Secret kmm-ci/signing-cert: got nothing"},
        False,
    ),
    "key-as-certificate": (
        lambda: (key_bytes(RSA), key_bytes(RSA)),
        {"sign-cert-invalid": "got a private key in PEM"},
        False,
    ),
    "cut-certificate": (
        lambda: (key_bytes(RSA), cert_bytes(RSA, DER)[:-1]),
        {"sign-cert-invalid": "bytes of DER that cannot be read"},
        False,
    ),
    "swapped": (
        lambda: (cert_bytes(RSA), key_bytes(RSA)),
        {"sign-key-invalid": "got a certificate", "sign-cert-invalid": "got a private key in PEM"},
        False,
    ),
    "other-key": (
        lambda: (key_bytes(OTHER), cert_bytes(RSA)),
        {"sign-key-mismatch": "which is for CN=signing key"},
        False,
    ),
    "other-kind": (
        lambda: (key_bytes(EC), cert_bytes(RSA)),
        {"sign-key-mismatch": "which is for CN=signing key"},
        False,
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_keys_and_certificates_are_refuted(case: str, sign_file: SignFile) -> None:
    secrets, expected, taken = BAD[case]
    key, cert = secrets()
    _, found = check_keys(key, cert, NAMES, NOW)
    assert [one.id for one in found] == list(expected)
    for one, words in zip(found, expected.values(), strict=True):
        assert words in one.sentence
        assert one.severity is Severity.REFUTES
    assert (sign_file(key, cert) is not None) == taken


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (BEGIN, ""),
        (END, ""),
        (BEGIN - timedelta(seconds=1), "is not valid on 2025-12-31: it begins on 2026-01-01"),
        (END + timedelta(days=1), "is not valid on 2027-01-01: it expired on 2026-12-31"),
    ],
)
def test_a_certificate_that_is_not_valid_now_is_a_warning(now: datetime, words: str) -> None:
    certificate, found = check_keys(key_bytes(RSA), cert_bytes(RSA), NAMES, now)
    assert certificate is not None
    assert [(one.id, one.severity) for one in found] == ([("sign-cert-expired", Severity.WARNING)] if words else [])
    assert all(words in one.sentence for one in found)


SPOILERS: dict[str, Callable[[bytes], bytes]] = {
    "damaged": damaged,
    "cut": lambda key: key[:-20],
    "whole": lambda key: key,
    "shifted": lambda key: b"x" + key,
}


def pieces(key: bytes) -> list[str]:
    """Return the parts of a key as text, repr and dump show them."""
    parts = [key[start : start + 12] for start in range(40, len(key) - 40, 12)]
    return [shown for part in parts for shown in (repr(part)[2:-1], part.hex(), part.decode("latin-1"))]


@pytest.mark.parametrize("spoil", SPOILERS)
@pytest.mark.parametrize("encoding", [PEM, DER])
def test_no_finding_shows_a_byte_of_a_key(spoil: str, encoding: Encoding) -> None:
    key = SPOILERS[spoil](key_bytes(OTHER, encoding))
    told = [repr(check_keys(key, cert_bytes(RSA), NAMES, NOW)), repr(check_keys(key, key, NAMES, NOW))]
    assert [piece for piece in pieces(key) for text in told if piece in text] == []


def test_a_certificate_of_an_unknown_version_is_refuted() -> None:
    version = bytes.fromhex("a003020102")
    certificate, found = check_keys(
        key_bytes(RSA), cert_bytes(RSA, DER).replace(version, version[:-1] + b"\x0a"), NAMES, NOW
    )
    assert (certificate, [one.id for one in found]) == (None, ["sign-cert-invalid"])


def test_findings_name_the_secrets() -> None:
    _, found = check_keys(key_bytes(EC), cert_bytes(RSA), NAMES, NOW)
    assert found == (
        Finding(
            "sign-key-mismatch",
            Severity.REFUTES,
            "the key in Secret kmm-ci/signing-key does not belong to the certificate in Secret kmm-ci/signing-cert, "
            "which is for CN=signing key",
            "Put a key and its own certificate into the two Secrets.",
        ),
    )


@pytest.mark.parametrize(("version", "signs"), [((6, 12), True), ((6, 10), False), ((5, 14), False), ((0, 0), False)])
def test_a_key_on_p521_signs_for_kernels_that_know_the_curve(
    version: tuple[int, int], signs: bool, tmp_path: Path
) -> None:
    pair = make_pair(tmp_path, "p521", ec.generate_private_key(ec.SECP521R1()))
    rules = SignatureRules(version)
    _, found = check_keys(pair.key.read_bytes(), pair.cert.read_bytes(), NAMES, datetime.now(UTC), rules)
    assert {finding.id for finding in found} == (set() if signs else {"sign-key-invalid", "sign-cert-invalid"})
