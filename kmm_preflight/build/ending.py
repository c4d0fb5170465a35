"""How a build ended badly, as a finding; and what a log may show."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace

from kmm_preflight import findings
from kmm_preflight.build.builder import Order
from kmm_preflight.model import Finding
from kmm_preflight.oci.auth import Credential
from kmm_preflight.outside import clean

LAST_LINES = 12
_ERRORS_ABOVE = 5
_ERROR = re.compile(r"\berror:|\bfatal\b|undefined!|No such file|not found|denied", re.IGNORECASE)
_HIDDEN = "***"
# Shorter texts stand in any log by chance.
_SECRET_CHARACTERS = 6
# Of lines of base64, as base64(1) and openssl break them.
_WIDTHS = (76, 64)


def failed(log: str, problem: str) -> Finding:
    """The build was run, and its own steps failed: problem says where."""
    return replace(findings.BUILD_FAILED(problem=problem), lines=excerpt(log))


def timed_out(log: str, seconds: float) -> Finding:
    """The build was stopped at its deadline."""
    return replace(findings.BUILD_TIMEOUT(seconds=f"{seconds:.0f}"), lines=excerpt(log))


def broke(log: str, problem: str) -> Finding:
    """The builder did not get to an end of the build, for reasons that are not the build's: undecided."""
    return replace(findings.BUILDER_FAILED(problem=problem), lines=excerpt(log))


def excerpt(log: str) -> tuple[str, ...]:
    """The last lines of a log, and before them lines above that look like the error itself; safe to print."""
    lines = [clean(line.rstrip()) for line in log.splitlines() if line.strip()]
    above, last = lines[:-LAST_LINES], lines[-LAST_LINES:]
    errors = [line for line in above if _ERROR.search(line)][:_ERRORS_ABOVE]
    return (*errors, *(("…",) if len(errors) < len(above) and above else ()), *last)


def without_secrets(text: str, order: Order) -> str:
    """The text with everything hidden in it that stands in a Secret of the order, or is a login of it."""
    for secret in sorted(set(_secrets(order)), key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return text


def _secrets(order: Order) -> Iterator[str]:
    for mounted in order.secrets:
        for content in mounted.files.values():
            yield from _shapes(content)
    for keychain in (*order.keyring.own, *order.keyring.node):
        for credential in keychain.credentials.values():
            yield from _shapes_of_login(credential)


def _shapes(content: bytes) -> Iterator[str]:
    """A content as it may be printed: whole, line by line, encoded."""
    text = content.decode("utf-8", "replace").strip()
    lines = [line.strip() for line in text.splitlines() if not line.startswith("-----")]
    encoded = base64.b64encode(content).decode()
    wrapped = [encoded[start : start + width] for width in _WIDTHS for start in range(0, len(encoded), width)]
    for shape in (text, *lines, encoded, *wrapped):
        if len(shape) >= _SECRET_CHARACTERS:
            yield shape


def _shapes_of_login(credential: Credential) -> Iterator[str]:
    pair = f"{credential.username}:{credential.password}".encode()
    for shape in (credential.password, credential.identity_token, base64.b64encode(pair).decode()):
        if len(shape) >= _SECRET_CHARACTERS:
            yield shape
