"""Findings of errors while an image is read: every class of the error tree has one, also a class below another."""

from __future__ import annotations

import pytest

from kmm_preflight import errors
from kmm_preflight.base.decompression import CutShort
from kmm_preflight.oci.findings import finding_of

WANT = {
    CutShort: "image-unreadable",
    errors.Malformed: "image-unreadable",
    errors.NotFound: "image-not-found",
    errors.PlatformMissing: "image-platform-missing",
    errors.Blocked: "registry-blocked",
    errors.AccessUndecided: "image-access-undecided",
    errors.Unreachable: "registry-unreachable",
}


@pytest.mark.parametrize("kind", WANT)
def test_finding_of_an_error(kind: type[errors.PreflightError]) -> None:
    assert finding_of(kind("words"), "k").id == WANT[kind]
