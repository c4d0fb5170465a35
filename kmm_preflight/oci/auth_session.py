"""Log in to a repository with a password or a token of its token server. Try one credential after the other."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode, urljoin, urlsplit

from kmm_preflight.errors import AccessDenied, Malformed, Unreachable
from kmm_preflight.oci.auth import Credential, Helper
from kmm_preflight.oci.credential_helper import run_credential_helper
from kmm_preflight.oci.document import parse_json

# A token, and the value behind an equals sign if the token is the name of a parameter (RFC 9110, 11.6.1).
_WORD = re.compile(r"""([\w!#$%&'*+.^`|~/-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*))?""")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Challenge:
    """A way to log in that a server offers."""

    scheme: str
    """The scheme in lower case, such as bearer."""
    parameters: Mapping[str, str]
    """The parameters by name in lower case. If a name occurs twice, the first value counts."""


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Return the challenges of WWW-Authenticate headers, in order. A header may have several challenges."""
    challenges: list[tuple[str, dict[str, str]]] = []
    for header in headers:
        for name, value in _WORD.findall(header):
            if not value:
                challenges.append((name.lower(), {}))
            elif challenges:
                challenges[-1][1].setdefault(name.lower(), _unquoted(value))
    return [Challenge(scheme, parameters) for scheme, parameters in challenges]


def _unquoted(value: str) -> str:
    return _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value


class RequestToken(Protocol):
    """Sends a request to a token server."""

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, subject: str
    ) -> tuple[int, bytes]:
        """Return status and body. The body is empty unless the status is 2xx. Raise Undecidable if no answer comes."""


class AuthSession:
    """The authorization of a repository's requests. It uses the first candidate, and the next one after `use_next`."""

    def __init__(
        self, candidates: Sequence[Credential | Helper | None], repository: str, request_token: RequestToken
    ) -> None:
        self._candidates = list(candidates)
        self._repository = repository
        self._request_token = request_token
        self.authorization: str | None = None
        """The value of the Authorization header, or None before a login."""

    @property
    def sent_password(self) -> bool:
        """True if requests send the password itself: then a refusal of this candidate is final."""
        return self.authorization is not None and self.authorization.startswith("Basic")

    def use_next(self) -> bool:
        """Switch to the next candidate. Return False if no candidate is left."""
        if len(self._candidates) < 2:
            return False
        del self._candidates[0]
        self.authorization = None
        return True

    def log_in(self, challenges: Sequence[Challenge], base: str, subject: str) -> None:
        """Answer the first challenge of a known scheme, of the server at the URL base.

        Raise AccessDenied, or Undecidable if the token server does not answer.
        """
        credential = self._credential()
        for challenge in challenges:
            match challenge.scheme:
                case "basic" if credential:
                    self.authorization = _basic(credential)
                    return
                case "bearer":
                    self.authorization = f"Bearer {self._token(challenge.parameters, base, credential, subject)}"
                    return
        if any(challenge.scheme == "basic" for challenge in challenges):
            raise AccessDenied(f"{subject}: the registry requires a login, and no credentials match it")
        raise AccessDenied(f"{subject}: the registry refuses access and offers no known way to log in")

    def _credential(self) -> Credential | None:
        candidate = self._candidates[0]
        return run_credential_helper(candidate) if isinstance(candidate, Helper) else candidate

    def _token(self, parameters: Mapping[str, str], base: str, credential: Credential | None, subject: str) -> str:
        try:
            realm = urljoin(base, parameters.get("realm", ""))
            secure = urlsplit(realm).scheme == "https"
        except ValueError as exc:
            raise AccessDenied(f"{subject}: the registry names an invalid address as its token server ({exc})") from exc
        if not secure and urlsplit(base).scheme == "https":
            raise AccessDenied(f"{subject}: the registry names {realm} as its token server, expected an https address")
        query = {"scope": f"repository:{self._repository}:pull"}
        if parameters.get("service"):
            query["service"] = parameters["service"]
        status, body = self._fetch_token(realm, query, credential, subject)
        if status in (400, 401, 403):
            raise AccessDenied(f"{subject}: the token server refused the login (status {status})")
        if not 200 <= status < 300:  # 404 too is a problem of the token server, and proves nothing about the image
            raise Unreachable(f"{subject}: got status {status} from its token server, expected 200")
        return _parse_token(body, subject)

    def _fetch_token(
        self, realm: str, query: Mapping[str, str], credential: Credential | None, subject: str
    ) -> tuple[int, bytes]:
        if credential and credential.identity_token:
            form = {**query, "grant_type": "refresh_token", "refresh_token": credential.identity_token,
                    "client_id": "kmm-preflight"}  # fmt: skip
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._request_token("POST", realm, headers, urlencode(form).encode(), subject)
        headers = {"Authorization": _basic(credential)} if credential else {}
        separator = "&" if "?" in realm else "?"
        return self._request_token("GET", f"{realm}{separator}{urlencode(query)}", headers, None, subject)


def _basic(credential: Credential) -> str:
    login = f"{credential.username}:{credential.password}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"


def _parse_token(body: bytes, subject: str) -> str:
    try:
        answer = parse_json(body, subject)
        token = answer["token"].optional_text() or answer["access_token"].optional_text()
    except Malformed as exc:
        raise Unreachable(f"{subject}: the answer of its token server is not a token") from exc
    if token is None:
        raise AccessDenied(f"{subject}: the token server returned no token")
    if not token.isascii() or not token.isprintable():
        raise Unreachable(f"{subject}: its token server returned a token that no header can hold")
    return token
