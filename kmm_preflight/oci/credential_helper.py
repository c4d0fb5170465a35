"""Logins from credential helpers: docker-credential-NAME reads a server from stdin and writes JSON."""

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
    """Return the helper's login for its server, or None if it has no login. Run each helper once in a process.

    Raise AccessDenied if the helper fails. No message contains its output, which may be a login.
    """
    subject = f"credential helper docker-credential-{helper.name} for {helper.server}"
    if not _NAME.fullmatch(helper.name):
        raise AccessDenied(f"{subject}: invalid name, expected letters, digits, . _ and -")
    try:
        done = subprocess.run(
            [f"docker-credential-{helper.name}", "get"],
            input=helper.server.encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AccessDenied(f"{subject}: no answer within {seconds:.0f} s") from None
    except OSError as exc:
        raise AccessDenied(f"{subject}: cannot be run ({exc.strerror})") from exc
    if done.returncode and _NOT_FOUND in done.stdout + done.stderr:
        return None
    if done.returncode:
        raise AccessDenied(f"{subject}: exit status {done.returncode}, expected a login")
    return _parsed(done.stdout, subject)


def _parsed(body: bytes, subject: str) -> Credential:
    problem = f"{subject}: its output is not a login, expected JSON with Username and Secret"
    try:
        answer = parse_json(body, subject)
        user, secret = answer["Username"].text(), answer["Secret"].optional_text()
    except Malformed:
        raise AccessDenied(problem) from None
    if not secret:
        raise AccessDenied(problem)
    return Credential("", "", identity_token=secret) if user == _TOKEN_USER else Credential(user, secret)
