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

_SPACE = " \t\r\n"
_SCHEME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z_-]+")
_PARAMETER = re.compile(rf"""[{_SPACE}]*({_SCHEME.pattern})=(?:({_SCHEME.pattern})|"((?:[^"\\]|\\.)+)")[{_SPACE}]*""")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Challenge:
    """A way to log in that a server offers."""

    scheme: str
    """The scheme in lower case, such as bearer."""
    parameters: Mapping[str, str]
    """The parameters by name in lower case. If a name occurs twice, the last value counts."""


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Return the challenges of WWW-Authenticate headers as a node reads them: the first challenge of each header.

    The parameters end where the header is damaged, or where the next challenge begins.
    """
    found = [(scheme[0], header[scheme.end() :]) for header in headers if (scheme := _SCHEME.match(header))]
    return [Challenge(scheme.lower(), _parameters(rest)) for scheme, rest in found]


def _parameters(text: str) -> dict[str, str]:
    parameters, at = dict[str, str](), 0
    while match := _PARAMETER.match(text, at):
        parameters[match[1].lower()] = match[2] or _ESCAPED.sub(r"\1", match[3])
        if text[match.end() : match.end() + 1] != ",":
            break
        at = match.end() + 1
    return parameters


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
        """Answer the first challenge of a known scheme, of the server at the URL base, as a node does.

        Without such a challenge, send no login. Raise AccessDenied, or Undecidable if the token server does not answer.
        """
        for challenge in challenges:
            match challenge.scheme:
                case "basic":
                    self.authorization = _basic(self._credential() or _ANONYMOUS)
                    return
                case "bearer":
                    token = self._token(challenge.parameters, base, self._credential(), subject)
                    self.authorization = f"Bearer {token}"
                    return

    def refusal(self, challenges: Sequence[Challenge], status: int) -> str:
        """Return why the registry refuses a request with this status, after the login of these challenges."""
        if not challenges:
            return f"got {status}, the registry refuses access, and its /v2/ requires no login, so nodes send none"
        if self.authorization is None:
            return "the registry refuses access and offers no known way to log in"
        if self.sent_password and self._credential() is None:
            return "the registry requires a login, and no credentials match it"
        return f"got {status}, the registry refuses access"

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
        whole = credential and credential.username and credential.password  # else a node requests an anonymous token
        headers = {"Authorization": _basic(credential)} if credential and whole else {}
        separator = "&" if "?" in realm else "?"
        return self._request_token("GET", f"{realm}{separator}{urlencode(query)}", headers, None, subject)


_ANONYMOUS = Credential("", "")


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
