"""A token server as in the distribution specification: it returns bearer tokens for a password."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .server import LocalServer

if TYPE_CHECKING:
    from .authority import Authority

ISSUER = "preflight-tests"
SERVICE = "preflight-registry"
LIFETIME_S = 300
PUBLIC = "public/"


@dataclass(frozen=True)
class Grant:
    """An answered request for a token."""

    user: str
    """The user; empty for a request without login, "?" for a wrong password."""
    scopes: tuple[str, ...]
    """The requested scopes."""
    status: int
    """The status of the answer."""


class TokenServer(LocalServer):
    """A token server with one user. Without a login, only repositories below public/ can be pulled."""

    def __init__(self, authority: Authority, user: str, password: str) -> None:
        super().__init__(partial(_Handler, self), authority.server_context())
        key = serialization.load_pem_private_key(authority.server_key.read_bytes(), password=None)
        assert isinstance(key, rsa.RSAPrivateKey)
        self._key = key
        certificate = x509.load_pem_x509_certificate(authority.server_cert.read_bytes())
        self._x5c = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        self._basic = _basic(user, password)
        self._user = user
        self.grants: list[Grant] = []

    def answer(self, authorization: str | None, scopes: tuple[str, ...]) -> tuple[int, dict[str, object]]:
        """Return status and body. Refuse a wrong password. Without a password, grant pulls of public repositories."""
        if authorization not in (None, self._basic):
            self.grants.append(Grant("?", scopes, HTTPStatus.UNAUTHORIZED))
            return HTTPStatus.UNAUTHORIZED, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong user or password"}]}
        user = self._user if authorization else ""
        self.grants.append(Grant(user, scopes, HTTPStatus.OK))
        token = self._token(user, [entry for scope in scopes for entry in _access(scope, bool(user))])
        return HTTPStatus.OK, {"token": token, "access_token": token, "expires_in": LIFETIME_S}

    def _token(self, user: str, access: list[dict[str, object]]) -> str:
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self._x5c]}
        times = {"nbf": now - 10, "iat": now, "exp": now + LIFETIME_S}
        claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "access": access, **times}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64url(signature)}"


class _Handler(BaseHTTPRequestHandler):
    """The handler of GET /token?service=…&scope=…. skopeo repeats `scope`; other clients separate scopes by spaces."""

    protocol_version = "HTTP/1.1"

    def __init__(self, owner: TokenServer, *request: Any) -> None:
        self._owner = owner
        super().__init__(*request)

    def do_GET(self) -> None:
        parameters = parse_qs(urlsplit(self.path).query).get("scope", [])
        scopes = tuple(scope for parameter in parameters for scope in parameter.split())
        status, body = self._owner.answer(self.headers.get("Authorization"), scopes)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: grants are the log."""


def _access(scope: str, known: bool) -> list[dict[str, object]]:
    """Return the claim for a scope such as repository:team/kmod:pull,push, empty if a required login is missing."""
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    granted = actions.split(",")
    if not known:
        granted = [action for action in granted if action == "pull" and name.startswith(PUBLIC)]
    return [{"type": kind, "name": name, "actions": granted}] if granted else []


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
