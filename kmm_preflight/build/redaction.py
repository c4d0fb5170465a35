"""What a log of a build may show: nothing of a Secret or a login, in whichever usual shape it was printed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

from kmm_preflight.build.builder import BuildRequest
from kmm_preflight.oci.auth import Credential

_HIDDEN = "***"
# Shorter texts stand in any log by chance.
_SECRET_CHARACTERS = 6
_TOKEN_LINES = 4
# Of lines of base64, as base64(1) and openssl break them.
_WIDTHS = (76, 64)


def without_secrets(text: str, request: BuildRequest) -> str:
    """The text with everything hidden in it that stands in a Secret of the request, or is a login of it."""
    secrets = {secret for secret in _secrets(request) if len(secret) >= _SECRET_CHARACTERS}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return text


def _secrets(request: BuildRequest) -> Iterator[str]:
    for mounted in request.secrets:
        for content in mounted.files.values():
            yield from _shapes(content)
    for keychain in (*request.credentials.own, *request.credentials.node):
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
    yield from (text, *lines, encoded, *wrapped, *(shape for token in tokens for shape in _encoded(token)))


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
    words = (credential.password, credential.identity_token or "")
    yield from (*words, base64.b64encode(pair).decode(), *(shape for word in words for shape in _encoded(word)))
