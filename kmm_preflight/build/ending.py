"""How a build ended badly, as a finding; and what a log may show."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote, quote_plus

from kmm_preflight import findings
from kmm_preflight.build.builder import Order
from kmm_preflight.build.dockerfile import HEREDOC
from kmm_preflight.model import Finding, Stage
from kmm_preflight.oci.auth import Credential
from kmm_preflight.outside import clean

LAST_LINES = 12
_ERRORS_ABOVE = 5
_LAST_WORD_HEAD, _LAST_WORD_TAIL = 120, 160
# What a builder says when it broke, whatever it was told to build.
_NOT_ITS_FAULT = re.compile(
    r"creating build container|initializing source|pinging container registry|reading manifest|i/o timeout|"
    r"connection re(fused|set)|no space left on device|TLS handshake|no such host|too many requests|server error|"
    r"HTTP status: 5\d\d",
    re.IGNORECASE,
)
# A user without subordinate ids: some of his steps fail, others do not.
_NO_IDS = re.compile(
    r"no [UG]ID ranges set aside|no sub[ug]id ranges found|unknown userid|newuidmap|error setting supplemental groups"
)
_STEP_FAILED = 'building at STEP "RUN'
_STEP_NAMED = re.compile(r"STEP [\d\"]")
STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+(?:/\d+)?: .*", re.MULTILINE)
"""A step of a Dockerfile, as buildah announces it."""
_NO_ROOM = re.compile(r"no space left on device", re.IGNORECASE)
_NOT_AN_INSTRUCTION = re.compile(r'Unknown instruction|"/<<')
_ERROR = re.compile(r"\berror:|\bfatal\b|undefined!|No such file|not found|denied", re.IGNORECASE)
_HIDDEN = "***"
# Shorter texts stand in any log by chance.
_SECRET_CHARACTERS = 6
_TOKEN_LINES = 4
# Of lines of base64, as base64(1) and openssl break them.
_WIDTHS = (76, 64)


def ended_badly(log: str, problem: str, stage: Stage) -> Finding:
    """It was run and did not end well: failed(), or broke() where the log says that the Dockerfile is not to blame.

    A log says so by its last word, by a full disk in its last lines, or by a user without subordinate ids.
    """
    word = last_word(log)
    if _NOT_AN_INSTRUCTION.search(word) and _has_here_document(log):
        got = f"got a builder that knows no here-documents ({shortened(word)})"
        return broke(log, f"{got}, expected buildah 1.33, podman 4.8 or later")
    blameless = _has_no_room(log) if _STEP_FAILED in word else _NOT_ITS_FAULT.search(word)
    blameless = blameless or _NO_IDS.search(log)
    return broke(log, problem) if blameless else failed(log, problem, stage)


def failed(log: str, problem: str, stage: Stage) -> Finding:
    """The build or the signing was run, and its own steps failed: problem says where."""
    kind = findings.SIGN_FAILED if stage is Stage.SIGN else findings.BUILD_FAILED
    return replace(kind(problem=problem), lines=excerpt(log))


def timed_out(log: str, seconds: float) -> Finding:
    """The build was stopped at its deadline."""
    return replace(findings.BUILD_TIMEOUT(seconds=f"{seconds:.0f}"), lines=excerpt(log))


def broke(log: str, problem: str) -> Finding:
    """The builder did not get to an end of the build, for reasons that are not the build's: undecided."""
    return replace(findings.BUILDER_FAILED(problem=problem), lines=excerpt(log))


def last_word(log: str) -> str:
    """The builder's own last word, which names the step; "" where it has none."""
    return next((line for line in reversed(_lines(log)) if line.lower().startswith("error")), "")


def shortened(word: str) -> str:
    """A last word for a sentence, safe to print: without its middle where it is long, since the reason is its end."""
    if len(word) <= _LAST_WORD_HEAD + _LAST_WORD_TAIL:
        return clean(word)
    return clean(f"{word[:_LAST_WORD_HEAD]} … {word[-_LAST_WORD_TAIL:]}")


def _has_here_document(log: str) -> bool:
    return any(STEP.match(line) and HEREDOC.search(line) for line in _lines(log))


def _has_no_room(log: str) -> bool:
    return any(_NO_ROOM.search(line) and not _STEP_NAMED.search(line) for line in _lines(log)[-LAST_LINES:])


def _lines(log: str) -> list[str]:
    return [line.strip() for line in log.splitlines() if line.strip()]


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
    # Lines of a long text, such as a key, are no tokens that somebody puts into a URL or a login.
    tokens = (text, *lines) if len(lines) <= _TOKEN_LINES else (text,)
    for shape in (text, *lines, encoded, *wrapped, *(shape for token in tokens for shape in _encoded(token))):
        if len(shape) >= _SECRET_CHARACTERS:
            yield shape


def _encoded(token: str) -> Iterator[str]:
    """A token as it stands in a URL, and in the base64 of a text around it, such as `user:token`."""
    yield from (quote(token, safe=""), quote(token), quote_plus(token))
    data = token.encode()
    for before in range(3):
        # Three bytes make four characters: those that hold bits of what stands before or behind are left out.
        text = base64.b64encode(bytes(before) + data)[-(-before * 8 // 6) : (before + len(data)) * 8 // 6].decode()
        yield from (text, text.replace("+", "-").replace("/", "_"))


def _shapes_of_login(credential: Credential) -> Iterator[str]:
    pair = f"{credential.username}:{credential.password}".encode()
    words = (credential.password, credential.identity_token)
    for shape in (*words, base64.b64encode(pair).decode(), *(shape for word in words for shape in _encoded(word))):
        if len(shape) >= _SECRET_CHARACTERS:
            yield shape
