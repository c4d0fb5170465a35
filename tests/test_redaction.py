"""Redaction of logs."""

from __future__ import annotations

import base64
from dataclasses import replace

from kmm_preflight.build.builder import BuildRequest, MountedSecret
from kmm_preflight.build.redaction import without_secrets
from kmm_preflight.model import Flavour, ModuleName, Stage, TargetKernel
from kmm_preflight.oci.auth import Credential, Keychain
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan

KERNEL = TargetKernel("5.14.0-570.el9.x86_64", "amd64", None, Flavour.STANDARD, None, "")
PLAN = Plan(ModuleName("ns", "m"), KERNEL, Reference.parse("r/i:t"))
KEY = b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nsho\n-----END PRIVATE KEY-----\n"
LOGIN = Keychain("a file", {"r": Credential("someone", "a pass word", "an-identity-token")})
REQUEST = BuildRequest(
    "m-build-1",
    Stage.BUILD,
    PLAN,
    "FROM a",
    "r/i:t",
    False,
    1.0,
    secrets=(MountedSecret("key", "s", {"key": KEY, "pin": b"1234"}),),
    credentials=PullCredentials((LOGIN,)),
)


def test_secrets_and_logins_are_hidden_in_every_encoding() -> None:
    whole = base64.b64encode(KEY).decode()
    pair = base64.b64encode(b"someone:a pass word").decode()
    text = f"{KEY.decode()} {whole} a pass word {pair} an-identity-token MIIEvQIBADANBgkq"
    assert without_secrets(text, REQUEST) == "***\n *** *** *** *** ***"
    assert without_secrets("https://x:a%20pass%20word@h a+pass+word", REQUEST) == "https://x:***@h ***"
    for before in ("", "u", "us", "user:"):
        hidden = without_secrets(base64.b64encode(f"{before}an-identity-token\n".encode()).decode(), REQUEST)
        assert "***" in hidden
        assert len(hidden) < len(before) * 2 + 8
    wrapped = base64.encodebytes(KEY * 3).decode()
    assert (
        without_secrets(wrapped, replace(REQUEST, secrets=(MountedSecret("k", "s", {"k": KEY * 3}),))).split()
        == ["***"] * 4
    )
    assert without_secrets("sho 1234 -----BEGIN PRIVATE KEY-----", REQUEST) == "sho 1234 -----BEGIN PRIVATE KEY-----"
