"""One repository of a registry, over HTTP: the distribution protocol with its logins, retries and refusals.

The only importer of urllib3. Its errors become ours here, once.
"""

from __future__ import annotations

import re
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError, SSLError

from kmm_preflight.errors import (
    AccessDenied,
    BoundExceeded,
    DigestMismatch,
    Malformed,
    NotFound,
    PreflightError,
    Truncated,
    Unreachable,
    Untrusted,
)
from kmm_preflight.model import RegistryTLS
from kmm_preflight.oci.auth import Credential, Keychain
from kmm_preflight.oci.document import MANIFEST_BYTES, MANIFEST_TYPES, Descriptor, digest_of, parse_json
from kmm_preflight.oci.reference import Reference, parse_digest

_PIECE = 1 << 18
_BUSY = (429, 500, 502, 503, 504)
_NO_SUCH_RANGE = 416
_HUB = "registry-1.docker.io"
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Patience:
    """How long a registry is waited for, in seconds, and how often it is asked again.

    A body may take grace_seconds at the start, and afterwards must have come at bytes_per_second on average.
    """

    connect_seconds: float = 10
    read_seconds: float = 20
    retries: int = 3
    backoff_seconds: float = 0.25
    retry_after_seconds: int = 10
    grace_seconds: float = 60
    bytes_per_second: int = 16 * 1024
    resumes: int = 3


@dataclass(frozen=True)
class Network:
    """How this machine reaches registries: a CA bundle beside the system's, proxies by scheme, hosts without proxy."""

    ca: Path | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    patience: Patience = Patience()


class RegistryRepository:
    """See Repository. Logs in as the registry asks, with the credential that the keychain has for this path."""

    def __init__(
        self, reference: Reference, keychain: Keychain | None, tls: RegistryTLS, connections: Connections
    ) -> None:
        self._host = reference.host
        self._repository = reference.repository
        self._credential = keychain.find(reference.host, reference.repository) if keychain else None
        self._tls = tls
        self._scheme = "https"
        self._answered = False
        self._authorization = ""
        self._server = _HUB if reference.host == "docker.io" else reference.host
        self._pool = connections.pool(self._server, tls)
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
            raise _trouble(exc, self._host, subject) from exc
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
                        raise _trouble(exc, self._host, subject) from exc
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
        response = self._send(method, path, subject, headers)
        if response.status == 401 and not (self._authorization and self._authorization.startswith("Basic")):
            challenge = response.headers.get("WWW-Authenticate", "")
            response.drain_conn()
            self._log_in(challenge, subject)
            response = self._send(method, path, subject, headers)
        try:
            if not ("Range" in headers and response.status == _NO_SUCH_RANGE):
                _check_status(response.status, subject)
            yield response
        finally:
            if method == "HEAD":
                response.drain_conn()
            response.close()  # a connection whose body was read to its end is back in the pool already

    def _send(self, method: str, path: str, subject: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """One request, first by HTTPS; plain HTTP only where the Module or a loopback address allows it."""
        sent = dict(headers)
        if self._authorization:
            sent["Authorization"] = self._authorization
        try:
            response = self._request(method, f"{self._scheme}://{self._server}{path}", sent)
        except HTTPError as exc:
            trouble = _trouble(exc, self._host, subject)
            if not self._may_be_plain() or isinstance(trouble, Untrusted):
                raise trouble from exc
            self._scheme = "http"
            return self._send(method, path, subject, headers)
        self._answered = True
        return response

    def _may_be_plain(self) -> bool:
        # What has answered by HTTPS once is not asked otherwise: the login would go in the open.
        if self._scheme == "http" or self._answered:
            return False
        return self._tls.insecure or bool(_LOOPBACK.fullmatch(self._host))

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(method, url, headers=dict(headers), body=body, preload_content=False)
        except ValueError as exc:  # the address that a redirect or a login names
            if isinstance(exc, HTTPError):
                raise
            raise HTTPError(f"an address that is none: {exc}") from exc

    def _log_in(self, challenge: str, subject: str) -> None:
        scheme, _, rest = challenge.partition(" ")
        match scheme.lower():
            case "basic" if self._credential:
                self._authorization = _basic(self._credential)
            case "bearer":
                # Of a name that stands twice the first counts: another challenge may follow.
                self._authorization = f"Bearer {self._token(dict(reversed(_CHALLENGE.findall(rest))), subject)}"
            case "basic":
                raise AccessDenied(f"{subject}: the registry asks for a login and there is none for it")
            case _:
                raise AccessDenied(f"{subject}: the registry refuses access and names no login that is known")

    def _token(self, parameters: Mapping[str, str], subject: str) -> str:
        try:
            realm = urljoin(f"{self._scheme}://{self._server}/", parameters.get("realm", ""))
            secure = urlsplit(realm).scheme == "https"
        except ValueError as exc:
            raise AccessDenied(f"{subject}: the registry sends its login to an address that is none ({exc})") from exc
        if not secure and self._scheme == "https":
            raise AccessDenied(f"{subject}: the registry sends its login to {realm}, expected an https address")
        asked = {"scope": f"repository:{self._repository}:pull"}
        if "service" in parameters:
            asked["service"] = parameters["service"]
        try:
            response = self._ask_for_token(realm, asked)
        except HTTPError as exc:
            raise _trouble(exc, urlsplit(realm).netloc, subject) from exc
        if response.status in (400, 401, 403):
            raise AccessDenied(f"{subject}: the login was refused (status {response.status} of its token server)")
        if not 200 <= response.status < 300:  # 404 too is the token server's trouble and says nothing of the image
            raise Unreachable(f"{subject}: got status {response.status} from its token server, expected 200")
        return _parse_token(self._whole(response, f"token for {subject}"), subject)

    def _ask_for_token(self, realm: str, asked: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        if self._credential and self._credential.identity_token:
            form = {**asked, "grant_type": "refresh_token", "refresh_token": self._credential.identity_token,
                    "client_id": "kmm-preflight"}  # fmt: skip
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._request("POST", realm, headers, urlencode(form).encode())
        headers = {"Authorization": _basic(self._credential)} if self._credential else {}
        separator = "&" if "?" in realm else "?"
        return self._request("GET", f"{realm}{separator}{urlencode(asked)}", headers)


def _basic(credential: Credential) -> str:
    login = f"{credential.username}:{credential.password}"
    return urllib3.make_headers(basic_auth=login)["authorization"]


def _check_status(status: int, subject: str) -> None:
    if 200 <= status < 300:
        return
    if status == 404:
        raise NotFound(f"{subject}: got 404, the registry does not have it")
    if status in (401, 403):
        raise AccessDenied(f"{subject}: got {status}, the registry refuses access")
    if status in _BUSY:
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


def _parse_token(body: bytes, subject: str) -> str:
    try:
        answer = parse_json(body, subject)
        token = answer["token"].text() or answer["access_token"].text()
    except Malformed as exc:
        raise Unreachable(f"{subject}: its token server answers with something else than a token") from exc
    if not token.isascii() or not token.isprintable():
        raise Unreachable(f"{subject}: its token server answers with a token that cannot be sent")
    if not token:
        raise AccessDenied(f"{subject}: the token server gave no token")
    return token


def _trouble(exc: Exception, host: str, subject: str) -> PreflightError:
    """Our error for one of urllib3's, in words that name the cause."""
    cause = exc.reason if isinstance(exc, MaxRetryError) and exc.reason else exc
    inner = cause.args[0] if cause.args else cause
    if isinstance(exc, ProtocolError):  # bare, so it came while a body was read and not on the way to an answer
        return Truncated(f"{subject}: the answer of {host} breaks off ({cause.args[0]})")
    if isinstance(cause, SSLError) and isinstance(inner, ssl.SSLCertVerificationError):
        return Untrusted(f"{subject}: the certificate of {host} is not trusted ({inner.verify_message})")
    words = str(cause).rpartition(": ")[2] if cause.args else type(cause).__name__
    return Unreachable(f"{subject}: no answer from {host} ({type(cause).__name__}: {words})")


class Connections:
    """Open connections of this process, shared by all repositories that are reached in the same way."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.patience = network.patience
        self._pools: dict[tuple[str, RegistryTLS], urllib3.PoolManager] = {}

    def pool(self, server: str, tls: RegistryTLS) -> urllib3.PoolManager:
        """The pool for a server: through the proxy, unless the server is one of those reached without."""
        proxies = self._network.proxies
        proxy = proxies.get("https", "")
        if proxy and urllib.request.proxy_bypass(server, dict(proxies)):
            proxy = ""
        key = (proxy, tls)
        if key not in self._pools:
            self._pools[key] = self._new_pool(proxy, tls)
        return self._pools[key]

    def _new_pool(self, proxy: str, tls: RegistryTLS) -> urllib3.PoolManager:
        retries = urllib3.Retry(
            total=self.patience.retries,
            read=1,  # a server that hangs has been waited for twice
            other=0,  # a certificate does not change
            status_forcelist=_BUSY,
            allowed_methods=None,
            backoff_factor=self.patience.backoff_seconds,
            retry_after_max=self.patience.retry_after_seconds,
            raise_on_status=False,
        )
        timeout = urllib3.Timeout(connect=self.patience.connect_seconds, read=self.patience.read_seconds)
        context = self._context(tls)
        if not proxy:
            return urllib3.PoolManager(retries=retries, timeout=timeout, ssl_context=context)
        url = urlsplit(proxy)
        login = urllib3.make_headers(proxy_basic_auth=f"{url.username}:{url.password or ''}") if url.username else None
        return urllib3.ProxyManager(proxy, proxy_headers=login, retries=retries, timeout=timeout, ssl_context=context)

    def _context(self, tls: RegistryTLS) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._network.ca:
            context.load_verify_locations(cafile=str(self._network.ca))
        if tls.insecure_skip_tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
