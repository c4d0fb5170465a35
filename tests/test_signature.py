"""Appended signatures: the suite and `openssl cms -verify` agree, unless kernels are stricter than openssl."""

from __future__ import annotations

import gzip
import lzma
import random
import sys
from collections.abc import Callable

import pytest

from kmm_preflight.kmod.signature import judge_signature
from kmm_preflight.kmod.signature_rules import SignatureRules
from kmm_preflight.kmod.signed_file import MAGIC, signer_of
from kmm_preflight.model import Severity

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


from .signing_desk import HASHES, PATH, RSA_NULL, SHA256, WORDS, Desk, Pair, append, flip, numbered, parts
from .signing_desk import desk as desk  # a fixture

MUTATIONS, SAMPLE = 5000, 60


def judged(data: bytes, pair: Pair) -> str:
    """Return the id and sentence of the finding, or "" without a finding."""
    finding = judge_signature(PATH, data, pair.certificate)
    return f"{finding.id}: {finding.sentence}" if finding else ""


@pytest.mark.parametrize("algorithm", HASHES)
def test_a_signature_by_sign_file_is_valid(desk: Desk, algorithm: str) -> None:
    for pair in (desk.rsa, desk.ec):
        for options in ((algorithm,), ("-k", algorithm)):
            signed = desk.sign(*options, pair=pair)
            assert judged(signed, pair) == ""
            assert desk.openssl_accepts(signed, pair)


def test_the_certificate_may_be_der(desk: Desk) -> None:
    der = Pair(desk.rsa.key, desk.folder / "rsa.der")
    der.cert.write_bytes(desk.rsa.certificate.der)
    assert judged(desk.sign(pair=der), der) == ""
    der.cert.write_bytes(desk.rsa.certificate.der + b"\n")
    assert judged(desk.sign(pair=der), der) == "", "sign-file accepts it too"


# By label: a change of a kmod, the finding, words of the finding, and True if openssl accepts the signature.
CASES: dict[str, tuple[Callable[[Desk], bytes], str, str, bool]] = {
    "none": (lambda d: d.kmod, "signature-missing", "is required: there is no signature at its end", False),
    "empty": (lambda d: b"", "signature-missing", "there is no signature at its end", False),
    "newline-behind": (lambda d: d.sign() + b"\n", "signature-missing", "1 bytes follow its signature", False),
    "cut-in-magic": (lambda d: d.sign()[:-1], "signature-missing", "there is no signature at its end", False),
    "magic-alone": (lambda d: MAGIC, "signature-broken", "no header", False),
    "magic-behind-kmod": (lambda d: d.kmod + MAGIC, "signature-broken", "a signature of type", False),
    "type-x509": (lambda d: append(*parts(d.sign()), kind=1), "signature-broken", "of type 1 instead of 2", True),
    "algo-set": (lambda d: append(*parts(d.sign()), algo=1), "signature-broken", "must be zero", True),
    "too-long": (lambda d: append(*parts(d.sign()), size=1 << 31), "signature-broken", "bytes before it", False),
    "of-nothing": (lambda d: append(*parts(d.sign()), size=0), "signature-broken", "a signature of 0 bytes", False),
    "too-short": (lambda d: append(*parts(d.sign()), size=99), "signature-broken", "CMS message", False),
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
    "body-changed": (lambda d: flip(d.sign(), 5000), "signature-wrong", f"is not valid for {WORDS}",
                     False),
    "body-shorter": (lambda d: d.sign()[1:], "signature-wrong", "", False),
    "value-changed": (lambda d: flip(d.sign(), -60), "signature-wrong", "", False),
    "namesake": (lambda d: d.sign(pair=d.namesake), "signature-wrong", "", False),
    "stranger": (lambda d: d.sign(pair=d.stranger), "signature-foreign", f"serial 5D:0A, expected {WORDS}", False),
    "stranger-by-key-identifier": (
        lambda d: d.sign("-k", "sha256", pair=d.stranger), "signature-foreign", "expected key identifier", False,
    ),
    "stranger-above": (lambda d: d.sign(data=d.sign(), pair=d.stranger), "signature-foreign", "5D:0A", False),
    "twice": (lambda d: d.sign(data=d.sign()), "signature-twice", f"is another one by {WORDS}", True),
    "stranger-below": (lambda d: d.sign(data=d.sign(pair=d.stranger)), "signature-twice", "CN=stranger", True),
    "broken-below": (lambda d: d.sign(data=d.kmod + MAGIC), "signature-twice", "an unreadable signer", True),
    "attributes": (lambda d: d.by_openssl("-nocerts"), "signature-form", "it has signed attributes", True),
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
    "two-strangers": (
        lambda d: two_signers(d, d.stranger, d.ec_stranger), "signature-foreign", "stranger", False,
    ),
    "wrong-beside-a-stranger": (lambda d: flip(two_signers(d, d.rsa, d.stranger), 5000), "signature-wrong", "", False),
    "unknown-beside-a-signer": (
        lambda d: two_signers(d, d.rsa, d.stranger).replace(SHA256, SHA256[:-1] + b"\x07"), "signature-form",
        "the hash sha3_224", False,
    ),
    "md5": (lambda d: d.sign("md5"), "signature-form", "the hash md5", True),
    "sha3": (lambda d: d.sign("sha3-256"), "signature-form", "the hash sha3_256", True),
    "gzip-then-signed": (lambda d: d.sign(data=gzip.compress(d.kmod)), "signature-compressed", "gzip data", True),
    "xz-then-signed": (lambda d: d.sign(data=lzma.compress(d.kmod)), "signature-compressed", "the xz data", True),
    "unsigned-in-xz": (lambda d: lzma.compress(d.kmod), "signature-missing", "there is no signature at its end", False),
    "cut-xz": (lambda d: lzma.compress(d.sign())[:-50], "signature-broken", "damaged xz data", False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_invalid_signature(desk: Desk, case: str) -> None:
    make, finding, words, openssl = CASES[case]
    data = make(desk)
    result = judged(data, desk.rsa)
    assert (result.partition(":")[0], words in result) == (finding, True), result
    assert desk.openssl_accepts(data, desk.rsa) == openssl


def two_signers(desk: Desk, one: Pair, other: Pair, *options: str) -> bytes:
    """Return the kmod with one message that has two signers."""
    options = options or ("-nocerts",)
    return desk.by_openssl("-noattr", *options, "-signer", str(other.cert), "-inkey", str(other.key), pair=one)


def test_one_of_several_signers_is_enough(desk: Desk) -> None:
    """A kernel trusts a message by any of its signers. openssl needs the certificates of all."""
    for data in (two_signers(desk, desk.rsa, desk.stranger), two_signers(desk, desk.stranger, desk.rsa)):
        assert judged(data, desk.rsa) == judged(data, desk.stranger) == ""
        assert judged(data, desk.namesake).startswith("signature-wrong"), "it has the name and the serial number"
    inside = two_signers(desk, desk.rsa, desk.stranger, "-md", "sha256")
    assert judged(inside, desk.rsa) == judged(inside, desk.stranger) == ""
    assert judged(flip(inside, 5000), desk.rsa).startswith("signature-form")


def test_another_certificate_inside_is_checked_but_does_no_harm(desk: Desk) -> None:
    other = desk.by_openssl("-noattr", "-certfile", str(desk.stranger.cert))
    assert judged(other, desk.rsa) == ""
    assert "other certificates inside" in judged(
        desk.by_openssl("-noattr", "-certfile", str(desk.p521.cert)), desk.rsa
    ), "a kernel that does not know the curve does not read the message"


@pytest.mark.parametrize(
    ("algorithm", "version", "options", "valid"),
    [
        ("md5", (5, 14), None, True),
        ("md5", (6, 12), None, False),
        ("md5", (0, 0), None, False),
        ("sha3-256", (6, 12), frozenset({"CRYPTO_SHA3"}), True),
        ("sha3-512", (7, 2), frozenset({"CRYPTO_SHA3"}), True),
        ("sha3-256", (6, 12), frozenset(), False),
        ("sha3-256", (6, 12), None, False),
        ("sha3-256", (5, 14), frozenset({"CRYPTO_SHA3"}), False),
        ("sha1", (7, 2), None, True),
    ],
)
def test_hashes_that_only_some_kernels_know(
    desk: Desk, algorithm: str, version: tuple[int, int], options: frozenset[str] | None, valid: bool
) -> None:
    rules = SignatureRules(version, options)
    signed = desk.sign(algorithm)
    finding = judge_signature(PATH, signed, desk.rsa.certificate, rules)
    assert finding is None if valid else finding is not None and finding.id == "signature-form"
    damaged = judge_signature(PATH, flip(signed, 5000), desk.rsa.certificate, rules)
    assert damaged is not None
    assert damaged.id == ("signature-wrong" if valid else "signature-form")


def test_curves_that_only_some_kernels_know(desk: Desk) -> None:
    for pair, since in ((desk.ec, (5, 13)), (desk.p521, (6, 11))):
        signed, certificate = desk.sign(pair=pair), pair.certificate
        assert judge_signature(PATH, signed, certificate, SignatureRules(since)) is None
        older = judge_signature(PATH, signed, certificate, SignatureRules((since[0], since[1] - 1)))
        assert older is not None
        assert older.id == "signature-form"
        assert judge_signature(PATH, flip(signed, 5000), certificate, SignatureRules(since)) is not None


def test_only_a_second_signature_below_a_good_one_is_a_warning(desk: Desk) -> None:
    twice = judge_signature(PATH, desk.sign(data=desk.sign()), desk.rsa.certificate)
    assert twice is not None
    assert twice.severity is Severity.WARNING


def test_keys_that_kernels_do_not_accept(desk: Desk) -> None:
    for pair, words in ((desk.large, "an RSA key of 4160 bits"), (desk.p521, "an EC key on secp521r1")):
        signed = desk.sign(pair=pair)
        assert desk.openssl_accepts(signed, pair)
        result = judged(signed, pair)
        assert result.startswith("signature-form: ")
        assert f"a certificate for {words}" in result


def test_a_kmod_that_is_signed_and_then_compressed_is_valid(desk: Desk) -> None:
    signed = desk.sign()
    for packed in (gzip.compress(signed), lzma.compress(signed), zstd.compress(signed)):
        assert judged(packed, desk.rsa) == ""
        assert signer_of(packed) == WORDS


def test_some_signatures_by_openssl_are_valid(desk: Desk) -> None:
    assert judged(desk.by_openssl("-noattr", "-nocerts"), desk.rsa) == ""
    assert judged(desk.by_openssl("-noattr"), desk.rsa) == "", "with the certificate itself inside"
    assert judged(desk.by_openssl("-noattr", "-nocerts", "-keyid"), desk.rsa) == ""


def test_the_signer_of_a_signature(desk: Desk) -> None:
    assert signer_of(desk.sign()) == WORDS
    ski = desk.rsa.certificate.ski
    assert ski is not None
    assert signer_of(desk.sign("-k", "sha256")) == f"key identifier {ski.hex(':').upper()}"
    assert [signer_of(data) for data in (b"", desk.kmod, desk.sign() + b"\n", b"\x1f\x8bx", MAGIC)] == [None] * 5


def test_no_damaged_signature_passes_that_openssl_refuses(desk: Desk) -> None:
    """No damage raises an error. Most changes are in the message and behind it, the parts that are parsed."""
    chance = random.Random(20260101)
    good = {pair: desk.sign(*options, pair=pair, data=desk.kmod[:4096])
            for pair, options in ((desk.rsa, ("sha256",)), (desk.ec, ("-k", "sha384")))}  # fmt: skip
    certificates = {pair: pair.certificate for pair in good}
    passed = compared = 0
    for number in range(MUTATIONS):
        pair = chance.choice(list(good))
        data = mutated(good[pair], chance)
        finding = judge_signature(PATH, data, certificates[pair])
        signer_of(data)
        if finding is None:
            passed += 1
            assert data == good[pair] or desk.openssl_accepts(data, pair), number
        elif finding.id == "signature-wrong" and compared < SAMPLE:
            compared += 1
            assert not desk.openssl_accepts(data, pair), number
    assert compared == SAMPLE
    assert passed < MUTATIONS / 20


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return the data with one to three changes, nearly all in the last bytes."""
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
