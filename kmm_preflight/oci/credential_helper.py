"""Logins from credential helpers: docker-credential-NAME, which takes a server on stdin and answers with JSON."""

from __future__ import annotations

import re
import subprocess
from functools import cache

from kmm_preflight.errors import AccessDenied, Malformed
from kmm_preflight.oci.auth import Credential, Helper
from kmm_preflight.oci.document import parse_json

SECONDS = 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_FOUND = b"credentials not found in native keychain"
_TOKEN_USER = "<token>"


@cache
def run_credential_helper(helper: Helper, seconds: float = SECONDS) -> Credential | None:
    """The login that the helper has for the server, None when it has none; asked once in a process.

    AccessDenied when the helper gives no answer. What it printed stands in no message: it may be a login.
    """
    subject = f"credential helper docker-credential-{helper.name} for {helper.server}"
    if not _NAME.fullmatch(helper.name):
        raise AccessDenied(f"{subject}: got a name that is none, expected letters, digits, . _ and -")
    try:
        done = subprocess.run(
            [f"docker-credential-{helper.name}", "get"],
            input=helper.server.encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AccessDenied(f"{subject}: got no answer within {seconds:.0f} s") from None
    except OSError as exc:
        raise AccessDenied(f"{subject}: cannot be run ({exc.strerror})") from exc
    if done.returncode and _NOT_FOUND in done.stdout + done.stderr:
        return None
    if done.returncode:
        raise AccessDenied(f"{subject}: it ended with status {done.returncode}, expected a login")
    return _parsed(done.stdout, subject)


def _parsed(body: bytes, subject: str) -> Credential:
    problem = f"{subject}: got something else than a login, expected JSON with Username and Secret"
    try:
        answer = parse_json(body, subject)
        user, secret = answer["Username"].text(), answer["Secret"].text()
    except Malformed:
        raise AccessDenied(problem) from None
    if not secret:
        raise AccessDenied(problem)
    return Credential("", "", secret) if user == _TOKEN_USER else Credential(user, secret)
