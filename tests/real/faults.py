"""A registry that fails on purpose: it speaks the distribution protocol over HTTP until a Fault says otherwise."""

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
    """What goes wrong with requests whose path contains `path`: MANIFESTS, BLOBS, a digest or a tag."""

    path: str
    times: int | None = None
    """How many requests it spoils before all is well; None is all of them."""
    status: int = 0
    """Answer this error, with `headers` such as Retry-After."""
    headers: Mapping[str, str] = field(default_factory=dict)
    hang_s: float = 0
    """Silence before the answer; FOREVER_S for a server that never answers."""
    until: threading.Event | None = None
    """Silence before the answer until this is set, so that a test acts while a client waits, however slow either is."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body, though Content-Length promised all."""
    bytes_per_s: int = 0
    """Let the body drip."""
    endless: bool = False
    """No Content-Length, and zeros without end after the true bytes."""
    wrong_bytes: bool = False
    """As many bytes as expected, with another digest; a manifest stays readable JSON."""
    wrong_digest: bool = False
    """True bytes under a Docker-Content-Digest that is not theirs."""
    redirect_to: str = ""
    """Answer 307 to the same path below this address, as registries do that keep blobs in object storage."""


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; headers.get() ignores case, get_all("Accept") tells repeated ones."""

    method: str
    path: str
    headers: Message[str, str]
    port: int = 0
    """The client's own, by which its process can be found."""


class FaultyRegistry(LocalServer):
    """Serves images, given as {"repository:tag": image}, also by digest; use it in a `with`, or call start and stop."""

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
        self.tell(*faults)

    def tell(self, *faults: Fault) -> None:
        """Have these faults from now on and no others; of two that fit a request the first counts, while it lasts."""
        with self._guard:
            self._faults = [[fault, fault.times] for fault in faults]

    def requests(self) -> list[Seen]:
        """Everything that arrived, oldest first."""
        with self._guard:
            return list(self._seen)

    def forget(self) -> None:
        """Start counting anew."""
        with self._guard:
            self._seen.clear()

    def record(self, seen: Seen) -> None:
        """Note a request, before anything is done with it."""
        with self._guard:
            self._seen.append(seen)

    def admits(self, seen: Seen) -> bool:
        """Whether the password is right or not asked for."""
        return self._basic is None or seen.headers.get("Authorization") == self._basic

    def fault(self, path: str) -> Fault:
        """The fault for this request, which is one time less from then on."""
        with self._guard:
            for entry in self._faults:
                fault, left = entry
                assert isinstance(fault, Fault)
                if fault.path in path and left != 0:
                    entry[1] = left - 1 if isinstance(left, int) else None
                    return fault
        return Fault("")


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of manifests and blobs."""

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
        if self._silent(fault):
            self.close_connection = True
        elif fault.status:
            self._refuse(fault.status, fault.headers)
        elif fault.redirect_to:
            where = fault.redirect_to + self.path
            self._start(HTTPStatus.TEMPORARY_REDIRECT, {"Location": where, "Content-Length": "0"})
        elif blob := self._owner.content.get(self.path):
            self._give(blob, fault)
        elif self.path == "/v2/":
            self._start(HTTPStatus.OK, {"Content-Length": "0"})
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""

    def _silent(self, fault: Fault) -> bool:
        """Keeps the silence of the fault; whether the server closes meanwhile."""
        if fault.hang_s and self._owner.closing.wait(fault.hang_s):
            return True
        while fault.until and not fault.until.wait(_TICK_S):
            if self._owner.closing.is_set():
                return True
        return False

    def _give(self, blob: Blob, fault: Fault) -> None:
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
        """Which bytes the Range header gets; only the forms bytes=A- and bytes=A-B are known."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or self._owner.ranges == "ignored":
            return HTTPStatus.OK, range(size)
        first, last = int(asked[1]), int(asked[2] or size - 1)
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
    """Where each manifest and blob is served."""
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
    """As long as data but different: a space of our JSON becomes a tab, of other bytes the last one flips."""
    tabbed = data.replace(b'": ', b'":\t', 1)
    return tabbed if tabbed != data else data[:-1] + bytes([data[-1] ^ 1])
