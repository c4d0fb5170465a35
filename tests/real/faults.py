"""A registry that fails on purpose: it serves the distribution protocol, except for requests that have a Fault."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Literal

from .server import LocalServer

if TYPE_CHECKING:
    from .authority import Authority
    from .layout import Blob, Image

MANIFESTS = "/manifests/"
BLOBS = "/blobs/"
FOREVER_S = 3600.0
_TICK_S = 0.05
_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}


@dataclass(frozen=True)
class Fault:
    """A fault of some requests."""

    path: str
    """A part of the path of these requests: MANIFESTS, BLOBS, a digest or a tag."""
    times: int | None = None
    """The number of requests that fail before they succeed; None: all fail."""
    status: int = 0
    """The status of the answer; 0: the usual status."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of an answer with this status, such as Retry-After."""
    hang_s: float = 0
    """Seconds before the answer; FOREVER_S for a server that never answers."""
    until: threading.Event | None = None
    """The answer waits until this event is set. A test can act while the client waits, at any speed."""
    cut_after: int | None = None
    """Close the connection after this many bytes of the body, although Content-Length is the whole size."""
    bytes_per_s: int = 0
    """The rate of the body; 0: no limit."""
    endless: bool = False
    """Send no Content-Length, and endless zeros after the true bytes."""
    wrong_bytes: bool = False
    """Send other bytes of the same length; a manifest stays valid JSON."""
    wrong_digest: bool = False
    """Send the true bytes with a wrong Docker-Content-Digest."""
    redirect_to: str = ""
    """Redirect (307) to the same path below this address, as registries with object storage do."""


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    method: str
    """The HTTP method."""
    path: str
    """The path with the query."""
    headers: Message[str, str]
    """The headers. get() ignores case; get_all("Accept") returns repeated headers."""
    port: int = 0
    """The port of the client, to find its process."""


class FaultyRegistry(LocalServer):
    """A registry of images, by tag ("repository:tag") and by digest. Use it in a `with`, or call start and stop."""

    def __init__(
        self,
        images: Mapping[str, Image],
        *faults: Fault,
        ranges: Literal["honoured", "ignored", "refused"] = "honoured",
        login: tuple[str, str] | None = None,
        authority: Authority | None = None,
    ) -> None:
        super().__init__(partial(_Handler, self), authority.server_context() if authority else None)
        self.ranges = ranges
        self.content = dict(_paths(images))
        self._basic = "Basic " + base64.b64encode(":".join(login).encode()).decode() if login else None
        self._guard = threading.Lock()
        self._seen: list[Seen] = []
        self.set_faults(*faults)

    def set_faults(self, *faults: Fault) -> None:
        """Replace all faults. If several match a request, the first one that is not used up counts."""
        with self._guard:
            self._faults = [[fault, fault.times] for fault in faults]

    def requests(self) -> list[Seen]:
        """Return all requests that arrived, oldest first."""
        with self._guard:
            return list(self._seen)

    def forget(self) -> None:
        """Forget all requests."""
        with self._guard:
            self._seen.clear()

    def record(self, seen: Seen) -> None:
        """Record a request before its answer."""
        with self._guard:
            self._seen.append(seen)

    def admits(self, seen: Seen) -> bool:
        """True if the password is right, or if no password is required."""
        return self._basic is None or seen.headers.get("Authorization") == self._basic

    def challenge(self) -> str | None:
        """Return the challenge of the first fault that has one: a registry has the same challenge at /v2/."""
        with self._guard:
            headers = [fault.headers for fault, _ in self._faults if isinstance(fault, Fault)]
        return next((value for header in headers if (value := header.get("WWW-Authenticate"))), None)

    def fault(self, path: str) -> Fault:
        """Return the fault for this request, and count its use. Without a fault, return an empty one."""
        with self._guard:
            for entry in self._faults:
                fault, left = entry
                assert isinstance(fault, Fault)
                if fault.path in path and left != 0:
                    entry[1] = left - 1 if isinstance(left, int) else None
                    return fault
        return Fault("")


class _Handler(BaseHTTPRequestHandler):
    """The handler of GET and HEAD requests."""

    protocol_version = "HTTP/1.1"

    def __init__(self, owner: FaultyRegistry, *request: Any) -> None:
        self._owner = owner
        super().__init__(*request)

    def do_GET(self) -> None:
        seen = Seen(self.command, self.path, self.headers, self.client_address[1])
        self._owner.record(seen)
        if not self._owner.admits(seen):
            self._refuse(HTTPStatus.UNAUTHORIZED)
            return
        fault = self._owner.fault(self.path)
        if self._wait(fault):
            self.close_connection = True
        elif fault.status and (self.path != "/v2/" or fault.path == "/v2/"):
            self._refuse(fault.status, fault.headers)
        elif fault.redirect_to:
            where = fault.redirect_to + self.path
            self._start(HTTPStatus.TEMPORARY_REDIRECT, {"Location": where, "Content-Length": "0"})
        elif blob := self._owner.content.get(self.path):
            self._send(blob, fault)
        elif self.path == "/v2/":
            self._ping()
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def _ping(self) -> None:
        """Answer as a registry does that challenges all requests, or none."""
        if challenge := self._owner.challenge():
            self._refuse(HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": challenge})
        else:
            self._start(HTTPStatus.OK, {"Content-Length": "0"})

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _wait(self, fault: Fault) -> bool:
        """Wait as long as the fault says. Return True if the server closes meanwhile."""
        if fault.hang_s and self._owner.closing.wait(fault.hang_s):
            return True
        while fault.until and not fault.until.wait(_TICK_S):
            if self._owner.closing.is_set():
                return True
        return False

    def _send(self, blob: Blob, fault: Fault) -> None:
        data = _altered(blob.data) if fault.wrong_bytes else blob.data
        digest = "sha256:" + "0" * 64 if fault.wrong_digest else blob.digest
        headers = {"Content-Type": blob.media_type, "Docker-Content-Digest": digest}
        status, span = self._span(len(data))
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._refuse(status)
            return
        if status == HTTPStatus.PARTIAL_CONTENT:
            headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{len(data)}"
        headers |= {"Connection": "close"} if fault.endless else {"Content-Length": str(len(span))}
        self._start(status, headers)
        if self.command != "HEAD":
            self._body(data[span.start : span.stop], fault)

    def _span(self, size: int) -> tuple[HTTPStatus, range]:
        """Return status and bytes for the Range header. Only the forms bytes=A- and bytes=A-B are supported."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None or self._owner.ranges == "ignored":
            return HTTPStatus.OK, range(size)
        first, last = int(match[1]), int(match[2] or size - 1)
        if first >= size or self._owner.ranges == "refused":
            return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, range(0)
        return HTTPStatus.PARTIAL_CONTENT, range(first, min(last + 1, size))

    def _body(self, data: bytes, fault: Fault) -> None:
        if fault.cut_after is not None:
            data = data[: fault.cut_after]
            self.close_connection = True
        step = max(1, int(fault.bytes_per_s * _TICK_S)) if fault.bytes_per_s else len(data) or 1
        for start in range(0, len(data), step):
            self.wfile.write(data[start : start + step])
            if fault.bytes_per_s and self._owner.closing.wait(_TICK_S):
                self.close_connection = True
                return
        while fault.endless and not self._owner.closing.is_set():
            self.wfile.write(bytes(65536))

    def _refuse(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        error = {"code": _CODES.get(status, "UNKNOWN"), "message": "as the test wants it"}
        body = json.dumps({"errors": [error]}).encode()
        challenge = {"WWW-Authenticate": 'Basic realm="faults"'} if status == HTTPStatus.UNAUTHORIZED else {}
        length = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self._start(status, {**challenge, **length, **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _paths(images: Mapping[str, Image]) -> Iterator[tuple[str, Blob]]:
    """Yield the path of each manifest and blob."""
    for name, image in images.items():
        repository, _, tag = name.rpartition(":")
        yield f"/v2/{repository}{MANIFESTS}{tag}", image.manifest
        yield from _below(f"/v2/{repository}", image)


def _below(repository: str, image: Image) -> Iterator[tuple[str, Blob]]:
    yield f"{repository}{MANIFESTS}{image.digest}", image.manifest
    for blob in image.blobs:
        yield f"{repository}{BLOBS}{blob.digest}", blob
    for child in image.children:
        yield from _below(repository, child)


def _altered(data: bytes) -> bytes:
    """Return other bytes of the same length. In JSON, a space becomes a tab; in other data, the last byte changes."""
    tabbed = data.replace(b'": ', b'":\t', 1)
    return tabbed if tabbed != data else data[:-1] + bytes([data[-1] ^ 1])
