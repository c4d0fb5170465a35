"""Signatures that kernels refuse even if they do not enforce signatures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kmm_preflight.kmod.signature import judge_unenforced_signature

from .signing_desk import DATA, MODULUS, PATH, Desk, append, flip, numbered, parts
from .signing_desk import desk as desk  # a fixture

# By label: a change of a kmod, and words of the finding, "" for none. Kernels in QEMU gave the same results.
CASES: dict[str, tuple[Callable[[Desk], bytes], str]] = {
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


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_that_does_not_enforce_signatures(case: str, desk: Desk) -> None:
    make, words = CASES[case]
    finding = judge_unenforced_signature(PATH, make(desk))
    assert (finding.id, words in finding.sentence) == ("signature-form", True) if finding else not words
