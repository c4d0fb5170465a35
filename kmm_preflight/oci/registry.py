"""One repository of a registry, over HTTP: the distribution protocol with its logins, retries and refusals.

urllib3's errors become ours here and in connections.py, once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from kmm_preflight.errors import (
    AccessDenied,
    AccessUndecided,
    BoundExceeded,
    DigestMismatch,
    Malformed,
    NotFound,
    Truncated,
    Unreachable,
    Untrusted,
)
from kmm_preflight.model import RegistryTLS
from kmm_preflight.oci.auth import Keychain
from kmm_preflight.oci.auth_session import Login
from kmm_preflight.oci.connections import BUSY, Connections, trouble
from kmm_preflight.oci.credentials import candidates
from kmm_preflight.oci.document import MANIFEST_BYTES, MANIFEST_TYPES, Descriptor, digest_of
from kmm_preflight.oci.reference import Reference, on_loopback, parse_digest

_PIECE = 1 << 18
_NO_SUCH_RANGE = 416
_HUB = "registry-1.docker.io"


class RegistryRepository:
    """See Repository. Logs in as the registry asks, with one after the other of what the keychains have for this path.

    authority is PEM of a CA that is trusted for this registry beside all others.
    """

    def __init__(
        self,
        reference: Reference,
        keychains: Iterable[Keychain],
        tls: RegistryTLS,
        connections: Connections,
        authority: str = "",
    ) -> None:
        self._host = reference.host
        self._repository = reference.repository
        keychains = tuple(keychains)
        self._stand_in = any(keychain.stand_in for keychain in keychains)
        logins = candidates(keychains, reference.host, reference.repository)
        self._login = Login(logins, reference.repository, self._ask_token_server)
        self._tls = tls
        self._scheme = "https"
        self._answered = False
        self._server = _HUB if reference.host == "docker.io" else reference.host
        self._pool = connections.pool(self._server, tls, authority)
        self._patience = connections.patience

    def manifest(self, reference: str) -> bytes:
        """See Repository."""
        subject = f"image {self._host}/{self._repository}{'@' if ':' in reference else ':'}{reference}"
        for attempt in range(self._patience.resumes + 1):
            try:
                return self._manifest(reference, subject)
            except Truncated:
                if attempt == self._patience.resumes:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _manifest(self, reference: str, subject: str) -> bytes:
        path = f"/v2/{self._repository}/manifests/{reference}"
        with self._answer("GET", path, subject, {"Accept": ", ".join(MANIFEST_TYPES)}) as response:
            body = self._whole(response, subject)
        if ":" not in reference:  # what is asked for by digest is checked against that, by who asked
            _check_named(body, response, subject)
        return body

    def _whole(self, response: urllib3.BaseHTTPResponse, subject: str) -> bytes:
        """A body that is to be a small document."""
        body, start = bytearray(), time.monotonic()
        try:
            while piece := response.read1(_PIECE):
                body += piece
                self._check_rate(len(body), start, subject)
                if len(body) > MANIFEST_BYTES:
                    raise BoundExceeded(f"{subject}: a document of more than {MANIFEST_BYTES} bytes")
        except (HTTPError, OSError) as exc:
            raise trouble(exc, self._host, subject) from exc
        return bytes(body)

    def has_blob(self, digest: str) -> bool:
        """See Repository."""
        try:
            with self._answer("HEAD", self._blob(digest), self._blob_subject(digest), {}):
                return True
        except NotFound:
            return False

    @contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """See Repository. A body that breaks off is taken up again where it stopped."""
        yield self._pieces(descriptor)

    def _blob(self, digest: str) -> str:
        return f"/v2/{self._repository}/blobs/{digest}"

    def _blob_subject(self, digest: str) -> str:
        return f"blob {digest} of {self._host}/{self._repository}"

    def _pieces(self, descriptor: Descriptor) -> Iterator[bytes]:
        subject, got, start, ranges = self._blob_subject(descriptor.digest), 0, time.monotonic(), True
        for attempt in range(self._patience.resumes + 1):
            if attempt > 1:
                time.sleep(self._patience.backoff_seconds * attempt)
            headers = {"Range": f"bytes={got}-"} if got and ranges else {}
            with self._answer("GET", self._blob(descriptor.digest), subject, headers) as response:
                ranges = response.status != _NO_SUCH_RANGE
                skip = 0 if response.status == 206 else got
                try:
                    while ranges and (piece := _next_piece(response)):
                        new, skip = piece[skip:], max(0, skip - len(piece))
                        got += len(new)
                        self._check_rate(got, start, subject)
                        if new:
                            yield new
                except (HTTPError, OSError) as exc:
                    if attempt == self._patience.resumes:
                        raise trouble(exc, self._host, subject) from exc
                    continue
            if got >= descriptor.size:
                return

    def _check_rate(self, got: int, start: float, subject: str) -> None:
        seconds = time.monotonic() - start
        if seconds > self._patience.grace_seconds + got / self._patience.bytes_per_second:
            raise Unreachable(f"{subject}: only {got} bytes in {seconds:.0f} s")

    @contextmanager
    def _answer(
        self, method: str, path: str, subject: str, headers: Mapping[str, str]
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """A 2xx answer, after login where asked for; every other one as an error of ours."""
        response = self._accepted(method, path, subject, headers)
        try:
            if not ("Range" in headers and response.status == _NO_SUCH_RANGE):
                _check_status(response.status, subject)
            yield response
        finally:
            if method == "HEAD":
                response.drain_conn()
            response.close()  # a connection whose body was read to its end is back in the pool already

    def _accepted(self, method: str, path: str, subject: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """An answer to the first login that is not refused; AccessDenied, or AccessUndecided, as the last one was."""
        while True:
            try:
                response = self._logged_in(method, path, subject, headers)
                if response.status not in (401, 403):
                    return response
                response.drain_conn()
                _check_status(response.status, subject)
            except AccessDenied as exc:
                if self._login.another():
                    continue
                if self._stand_in:
                    raise AccessUndecided(exc.message) from exc
                raise

    def _logged_in(self, method: str, path: str, subject: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        response = self._send(method, path, subject, headers)
        if response.status != 401 or self._login.spent:
            return response
        challenge = response.headers.get("WWW-Authenticate", "")
        response.drain_conn()
        self._login.log_in(challenge, f"{self._scheme}://{self._server}/", subject)
        return self._send(method, path, subject, headers)

    def _send(self, method: str, path: str, subject: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """One request, first by HTTPS; plain HTTP only where the Module or a loopback address allows it."""
        sent = dict(headers)
        if self._login.authorization:
            sent["Authorization"] = self._login.authorization
        try:
            response = self._request(method, f"{self._scheme}://{self._server}{path}", sent)
        except HTTPError as exc:
            cause = trouble(exc, self._host, subject)
            if not self._may_be_plain() or isinstance(cause, Untrusted):
                raise cause from exc
            self._scheme = "http"
            return self._send(method, path, subject, headers)
        self._answered = True
        return response

    def _may_be_plain(self) -> bool:
        # What has answered by HTTPS once is not asked otherwise: the login would go in the open.
        if self._scheme == "http" or self._answered:
            return False
        return self._tls.insecure or on_loopback(self._host)

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(method, url, headers=dict(headers), body=body, preload_content=False)
        except ValueError as exc:  # the address that a redirect or a login names
            if isinstance(exc, HTTPError):
                raise
            raise HTTPError(f"an address that is none: {exc}") from exc

    def _ask_token_server(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, subject: str
    ) -> tuple[int, bytes]:
        """See login.Ask."""
        try:
            response = self._request(method, url, headers, body)
        except HTTPError as exc:
            raise trouble(exc, urlsplit(url).netloc, subject) from exc
        answer = self._whole(response, f"token for {subject}") if 200 <= response.status < 300 else b""
        return response.status, answer


def _check_status(status: int, subject: str) -> None:
    if 200 <= status < 300:
        return
    if status == 404:
        raise NotFound(f"{subject}: got 404, the registry does not have it")
    if status in (401, 403):
        raise AccessDenied(f"{subject}: got {status}, the registry refuses access")
    if status in BUSY:
        raise Unreachable(f"{subject}: got {status} from the registry, each time it was asked")
    raise Unreachable(f"{subject}: got status {status} from the registry, expected 200")


def _next_piece(response: urllib3.BaseHTTPResponse) -> bytes:
    """What has arrived: read() would wait for a whole piece, however slowly it drips.

    As it came, too: a Content-Encoding that was not asked for is a server's mistake about .tar.gz.
    """
    return response.read1(_PIECE, decode_content=False)


def _check_named(body: bytes, response: urllib3.BaseHTTPResponse, subject: str) -> None:
    """What came for a tag, against what the registry says that it sent: a proxy's page is nobody's manifest."""
    named = response.headers.get("Docker-Content-Digest", "")
    try:
        expected = parse_digest(named)
    except Malformed:
        kind = response.headers.get("Content-Type", "")
        if kind.startswith("text/html"):
            raise Unreachable(f"{subject}: got a page of {kind}, expected a manifest: is this a registry?") from None
        return
    if (got := digest_of(body, expected)) != expected:
        raise DigestMismatch(f"{subject}: got bytes of digest {got}, expected {expected} as the registry says")
