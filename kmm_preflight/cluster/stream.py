"""Run a command in a Pod and read its output, over a websocket of the API server."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlsplit

import websocket

from kmm_preflight.errors import BoundExceeded, Malformed, Unreachable

SECONDS = 30.0
TROUBLE = (websocket.WebSocketException, OSError)
"""Errors of a connection that cannot be opened, or breaks."""

# Kubernetes' stream protocols over a websocket: the first byte of a message is its channel.
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
# Channel 1 is standard output, 2 is standard error, 3 is the status at the end.
_STDERR_SHOWN = 500


class ClientConfiguration(Protocol):
    """Settings of the kubernetes client that a websocket needs. The library does not type them."""

    verify_ssl: object
    ssl_ca_cert: object
    cert_file: object
    key_file: object
    tls_server_name: object
    assert_hostname: object
    proxy: object
    no_proxy: object


class StreamRefused(Exception):
    """The server answered with an HTTP status instead of a stream."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status, self.body = status, body


@dataclass(frozen=True)
class Stream:
    """A command in a Pod that is not run yet."""

    url: str
    """The URL of the websocket, with http instead of ws."""
    login: tuple[str, ...]
    """HTTP headers with the login."""
    configuration: ClientConfiguration
    """TLS and proxy settings."""
    subject: str
    """The start of messages."""

    def output(self, most: int) -> Iterator[bytes]:
        """Run the command. Yield pieces of its standard output. Raise TROUBLE or StreamRefused too."""
        stream = self._open()
        try:
            yield from _limited(_stdout(stream, self.subject), most, self.subject)
        finally:
            stream.close()

    def _open(self) -> websocket.WebSocket:
        stream = websocket.WebSocket(sslopt=_trust(self.configuration))
        try:
            # The kubernetes library would wait without a limit for a server that does not answer.
            stream.connect(  # type: ignore[no-untyped-call]  # nor does the library type it
                f"ws{self.url.removeprefix('http')}",
                header=list(self.login),
                subprotocols=list(_PROTOCOLS),
                timeout=SECONDS,
                **_proxy(self.configuration),
            )
        except websocket.WebSocketBadStatusException as exc:
            raise StreamRefused(exc.status_code, exc.resp_body or b"") from exc
        return stream


def _trust(configuration: ClientConfiguration) -> dict[str, object]:
    """Return the TLS options of the websocket client."""
    options = {
        "ca_certs": configuration.ssl_ca_cert,
        "certfile": configuration.cert_file,
        "keyfile": configuration.key_file,
        "server_hostname": configuration.tls_server_name,
    }
    return {
        "cert_reqs": ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE,
        "check_hostname": bool(configuration.verify_ssl) and configuration.assert_hostname is not False,
        **{name: value for name, value in options.items() if value},
    }


def _proxy(configuration: ClientConfiguration) -> dict[str, object]:
    """Return the proxy options of the websocket client. It must ignore the environment: the proxy is chosen already."""
    if not configuration.proxy:
        return {"http_no_proxy": ["*"]}
    proxy = urlsplit(str(configuration.proxy))
    options: dict[str, object] = {
        "http_proxy_host": proxy.hostname,
        "http_proxy_port": proxy.port,
        "http_no_proxy": str(configuration.no_proxy or "-").split(","),
    }
    login = {"http_proxy_auth": (unquote(proxy.username), unquote(proxy.password or ""))} if proxy.username else {}
    return {**options, **login}


def _stdout(stream: websocket.WebSocket, subject: str) -> Iterator[bytes]:
    """Yield the pieces of standard output. Raise Malformed if the command failed, Unreachable without its status."""
    stderr = b""
    while True:
        opcode, data = stream.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE or not data:
            raise Unreachable(f"{subject}: the connection ended before the command did; run again")
        match data[0]:
            case _ if len(data) == 1:
                continue  # the first message of a channel is empty
            case 1:
                yield data[1:]
            case 2:
                stderr = (stderr + data[1:])[-_STDERR_SHOWN:]
            case 3:
                _check_success(data[1:], stderr, subject)
                return


def _check_success(status: bytes, stderr: bytes, subject: str) -> None:
    """Raise Malformed unless the Status object at the end of the stream says that the command succeeded."""
    try:
        answer = json.loads(status)
    except ValueError:
        answer = None
    if not isinstance(answer, Mapping) or answer.get("status") != "Success":
        lines = stderr.decode(errors="replace").strip()
        raise Malformed(f"{subject}: the command failed: {message_of(status)}{f' ({lines})' if lines else ''}")


def _limited(pieces: Iterator[bytes], most: int, subject: str) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise BoundExceeded(f"{subject}: more than {most} bytes")
        yield piece


def message_of(text: bytes) -> str:
    """Return the message of a Status object."""
    try:
        status = json.loads(text)
    except ValueError:
        return "no message"
    return str(status.get("message") or "no message") if isinstance(status, Mapping) else "no message"
