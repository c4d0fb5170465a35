"""A threaded HTTP server for tests, on a free port of loopback. Its end closes all its connections and threads."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Handler = Callable[[Any, Any, Any], BaseHTTPRequestHandler]


class LocalServer:
    """A server with a handler, from start() to stop(). A second start uses the same port."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._tls = tls
        self._port = 0
        self._running: tuple[_Listener, threading.Thread] | None = None
        self.closing = threading.Event()

    @property
    def host(self) -> str:
        """127.0.0.1:PORT, the host of image references."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """The address with its scheme, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://{self.host}"

    def start(self) -> None:
        """Listen. The system chooses the port of the first start."""
        self.closing.clear()
        listener = _Listener(self._port, self._handler, self._tls)
        self._port = listener.server_port
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), name=f"server {self.host}")
        thread.start()
        self._running = listener, thread

    def stop(self) -> None:
        """Close all connections and wait for all threads. A handler that sleeps must wait for `closing`."""
        if self._running is None:
            return
        (listener, thread), self._running = self._running, None
        self.closing.set()
        listener.shutdown()
        thread.join()
        listener.cut_all()
        listener.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class _Listener(ThreadingHTTPServer):
    """A listener that knows its open connections: a connection in a client's pool would keep its thread for ever."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, port: int, handler: Handler, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection. The handler's thread does the TLS handshake, so a slow client blocks no other client."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._guard:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that has ended."""
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def cut_all(self) -> None:
        """Close all open connections, so that handlers stop waiting for a next request."""
        with self._guard:
            waiting = list(self._open)
        for connection in waiting:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up or refuse the certificate: tests do both on purpose."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
