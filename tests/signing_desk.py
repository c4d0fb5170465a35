"""Signed kmods: by the kernel's sign-file, and by openssl in forms that sign-file does not write."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from kmm_preflight.kmod.certificate import Certificate, parse_certificate
from kmm_preflight.kmod.signed_file import MAGIC

from .real.kmod import headers
from .real.requirement import need_tool

PATH = "opt/lib/modules/KERNEL/probe.ko"
HASHES = ("sha1", "sha224", "sha256", "sha384", "sha512")
SERIAL, OTHER_SERIAL = 0x00B1_15FD_DED0, 0x5D0A
WORDS = "O=Preflight tests, CN=signing key, serial 00:B1:15:FD:DE:D0"
HEADER = struct.Struct(">8BI")
RSA_NULL = bytes.fromhex("06092a864886f70d0101010500")
# The type 1.2.840.113549.1.7.1, and the start of the modulus of an RSA key of 2048 bits.
DATA, MODULUS = bytes.fromhex("06092a864886f70d010701"), bytes.fromhex("0282010100")
SHA256 = bytes.fromhex("0609608648016503040201")
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Pair:
    """A key and its certificate."""

    key: Path
    """File with the key in PEM."""
    cert: Path
    """File with the certificate in PEM or DER."""

    @property
    def certificate(self) -> Certificate:
        """The certificate as the suite reads it."""
        return parse_certificate(self.cert.read_bytes(), "certificate")


@dataclass(frozen=True)
class Desk:
    """The tools and keys that sign kmods."""

    folder: Path
    """Folder for files of the tools."""
    sign_file: Path
    """The kernel's sign-file."""
    kmod: bytes
    """A kmod without a signature."""
    rsa: Pair
    """An RSA key."""
    ec: Pair
    """An EC key with the same name and serial number."""
    namesake: Pair
    """Another RSA key with the same name and serial number."""
    stranger: Pair
    """An RSA key with another name and serial number."""
    ec_stranger: Pair
    """An EC key with another name and serial number."""
    large: Pair
    """An RSA key that is too large for kernels."""
    p521: Pair
    """A key on a curve that most kernels do not know."""

    def sign(self, *options: str, pair: Pair | None = None, data: bytes | None = None) -> bytes:
        """Return the kmod, or other data, signed by sign-file."""
        file = self.folder / "signed.ko"
        file.write_bytes(self.kmod if data is None else data)
        pair = pair or self.rsa
        subprocess.run([self.sign_file, *(options or ("sha256",)), pair.key, pair.cert, file], check=True)
        return file.read_bytes()

    def by_openssl(self, *options: str, body: bytes | None = None, pair: Pair | None = None) -> bytes:
        """Return the kmod, or another body, with a signature by openssl cms."""
        pair, body = pair or self.rsa, body or self.kmod
        (self.folder / "body").write_bytes(body)
        command = ["openssl", "cms", "-sign", "-binary", "-outform", "DER", "-in", "body", "-out", "message"]
        subprocess.run([*command, "-signer", pair.cert, "-inkey", pair.key, *options], cwd=self.folder, check=True)
        return append(body, (self.folder / "message").read_bytes())

    def openssl_accepts(self, data: bytes, pair: Pair) -> bool:
        """True if openssl verifies the last signature of the data."""
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
    """Return body, message, header and magic, in the order of sign-file."""
    header = HEADER.pack(algo, 0, kind, 0, 0, 0, 0, 0, len(message) if size is None else size)
    return body + message + header + MAGIC


def parts(signed: bytes) -> tuple[bytes, bytes]:
    """Return the body and the message of a signed kmod."""
    at = len(signed) - len(MAGIC) - HEADER.size
    size = HEADER.unpack_from(signed, at)[-1]
    return signed[: at - size], signed[at - size : at]


def make_pair(folder: Path, name: str, key: Key, serial: int = SERIAL, common_name: str = "signing key") -> Pair:
    """Return a key with a self-signed certificate, both in PEM."""
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
    """Return a desk with the newest kernel's kmod and sign-file."""
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
        ec_stranger=make_pair(folder, "ec-stranger", ec.generate_private_key(ec.SECP384R1()), 0x5D0B, "ec stranger"),
        large=make_pair(folder, "large", rsa.generate_private_key(65537, 4160)),
        p521=make_pair(folder, "p521", ec.generate_private_key(ec.SECP521R1())),
    )


def flip(data: bytes, at: int) -> bytes:
    """Return the data with one bit changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def numbered(signed: bytes, message: int, signer: int) -> bytes:
    """Return the signed kmod with other version numbers of the message and of its only signer."""
    body, der = parts(signed)
    first = der.index(b"\x02\x01") + 2
    signer_version = re.search(rb"\x02\x01[\x01\x03](?=[\x30\x80])", der)
    assert signer_version, "the signer is named by issuer and serial number, or by key identifier"
    second = signer_version.end() - 1
    return append(body, der[:first] + bytes([message]) + der[first + 1 : second] + bytes([signer]) + der[second + 1 :])
