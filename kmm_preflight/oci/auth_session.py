"""Logging in to a repository: by password or by a token of its token server, with one login after the other."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import urlencode, urljoin, urlsplit

from kmm_preflight.errors import AccessDenied, Malformed, Unreachable
from kmm_preflight.oci.auth import Credential, Helper
from kmm_preflight.oci.credential_helper import run_credential_helper
from kmm_preflight.oci.document import parse_json

_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class Ask(Protocol):
    """One question to a token server."""

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, subject: str
    ) -> tuple[int, bytes]:
        """Status and body; the body is read of a 2xx answer only. Undecidable when there is no answer."""


class Login:
    """What a repository's requests are authorised with: the first of the candidates, after another() the next one."""

    def __init__(self, candidates: Sequence[Credential | Helper | None], repository: str, ask: Ask) -> None:
        self._left = list(candidates)
        self._repository = repository
        self._ask = ask
        self.authorization = ""

    @property
    def spent(self) -> bool:
        """Whether the password itself was sent, so that a refusal of it is the last word."""
        return self.authorization.startswith("Basic")

    def another(self) -> bool:
        """Turns to the next candidate; False when there is none."""
        if len(self._left) < 2:
            return False
        del self._left[0]
        self.authorization = ""
        return True

    def log_in(self, challenge: str, base: str, subject: str) -> None:
        """Answers a challenge of the server at base; AccessDenied, or what asking a token server raises."""
        scheme, _, rest = challenge.partition(" ")
        credential = self._credential()
        match scheme.lower():
            case "basic" if credential:
                self.authorization = _basic(credential)
            case "bearer":
                # Of a name that stands twice the first counts: another challenge may follow.
                parameters = dict(reversed(_CHALLENGE.findall(rest)))
                self.authorization = f"Bearer {self._token(parameters, base, credential, subject)}"
            case "basic":
                raise AccessDenied(f"{subject}: the registry asks for a login and there is none for it")
            case _:
                raise AccessDenied(f"{subject}: the registry refuses access and names no login that is known")

    def _credential(self) -> Credential | None:
        candidate = self._left[0]
        return run_credential_helper(candidate) if isinstance(candidate, Helper) else candidate

    def _token(self, parameters: Mapping[str, str], base: str, credential: Credential | None, subject: str) -> str:
        try:
            realm = urljoin(base, parameters.get("realm", ""))
            secure = urlsplit(realm).scheme == "https"
        except ValueError as exc:
            raise AccessDenied(f"{subject}: the registry sends its login to an address that is none ({exc})") from exc
        if not secure and urlsplit(base).scheme == "https":
            raise AccessDenied(f"{subject}: the registry sends its login to {realm}, expected an https address")
        asked = {"scope": f"repository:{self._repository}:pull"}
        if "service" in parameters:
            asked["service"] = parameters["service"]
        status, body = self._ask_for_token(realm, asked, credential, subject)
        if status in (400, 401, 403):
            raise AccessDenied(f"{subject}: the login was refused (status {status} of its token server)")
        if not 200 <= status < 300:  # 404 too is the token server's trouble and says nothing of the image
            raise Unreachable(f"{subject}: got status {status} from its token server, expected 200")
        return _parse_token(body, subject)

    def _ask_for_token(
        self, realm: str, asked: Mapping[str, str], credential: Credential | None, subject: str
    ) -> tuple[int, bytes]:
        if credential and credential.identity_token:
            form = {**asked, "grant_type": "refresh_token", "refresh_token": credential.identity_token,
                    "client_id": "kmm-preflight"}  # fmt: skip
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._ask("POST", realm, headers, urlencode(form).encode(), subject)
        headers = {"Authorization": _basic(credential)} if credential else {}
        separator = "&" if "?" in realm else "?"
        return self._ask("GET", f"{realm}{separator}{urlencode(asked)}", headers, None, subject)


def _basic(credential: Credential) -> str:
    login = f"{credential.username}:{credential.password}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"


def _parse_token(body: bytes, subject: str) -> str:
    try:
        answer = parse_json(body, subject)
        token = answer["token"].text() or answer["access_token"].text()
    except Malformed as exc:
        raise Unreachable(f"{subject}: its token server answers with something else than a token") from exc
    if not token.isascii() or not token.isprintable():
        raise Unreachable(f"{subject}: its token server answers with a token that cannot be sent")
    if not token:
        raise AccessDenied(f"{subject}: the token server gave no token")
    return token
