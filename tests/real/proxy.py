"""A forward proxy as a part of a test: it opens tunnels, asks for a login where one is given, and keeps count."""

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
    """Tunnels by CONNECT, under TLS where it has an authority; use it in a `with`.

    places says where a host:port really is, for names that nobody else can resolve.
    """

    def __init__(
        self,
        login: tuple[str, str] | None = None,
        authority: Authority | None = None,
        places: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(partial(_Handler, self), authority.server_context() if authority else None)
        self.places = dict(places or {})
        self._basic = "Basic " + base64.b64encode(":".join(login).encode()).decode() if login else None
        self._asked: list[str] = []

    @property
    def asked(self) -> list[str]:
        """host:port of every tunnel that was asked for, refused ones too."""
        return list(self._asked)

    def forget(self) -> None:
        """Start counting anew."""
        self._asked.clear()

    def admit(self, place: str, authorization: str | None) -> bool:
        """Note what is asked; whether the login is right or not asked for."""
        self._asked.append(place)
        return self._basic is None or authorization == self._basic


class _Handler(BaseHTTPRequestHandler):
    """One client."""

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
            self._pass_on(server)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""

    def _answer(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _pass_on(self, server: socket.socket) -> None:
        """Both ways, until one side ends."""
        ends = {self.connection: server, server: self.connection}
        while not self._owner.closing.is_set():
            # What TLS has decrypted already is nothing that select would tell.
            waiting = [self.connection] if _pending(self.connection) else select.select(list(ends), [], [], _TICK_S)[0]
            for end in waiting:
                piece = end.recv(_PIECE)
                if not piece:
                    return
                ends[end].sendall(piece)


def _pending(connection: socket.socket) -> bool:
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
