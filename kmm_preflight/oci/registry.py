"""A repository of a registry over HTTP: the distribution protocol with its logins, retries and refusals.

Only this file and connections.py turn urllib3's errors into errors of this suite.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
from kmm_preflight.oci.auth_session import AuthSession, Challenge, parse_challenges
from kmm_preflight.oci.connections import BUSY, Connections, Greeting, registry_error
from kmm_preflight.oci.credentials import candidates
from kmm_preflight.oci.document import MANIFEST_BYTES, Descriptor, ManifestAnswer, digest_of
from kmm_preflight.oci.media_type import MANIFEST_TYPES, answered_type
from kmm_preflight.oci.reference import Reference, on_loopback, parse_digest

_PIECE = 1 << 18
_NO_SUCH_RANGE = 416
_HUB = "registry-1.docker.io"


class RegistryRepository:
    """A repository of a registry, as a Repository. It tries the logins of the keychains for this path in order."""

    def __init__(
        self,
        reference: Reference,
        keychains: Iterable[Keychain],
        tls: RegistryTLS,
        connections: Connections,
        authority: str | None = None,
    ) -> None:
        """authority is PEM of CAs that are trusted for this registry, in addition to all other CAs."""
        self._host = reference.host
        self._repository = reference.repository
        keychains = tuple(keychains)
        self._stand_in = any(keychain.stand_in for keychain in keychains)
        logins = candidates(keychains, reference.host, reference.repository)
        self._session = AuthSession(logins, reference.repository, self._request_token)
        self._tls = tls
        self._scheme = "https"
        self._answered = False
        self._connections = connections
        self._settings = (tls, authority)
        self._server = _HUB if reference.host == "docker.io" else reference.host
        self._pool = connections.pool(self._server, tls, authority)
        self._patience = connections.patience

    def manifest(self, reference: str) -> ManifestAnswer:
        """Return the answer for a tag or digest. If the body breaks off, request it again.

        A body for a digest is unverified. A body for a tag is checked against the digest in the registry's answer.
        """
        subject = f"image {self._host}/{self._repository}{'@' if ':' in reference else ':'}{reference}"
        for attempt in range(self._patience.resumes + 1):
            try:
                return self._manifest(reference, subject)
            except Truncated:
                if attempt == self._patience.resumes:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _manifest(self, reference: str, subject: str) -> ManifestAnswer:
        path = f"/v2/{self._repository}/manifests/{reference}"
        with self._response("GET", path, subject, {"Accept": ", ".join(MANIFEST_TYPES)}) as response:
            body = self._document(response, subject)
        if ":" not in reference:  # the caller checks the body for a digest
            _check_named_digest(body, response, subject)
        return ManifestAnswer(body, answered_type(response.headers.get("Content-Type", "")))

    def _document(self, response: urllib3.BaseHTTPResponse, subject: str) -> bytes:
        """Return the body of a manifest or token. Raise BoundExceeded if it has more than MANIFEST_BYTES."""
        body, start = bytearray(), time.monotonic()
        try:
            while piece := response.read1(_PIECE):
                body += piece
                self._check_rate(len(body), start, subject)
                if len(body) > MANIFEST_BYTES:
                    raise BoundExceeded(f"{subject}: a document of more than {MANIFEST_BYTES} bytes")
        except (HTTPError, OSError) as exc:
            raise registry_error(exc, self._host, subject) from exc
        return bytes(body)

    def has_blob(self, digest: str) -> bool:
        """True if the registry has the blob and allows this request to read it.

        A node never sends HEAD for a blob, and some proxy caches answer 404 to HEAD only. So GET has the last word.
        """
        path, subject = self._blob(digest), self._blob_subject(digest)
        for method, headers in (("HEAD", dict[str, str]()), ("GET", {"Range": "bytes=0-0"})):
            with suppress(NotFound), self._response(method, path, subject, headers):
                return True
        return False

    @contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Return the blob's bytes in pieces, unverified. If the body breaks off, request the rest."""
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
            with self._response("GET", self._blob(descriptor.digest), subject, headers) as response:
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
                        raise registry_error(exc, self._host, subject) from exc
                    continue
            if not descriptor.sized or got >= descriptor.size:
                return

    def _check_rate(self, got: int, start: float, subject: str) -> None:
        seconds = time.monotonic() - start
        if seconds > self._patience.grace_seconds + got / self._patience.bytes_per_second:
            raise Unreachable(f"{subject}: only {got} bytes in {seconds:.0f} s")

    @contextmanager
    def _response(
        self, method: str, path: str, subject: str, headers: Mapping[str, str]
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Yield a 2xx response, after a login if the registry requires it. Raise PreflightError for other statuses."""
        response = self._accepted(method, path, subject, headers)
        try:
            if not ("Range" in headers and response.status == _NO_SUCH_RANGE):
                _check_status(response.status, subject)
            yield response
        finally:
            if method == "HEAD":
                response.drain_conn()
            response.close()  # after a whole body the connection is already back in the pool

    def _accepted(self, method: str, path: str, subject: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """Return the response to the first login that is accepted. Raise AccessDenied or AccessUndecided if none is."""
        while True:
            try:
                response = self._logged_in(method, path, subject, headers)
                if response.status not in (401, 403):
                    return response
                response.drain_conn()
                raise AccessDenied(f"{subject}: {self._session.refusal(self._challenges(subject), response.status)}")
            except AccessDenied as exc:
                if self._session.use_next():
                    continue
                if self._stand_in:
                    raise AccessUndecided(exc.message) from exc
                raise

    def _logged_in(self, method: str, path: str, subject: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """Send a request with the login that /v2/ requires. If an older token is refused, request a new one."""
        challenges, new = self._challenges(subject), self._session.authorization is None
        base = f"{self._scheme}://{self._server}/"
        if new:
            self._session.log_in(challenges, base, subject)
        response = self._send(method, path, subject, headers)
        if response.status != 401 or new or self._session.sent_password:
            return response
        response.drain_conn()
        self._session.log_in(challenges, base, subject)
        return self._send(method, path, subject, headers)

    def _challenges(self, subject: str) -> tuple[Challenge, ...]:
        """Return the ways to log in. A node asks /v2/ for them, before all else (docs/reference/openshift.md 5.8)."""
        key = (self._server, *self._settings)
        greeting = self._connections.greetings.get(key)
        if greeting is None:
            response = self._send("GET", "/v2/", subject, {})
            response.drain_conn()
            if response.status not in (200, 401):
                problem = f"got status {response.status} for /v2/ of the registry, expected 200 or 401"
                raise Unreachable(f"{subject}: {problem}")
            greeting = Greeting(self._scheme, tuple(parse_challenges(response.headers.getlist("WWW-Authenticate"))))
            self._connections.greetings[key] = greeting
        self._scheme, self._answered = greeting.scheme, True
        return greeting.challenges

    def _send(self, method: str, path: str, subject: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """Send a request by HTTPS. Fall back to plain HTTP only if the settings or a loopback address allow it."""
        sent = dict(headers)
        if self._session.authorization:
            sent["Authorization"] = self._session.authorization
        try:
            response = self._request(method, f"{self._scheme}://{self._server}{path}", sent)
        except HTTPError as exc:
            error = registry_error(exc, self._host, subject)
            if not self._may_be_plain() or isinstance(error, Untrusted):
                raise error from exc
            self._scheme = "http"
            return self._send(method, path, subject, headers)
        self._answered = True
        return response

    def _may_be_plain(self) -> bool:
        # After an answer by HTTPS, plain HTTP is never used: the login would be readable on the network.
        if self._scheme == "http" or self._answered:
            return False
        return self._tls.insecure or on_loopback(self._host)

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(method, url, headers=dict(headers), body=body, preload_content=False)
        except ValueError as exc:  # an invalid address in a redirect or a login challenge
            if isinstance(exc, HTTPError):
                raise
            raise HTTPError(f"invalid address: {exc}") from exc

    def _request_token(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, subject: str
    ) -> tuple[int, bytes]:
        """Send a request to a token server. Return status and body; the body is empty unless the status is 2xx."""
        try:
            response = self._request(method, url, headers, body)
        except HTTPError as exc:
            raise registry_error(exc, urlsplit(url).netloc, subject) from exc
        answer = self._document(response, f"token for {subject}") if 200 <= response.status < 300 else b""
        return response.status, answer


def _check_status(status: int, subject: str) -> None:
    if 200 <= status < 300:
        return
    if status == 404:
        raise NotFound(f"{subject}: got 404, the registry does not have it")
    if status in (401, 403):
        raise AccessDenied(f"{subject}: got {status}, the registry refuses access")
    if status in BUSY:
        raise Unreachable(f"{subject}: got {status} from the registry for every attempt")
    raise Unreachable(f"{subject}: got status {status} from the registry, expected 200")


def _next_piece(response: urllib3.BaseHTTPResponse) -> bytes:
    """Return the bytes that have arrived: read() would wait for a whole piece, however slow the server is.

    Do not decode them: a Content-Encoding that no request allowed is a server's mistake about .tar.gz.
    """
    return response.read1(_PIECE, decode_content=False)


def _check_named_digest(body: bytes, response: urllib3.BaseHTTPResponse, subject: str) -> None:
    """Check a body against the digest in the response. Raise Unreachable for an HTML page, such as a proxy's."""
    named = response.headers.get("Docker-Content-Digest", "")
    try:
        expected = parse_digest(named)
    except Malformed:
        kind = response.headers.get("Content-Type", "")
        if kind.startswith("text/html"):
            raise Unreachable(f"{subject}: got a {kind} page, expected a manifest: is this a registry?") from None
        return
    if (got := digest_of(body, expected)) != expected:
        raise DigestMismatch(f"{subject}: got bytes of digest {got}, expected {expected} from the registry's header")
