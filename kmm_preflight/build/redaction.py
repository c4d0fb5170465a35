"""Redaction of logs: hide Secrets and logins in every usual encoding."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

from kmm_preflight.build.builder import BuildRequest
from kmm_preflight.oci.auth import Credential

_HIDDEN = "***"
# Shorter texts occur in any log by chance.
_SECRET_CHARACTERS = 6
_TOKEN_LINES = 4
# Line lengths of base64(1) and openssl.
_WIDTHS = (76, 64)


def without_secrets(text: str, request: BuildRequest) -> str:
    """Return the text with the content of all Secrets and logins of a request hidden."""
    secrets = {secret for secret in _secrets(request) if len(secret) >= _SECRET_CHARACTERS}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return text


def _secrets(request: BuildRequest) -> Iterator[str]:
    for mounted in request.secrets:
        for content in mounted.files.values():
            yield from _forms(content)
    for keychain in (*request.credentials.own, *request.credentials.node):
        for credential in keychain.credentials.values():
            yield from _forms_of_login(credential)


def _forms(content: bytes) -> Iterator[str]:
    """Yield each form in which the content can appear: whole, each line, and encoded."""
    text = content.decode("utf-8", "replace").strip()
    lines = [line.strip() for line in text.splitlines() if not line.startswith("-----")]
    encoded = base64.b64encode(content).decode()
    wrapped = [encoded[start : start + width] for width in _WIDTHS for start in range(0, len(encoded), width)]
    # The lines of a long text, such as a key, are not tokens for a URL or a login.
    tokens = (text, *lines) if len(lines) <= _TOKEN_LINES else (text,)
    yield from (text, *lines, encoded, *wrapped, *(form for token in tokens for form in _encoded(token)))


def _encoded(token: str) -> Iterator[str]:
    """Yield a token as a part of a URL, and as a part of a text in base64, such as `user:token`."""
    yield from (quote(token, safe=""), quote(token), quote_plus(token))
    data = token.encode()
    for offset in range(3):
        # Three bytes become four characters. Leave out characters that also hold bits of the text around the token.
        text = base64.b64encode(bytes(offset) + data)[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6].decode()
        yield from (text, text.replace("+", "-").replace("/", "_"))


def _forms_of_login(credential: Credential) -> Iterator[str]:
    pair = f"{credential.username}:{credential.password}".encode()
    words = [word for word in (credential.password, credential.identity_token) if word]
    yield from (*words, base64.b64encode(pair).decode(), *(form for word in words for form in _encoded(word)))
