"""A forward proxy for tests. It opens tunnels, can require a login, and records the tunnels."""

from __future__ import annotations

import base64
import select
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from .server import LocalServer

if TYPE_CHECKING:
    from .authority import Authority

_TICK_S = 0.05
_PIECE = 1 << 16


class ForwardProxy(LocalServer):
    """A proxy for CONNECT tunnels, with TLS if it has an authority. Use it in a `with`."""

    def __init__(
        self,
        login: tuple[str, str] | None = None,
        authority: Authority | None = None,
        places: Mapping[str, str] | None = None,
    ) -> None:
        """places maps host:port to the real address, for names that no DNS resolves."""
        super().__init__(partial(_Handler, self), authority.server_context() if authority else None)
        self.places = dict(places or {})
        self._basic = "Basic " + base64.b64encode(":".join(login).encode()).decode() if login else None
        self._asked: list[str] = []

    @property
    def asked(self) -> list[str]:
        """host:port of every requested tunnel, refused tunnels included."""
        return list(self._asked)

    def forget(self) -> None:
        """Forget all tunnels."""
        self._asked.clear()

    def admit(self, place: str, authorization: str | None) -> bool:
        """Record the tunnel. Return True if the login is right, or if no login is required."""
        self._asked.append(place)
        return self._basic is None or authorization == self._basic


class _Handler(BaseHTTPRequestHandler):
    """The handler of a client."""

    protocol_version = "HTTP/1.1"

    def __init__(self, owner: ForwardProxy, *request: Any) -> None:
        self._owner = owner
        super().__init__(*request)

    def do_CONNECT(self) -> None:
        self.close_connection = True
        if not self._owner.admit(self.path, self.headers.get("Proxy-Authorization")):
            self._answer(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
            return
        host, _, port = self._owner.places.get(self.path, self.path).rpartition(":")
        try:
            server = socket.create_connection((host, int(port)), timeout=10)
        except OSError:
            self._answer(HTTPStatus.BAD_GATEWAY)
            return
        with closing(server):
            self.send_response(HTTPStatus.OK)
            self.end_headers()
            self._forward(server)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _answer(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _forward(self, server: socket.socket) -> None:
        """Forward bytes in both directions until one side ends."""
        ends = {self.connection: server, server: self.connection}
        while not self._owner.closing.is_set():
            # select does not report bytes that TLS has already decrypted.
            waiting = [self.connection] if _pending(self.connection) else select.select(list(ends), [], [], _TICK_S)[0]
            for end in waiting:
                piece = end.recv(_PIECE)
                if not piece:
                    return
                ends[end].sendall(piece)


def _pending(connection: socket.socket) -> bool:
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
