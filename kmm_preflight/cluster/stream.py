"""What a command prints that is run in a Pod, over the websocket by which the API server hands it on."""

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
"""What a connection raises that cannot be made, or breaks."""

# Kubernetes' protocol of streams in a websocket: the first byte of a message names its channel.
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
# 1 is what the command prints, 2 what it complains, 3 how it ended.
_STDERR_SHOWN = 500


class ClientConfiguration(Protocol):
    """What the kubernetes client knows of a server, as far as a websocket needs it; it types none of it."""

    verify_ssl: object
    ssl_ca_cert: object
    cert_file: object
    key_file: object
    tls_server_name: object
    assert_hostname: object
    proxy: object
    no_proxy: object


class StreamRefused(Exception):
    """The server answered otherwise than by a stream."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status, self.body = status, body


@dataclass(frozen=True)
class Stream:
    """A command of a Pod that is not run yet: its address, the headers of the login, and words for messages."""

    url: str
    login: tuple[str, ...]
    configuration: ClientConfiguration
    subject: str

    def output(self, most: int) -> Iterator[bytes]:
        """Runs the command and gives what it prints, in pieces; raises TROUBLE or StreamRefused too."""
        stream = self._open()
        try:
            yield from _bounded(_stdout(stream, self.subject), most, self.subject)
        finally:
            stream.close()

    def _open(self) -> websocket.WebSocket:
        stream = websocket.WebSocket(sslopt=_trust(self.configuration))
        try:
            # By the library's own way a server that does not answer would be waited for without an end.
            stream.connect(  # type: ignore[no-untyped-call]  # nor does the library type it
                f"ws{self.url.removeprefix('http')}",
                header=list(self.login),
                subprotocols=list(_PROTOCOLS),
                timeout=SECONDS,
                **_way(self.configuration),
            )
        except websocket.WebSocketBadStatusException as exc:
            raise StreamRefused(exc.status_code, exc.resp_body or b"") from exc
        return stream


def _trust(configuration: ClientConfiguration) -> dict[str, object]:
    """The configuration's trust and certificate, as the websocket client takes them."""
    required = ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE
    given = {
        "ca_certs": configuration.ssl_ca_cert,
        "certfile": configuration.cert_file,
        "keyfile": configuration.key_file,
        "server_hostname": configuration.tls_server_name,
    }
    return {
        "cert_reqs": required,
        "check_hostname": bool(configuration.verify_ssl) and configuration.assert_hostname is not False,
        **{name: value for name, value in given.items() if value},
    }


def _way(configuration: ClientConfiguration) -> dict[str, object]:
    """The configuration's proxy, and that of no environment: the client has chosen."""
    if not configuration.proxy:
        return {"http_no_proxy": ["*"]}
    proxy = urlsplit(str(configuration.proxy))
    way: dict[str, object] = {
        "http_proxy_host": proxy.hostname,
        "http_proxy_port": proxy.port,
        "http_no_proxy": str(configuration.no_proxy or "-").split(","),
    }
    login = {"http_proxy_auth": (unquote(proxy.username), unquote(proxy.password or ""))} if proxy.username else {}
    return {**way, **login}


def _stdout(stream: websocket.WebSocket, subject: str) -> Iterator[bytes]:
    """The pieces of a command's output; Malformed when it ended badly, Unreachable when nobody tells how it ended."""
    complaint = b""
    while True:
        opcode, data = stream.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE or not data:
            raise Unreachable(f"{subject}: the connection ended before the command did; run again")
        match data[0]:
            case _ if len(data) == 1:
                continue  # a channel's first message, which is empty
            case 1:
                yield data[1:]
            case 2:
                complaint = (complaint + data[1:])[-_STDERR_SHOWN:]
            case 3:
                _expect_success(data[1:], complaint, subject)
                return


def _expect_success(status: bytes, complaint: bytes, subject: str) -> None:
    """Of the command, by the Status object that is told at its end."""
    try:
        told = json.loads(status)
    except ValueError:
        told = None
    if not isinstance(told, Mapping) or told.get("status") != "Success":
        said = complaint.decode(errors="replace").strip()
        raise Malformed(f"{subject}: got {words_of(status)}{f' ({said})' if said else ''}, expected success")


def _bounded(pieces: Iterator[bytes], most: int, subject: str) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise BoundExceeded(f"{subject}: got more than {most} bytes")
        yield piece


def words_of(text: bytes) -> str:
    """What a Status object says that tells of a refusal or of a command's end."""
    try:
        told = json.loads(text)
    except ValueError:
        return "no words"
    return str(told.get("message") or "no words") if isinstance(told, Mapping) else "no words"
