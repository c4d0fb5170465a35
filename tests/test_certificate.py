"""Certificates of signing keys."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.certificate import parse_certificate

from .signing_desk import SERIAL, Desk
from .signing_desk import desk as desk  # a fixture


def test_a_certificate_is_read(desk: Desk) -> None:
    certificate = desk.rsa.certificate
    assert (certificate.subject, certificate.issuer) == ("O=Preflight tests, CN=signing key",) * 2
    assert (certificate.serial, len(certificate.ski or b"")) == (SERIAL, 20)
    assert timedelta(days=1) == certificate.not_after - certificate.not_before
    assert certificate.not_after.tzinfo is UTC


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
def test_bytes_that_are_not_a_certificate(data: bytes, got: str) -> None:
    with pytest.raises(Malformed, match=rf"^certificate of ns/a: got {got}, expected ") as caught:
        parse_certificate(data, "certificate of ns/a")
    assert "c2VjcmV0" not in str(caught.value)
