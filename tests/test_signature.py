"""Appended signatures: made by the kernel's sign-file and by openssl, judged beside `openssl cms -verify`."""

from __future__ import annotations

import gzip
import lzma
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.certificate import Certificate, parse_certificate
from kmm_preflight.kmod.signature import judge_signature, judge_unenforced_signature
from kmm_preflight.kmod.signed_file import MAGIC, signer_of
from kmm_preflight.model import Severity

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from .real.kmod import headers
from .real.requirement import need_tool

PATH = "opt/lib/modules/KERNEL/probe.ko"
HASHES = ("sha1", "sha224", "sha256", "sha384", "sha512")
SERIAL, OTHER_SERIAL = 0x00B1_15FD_DED0, 0x5D0A
WORDS = "O=Preflight tests, CN=signing key, serial 00:B1:15:FD:DE:D0"
HEADER = struct.Struct(">8BI")
MUTATIONS, SAMPLE = 5000, 60
RSA_NULL = bytes.fromhex("06092a864886f70d0101010500")
# 1.2.840.113549.1.7.1, and how the modulus of an RSA key of 2048 bits begins.
DATA, MODULUS = bytes.fromhex("06092a864886f70d010701"), bytes.fromhex("0282010100")
SHA256 = bytes.fromhex("0609608648016503040201")
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Pair:
    """A key and its certificate, as files."""

    key: Path
    cert: Path

    @property
    def certificate(self) -> Certificate:
        return parse_certificate(self.cert.read_bytes(), "certificate")


@dataclass(frozen=True)
class Desk:
    """Where kmods are signed: by sign-file, or by openssl in forms that sign-file does not write."""

    folder: Path
    sign_file: Path
    kmod: bytes
    rsa: Pair
    ec: Pair
    namesake: Pair
    stranger: Pair
    large: Pair
    p521: Pair

    def sign(self, *options: str, pair: Pair | None = None, data: bytes | None = None) -> bytes:
        """What sign-file leaves of the kmod."""
        file = self.folder / "signed.ko"
        file.write_bytes(self.kmod if data is None else data)
        pair = pair or self.rsa
        subprocess.run([self.sign_file, *(options or ("sha256",)), pair.key, pair.cert, file], check=True)
        return file.read_bytes()

    def by_openssl(self, *options: str, body: bytes = b"") -> bytes:
        """The kmod with a signature that openssl cms made."""
        pair, body = self.rsa, body or self.kmod
        (self.folder / "body").write_bytes(body)
        command = ["openssl", "cms", "-sign", "-binary", "-outform", "DER", "-in", "body", "-out", "message"]
        subprocess.run([*command, "-signer", pair.cert, "-inkey", pair.key, *options], cwd=self.folder, check=True)
        return append(body, (self.folder / "message").read_bytes())

    def openssl_takes(self, data: bytes, pair: Pair) -> bool:
        """The oracle: whether the last signature of data verifies for openssl."""
        at = len(data) - len(MAGIC) - HEADER.size
        if at < 0 or not data.endswith(MAGIC):
            return False
        size = HEADER.unpack_from(data, at)[-1]
        if size > at:
            return False
        (self.folder / "sig").write_bytes(data[at - size : at])
        (self.folder / "content").write_bytes(data[: at - size])
        command = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "sig", "-content", "content"]
        more = ["-certfile", str(pair.cert), "-noverify", "-nointern", "-out", "verified"]
        return subprocess.run([*command, *more], cwd=self.folder, capture_output=True).returncode == 0


def append(body: bytes, message: bytes, *, kind: int = 2, algo: int = 0, size: int | None = None) -> bytes:
    """Body, message, header and magic, as sign-file puts them."""
    header = HEADER.pack(algo, 0, kind, 0, 0, 0, 0, 0, len(message) if size is None else size)
    return body + message + header + MAGIC


def parts(signed: bytes) -> tuple[bytes, bytes]:
    """Body and message."""
    at = len(signed) - len(MAGIC) - HEADER.size
    size = HEADER.unpack_from(signed, at)[-1]
    return signed[: at - size], signed[at - size : at]


def make_pair(folder: Path, name: str, key: Key, serial: int = SERIAL, common_name: str = "signing key") -> Pair:
    """A self-signed certificate, in PEM like its key."""
    attributes = ((NameOID.ORGANIZATION_NAME, "Preflight tests"), (NameOID.COMMON_NAME, common_name))
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), serial, now, now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    pair = Pair(folder / f"{name}.key", folder / f"{name}.crt")
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pair.cert.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return pair


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, kernels: tuple[str, str], kmods: Mapping[str, bytes]) -> Desk:
    need_tool("openssl", "apt-get install openssl")
    folder, kernel = tmp_path_factory.mktemp("desk"), kernels[1]
    return Desk(
        folder,
        headers(kernel) / "scripts/sign-file",
        kmods[kernel],
        rsa=make_pair(folder, "rsa", rsa.generate_private_key(65537, 2048)),
        ec=make_pair(folder, "ec", ec.generate_private_key(ec.SECP384R1())),
        namesake=make_pair(folder, "namesake", rsa.generate_private_key(65537, 2048)),
        stranger=make_pair(folder, "stranger", rsa.generate_private_key(65537, 2048), OTHER_SERIAL, "stranger"),
        large=make_pair(folder, "large", rsa.generate_private_key(65537, 4160)),
        p521=make_pair(folder, "p521", ec.generate_private_key(ec.SECP521R1())),
    )


def judged(data: bytes, pair: Pair) -> str:
    """The finding's id and what it says was got, "" for none."""
    found = judge_signature(PATH, data, pair.certificate)
    return f"{found.id}: {found.sentence}" if found else ""


@pytest.mark.parametrize("algorithm", HASHES)
def test_what_sign_file_writes_is_good(desk: Desk, algorithm: str) -> None:
    for pair in (desk.rsa, desk.ec):
        for options in ((algorithm,), ("-k", algorithm)):
            signed = desk.sign(*options, pair=pair)
            assert judged(signed, pair) == ""
            assert desk.openssl_takes(signed, pair)


def test_the_certificate_may_be_der(desk: Desk) -> None:
    der = Pair(desk.rsa.key, desk.folder / "rsa.der")
    der.cert.write_bytes(desk.rsa.certificate.der)
    assert judged(desk.sign(pair=der), der) == ""
    der.cert.write_bytes(desk.rsa.certificate.der + b"\n")
    assert judged(desk.sign(pair=der), der) == "", "sign-file takes it too"


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def numbered(signed: bytes, message: int, signer: int) -> bytes:
    """With other versions of the message and of its one signer: INTEGERs of one byte."""
    body, der = parts(signed)
    first = der.index(b"\x02\x01") + 2
    named = re.search(rb"\x02\x01[\x01\x03](?=[\x30\x80])", der)
    assert named, "by issuer and serial number, or by key identifier"
    second = named.end() - 1
    return append(body, der[:first] + bytes([message]) + der[first + 1 : second] + bytes([signer]) + der[second + 1 :])


# What is done to a kmod; the finding, with words of it; whether openssl takes what stands at the end all the same.
CASES: dict[str, tuple[Callable[[Desk], bytes], str, str, bool]] = {
    "none": (lambda d: d.kmod, "signature-missing", "got no signature at its end", False),
    "empty": (lambda d: b"", "signature-missing", "got no signature", False),
    "newline-behind": (lambda d: d.sign() + b"\n", "signature-missing", "a signature with 1 bytes behind it", False),
    "cut-in-magic": (lambda d: d.sign()[:-1], "signature-missing", "got no signature", False),
    "magic-alone": (lambda d: MAGIC, "signature-broken", "no header", False),
    "magic-behind-kmod": (lambda d: d.kmod + MAGIC, "signature-broken", "a signature of type", False),
    "type-x509": (lambda d: append(*parts(d.sign()), kind=1), "signature-broken", "of type 1 instead of 2", True),
    "algo-set": (lambda d: append(*parts(d.sign()), algo=1), "signature-broken", "must be zero", True),
    "too-long": (lambda d: append(*parts(d.sign()), size=1 << 31), "signature-broken", "bytes before it", False),
    "of-nothing": (lambda d: append(*parts(d.sign()), size=0), "signature-broken", "a signature of 0 bytes", False),
    "too-short": (lambda d: append(*parts(d.sign()), size=99), "signature-broken", "got ", False),
    "cut-in-front": (lambda d: d.sign()[-300:], "signature-broken", "bytes before it", False),
    "cut-in-message": (lambda d: append(d.kmod, parts(d.sign())[1][:-9]), "signature-broken", "cut short", False),
    "parameters": (
        lambda d: append(d.kmod, parts(d.sign())[1].replace(RSA_NULL, RSA_NULL[:-2] + b"\x00\x00")),
        "signature-broken", "that are not a CMS message", False,
    ),
    "hash-not-announced": (
        lambda d: append(d.kmod, parts(d.sign())[1].replace(SHA256, SHA256[:-1] + b"\x02", 1)),
        "signature-form", "a hash that is not announced", False,
    ),
    "behind-message": (lambda d: append(d.kmod, parts(d.sign())[1] + b"\0\0"), "signature-broken", "2 bytes", True),
    "two-versions": (lambda d: numbered(d.sign(), 3, 1), "signature-form", "of another version than its signer", True),
    "other-message": (lambda d: append(d.kmod, b"\x30\x03\x02\x01\x05"), "signature-broken", "not a CMS", False),
    "body-changed": (lambda d: flip(d.sign(), 5000), "signature-wrong", f"sha256 of these bytes signed by {WORDS}",
                     False),
    "body-shorter": (lambda d: d.sign()[1:], "signature-wrong", "", False),
    "value-changed": (lambda d: flip(d.sign(), -60), "signature-wrong", "", False),
    "namesake": (lambda d: d.sign(pair=d.namesake), "signature-wrong", "", False),
    "stranger": (lambda d: d.sign(pair=d.stranger), "signature-foreign", f"serial 5D:0A, expected {WORDS}", False),
    "stranger-by-key-identifier": (
        lambda d: d.sign("-k", "sha256", pair=d.stranger), "signature-foreign", "expected key identifier", False,
    ),
    "stranger-above": (lambda d: d.sign(data=d.sign(), pair=d.stranger), "signature-foreign", "5D:0A", False),
    "twice": (lambda d: d.sign(data=d.sign()), "signature-twice", f"one by {WORDS}, expected none", True),
    "stranger-below": (lambda d: d.sign(data=d.sign(pair=d.stranger)), "signature-twice", "CN=stranger", True),
    "broken-below": (lambda d: d.sign(data=d.kmod + MAGIC), "signature-twice", "an unreadable signer", True),
    "attributes": (lambda d: d.by_openssl("-nocerts"), "signature-form", "got signed attributes", True),
    "embedded": (
        lambda d: d.by_openssl("-nocerts", "-noattr", "-nodetach"), "signature-broken", "expected 1 to 65535", True,
    ),
    "embedded-small": (
        lambda d: d.by_openssl("-nocerts", "-noattr", "-nodetach", body=d.kmod[:4096]),
        "signature-form", "the content embedded", True,
    ),
    "pss": (
        lambda d: d.by_openssl("-nocerts", "-noattr", "-keyopt", "rsa_padding_mode:pss"),
        "signature-form", "the signature algorithm rsassa_pss", True,
    ),
    "other-certificate-inside": (
        lambda d: d.by_openssl("-noattr", "-certfile", str(d.stranger.cert)),
        "signature-form", "other certificates inside", True,
    ),
    "two-signers": (
        lambda d: d.by_openssl("-noattr", "-signer", str(d.stranger.cert), "-inkey", str(d.stranger.key)),
        "signature-form", "got 2 signers", False,
    ),
    "md5": (lambda d: d.sign("md5"), "signature-form", "the hash md5", True),
    "sha3": (lambda d: d.sign("sha3-256"), "signature-form", "the hash sha3_256", True),
    "gzip-then-signed": (lambda d: d.sign(data=gzip.compress(d.kmod)), "signature-compressed", "gzip data", True),
    "xz-then-signed": (lambda d: d.sign(data=lzma.compress(d.kmod)), "signature-compressed", "behind xz data", True),
    "unsigned-in-xz": (lambda d: lzma.compress(d.kmod), "signature-missing", "got no signature", False),
    "cut-xz": (lambda d: lzma.compress(d.sign())[:-50], "signature-broken", "damaged xz data", False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_good(desk: Desk, case: str) -> None:
    make, finding, words, openssl = CASES[case]
    data = make(desk)
    said = judged(data, desk.rsa)
    assert (said.partition(":")[0], words in said) == (finding, True), said
    assert desk.openssl_takes(data, desk.rsa) == openssl


def test_only_a_second_signature_below_a_good_one_is_a_warning(desk: Desk) -> None:
    twice = judge_signature(PATH, desk.sign(data=desk.sign()), desk.rsa.certificate)
    assert twice is not None
    assert twice.severity is Severity.WARNING


def test_keys_that_kernels_do_not_verify_with(desk: Desk) -> None:
    for pair, words in ((desk.large, "an RSA key of 4160 bits"), (desk.p521, "an EC key on secp521r1")):
        signed = desk.sign(pair=pair)
        assert desk.openssl_takes(signed, pair)
        said = judged(signed, pair)
        assert said.startswith("signature-form: ")
        assert f"a certificate for {words}" in said


def test_signed_and_then_compressed_is_good(desk: Desk) -> None:
    signed = desk.sign()
    for packed in (gzip.compress(signed), lzma.compress(signed), zstd.compress(signed)):
        assert judged(packed, desk.rsa) == ""
        assert signer_of(packed) == WORDS


def test_openssl_may_sign_like_sign_file(desk: Desk) -> None:
    assert judged(desk.by_openssl("-noattr", "-nocerts"), desk.rsa) == ""
    assert judged(desk.by_openssl("-noattr"), desk.rsa) == "", "with the certificate itself inside"
    assert judged(desk.by_openssl("-noattr", "-nocerts", "-keyid"), desk.rsa) == ""


def test_whose_signature_it_is(desk: Desk) -> None:
    assert signer_of(desk.sign()) == WORDS
    ski = desk.rsa.certificate.ski
    assert ski is not None
    assert signer_of(desk.sign("-k", "sha256")) == f"key identifier {ski.hex(':').upper()}"
    assert [signer_of(data) for data in (b"", desk.kmod, desk.sign() + b"\n", b"\x1f\x8bx", MAGIC)] == [None] * 5


def test_a_certificate_is_read(desk: Desk) -> None:
    read = desk.rsa.certificate
    assert (read.subject, read.issuer) == ("O=Preflight tests, CN=signing key",) * 2
    assert (read.serial, len(read.ski or b"")) == (SERIAL, 20)
    assert timedelta(days=1) == read.not_after - read.not_before
    assert read.not_after.tzinfo is UTC


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"", "nothing"),
        (b" \n", "nothing"),
        (b"\x30\x82\x03\x00abc", "7 bytes of DER that cannot be read"),
        (b"\x30\x03\x02\x01\x05", "5 bytes of DER that cannot be read"),
        (b"hello", "5 other bytes"),
        (b"-----BEGIN CERTIFICATE-----\nabcd\n-----END CERTIFICATE-----\n", "a damaged certificate in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "a private key in PEM"),
        (b"-----BEGIN PUBLIC KEY-----\nabcd\n", "a public key in PEM"),
        (b"\x30" * 65537, "65537 bytes"),
    ],
)
def test_no_certificate(data: bytes, got: str) -> None:
    with pytest.raises(Malformed, match=rf"^certificate of ns/a: got {got}, expected ") as caught:
        parse_certificate(data, "certificate of ns/a")
    assert "c2VjcmV0" not in str(caught.value)


# What is refused although nobody asks for a signature, each time as QEMU's kernels do.
UNASKED: dict[str, tuple[Callable[[Desk], bytes], str]] = {
    "none": (lambda d: d.kmod, ""),
    "stranger": (lambda d: d.sign(pair=d.stranger), ""),
    "body-changed": (lambda d: flip(d.sign(), 5000), ""),
    "value-changed": (lambda d: flip(d.sign(), -60), ""),
    "md5": (lambda d: d.sign("md5"), ""),
    "attributes": (lambda d: d.by_openssl("-nocerts"), "signed attributes"),
    "other-content": (lambda d: d.sign().replace(DATA, DATA[:-1] + b"\x07"), "content of type"),
    "version-2": (lambda d: numbered(d.sign(), 2, 2), "CMS of version v2"),
    "signer-of-version-0": (lambda d: numbered(d.sign(), 1, 0), "a signer of version v0"),
    "two-versions": (lambda d: numbered(d.sign(), 3, 1), "of another version than its signer"),
    "two-versions-by-key-identifier": (lambda d: numbered(d.sign("-k", "sha256"), 1, 3), "of another version"),
    "behind-message": (lambda d: append(d.kmod, parts(d.sign())[1] + b"\0\0"), ""),
    "certificate-inside": (lambda d: d.by_openssl("-noattr"), ""),
    "certificate-inside-and-body-changed": (lambda d: flip(d.by_openssl("-noattr"), 5000), "does not prove it"),
    "certificate-of-another-key-inside": (
        lambda d: (whole := d.by_openssl("-noattr"), flip(whole, whole.index(MODULUS) + 50))[1], "does not prove it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNASKED)
def test_what_a_kernel_refuses_unasked(case: str, desk: Desk) -> None:
    make, got = UNASKED[case]
    found = judge_unenforced_signature(PATH, make(desk))
    assert (found.id, got in found.sentence) == ("signature-form", True) if found else not got


def test_mutations_never_pass_what_openssl_refuses(desk: Desk) -> None:
    """And raise nothing: most change the message and what is behind it, where all the parsing is."""
    chance = random.Random(20260101)
    good = {pair: desk.sign(*options, pair=pair, data=desk.kmod[:4096])
            for pair, options in ((desk.rsa, ("sha256",)), (desk.ec, ("-k", "sha384")))}  # fmt: skip
    certificates = {pair: pair.certificate for pair in good}
    passed = looked = 0
    for number in range(MUTATIONS):
        pair = chance.choice(list(good))
        data = mutated(good[pair], chance)
        found = judge_signature(PATH, data, certificates[pair])
        signer_of(data)
        if found is None:
            passed += 1
            assert data == good[pair] or desk.openssl_takes(data, pair), number
        elif found.id == "signature-wrong" and looked < SAMPLE:
            looked += 1
            assert not desk.openssl_takes(data, pair), number
    assert looked == SAMPLE
    assert passed < MUTATIONS / 20


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to three changes, nearly all in the last bytes."""
    new = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        first = max(0, len(new) - 520) if chance.random() < 0.95 else 0
        at = chance.randrange(first, len(new))
        match chance.randrange(5):
            case 0:
                new[at] ^= 1 << chance.randrange(8)
            case 1:
                new[at] = chance.choice((0, 0x30, 0x7F, 0x80, 0x82, 0xA0, 0xFF))
            case 2:
                del new[at : at + chance.randint(1, 9)]
            case 3:
                new[at:at] = chance.randbytes(chance.randint(1, 9))
            case _:
                end = at + chance.randint(1, 40)
                new[at:end] = new[at:end][::-1]
    return bytes(new)
