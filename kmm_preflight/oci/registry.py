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
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from kmm_preflight.errors import AccessDenied, BoundExceeded, NotFound, PreflightError, Unreachable, Untrusted
from kmm_preflight.model import RegistryTLS
from kmm_preflight.oci.auth import Credential, Keychain
from kmm_preflight.oci.document import MANIFEST_BYTES, MANIFEST_TYPES, Descriptor, parse_json
from kmm_preflight.oci.reference import Reference

CONNECT_SECONDS = 10.0
READ_SECONDS = 20.0
RETRIES = 3
RETRY_AFTER_SECONDS = 10
# A body may take this long at the start, and afterwards must have come at this rate on average.
GRACE_SECONDS = 60.0
BYTES_PER_SECOND = 16 * 1024
RESUMES = 3
_PIECE = 1 << 18
_BUSY = (429, 500, 502, 503, 504)
_HUB = "registry-1.docker.io"
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Network:
    """How this machine reaches registries: a CA bundle beside the system's, proxies by scheme, hosts without proxy."""

    ca: Path | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)


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
        self._authorization = ""
        self._server = _HUB if reference.host == "docker.io" else reference.host
        self._pool = connections.pool(self._server, tls)

    def manifest(self, reference: str) -> bytes:
        """See Repository."""
        path = f"/v2/{self._repository}/manifests/{reference}"
        subject = f"image {self._host}/{self._repository}{'@' if ':' in reference else ':'}{reference}"
        with self._answer("GET", path, subject, {"Accept": ", ".join(MANIFEST_TYPES)}) as response:
            body = response.read(MANIFEST_BYTES + 1)
        if len(body) > MANIFEST_BYTES:
            raise BoundExceeded(f"{subject}: a manifest of more than {MANIFEST_BYTES} bytes")
        return body

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
        subject, got, start = self._blob_subject(descriptor.digest), 0, time.monotonic()
        for attempt in range(RESUMES + 1):
            headers = {"Range": f"bytes={got}-"} if got else {}
            with self._answer("GET", self._blob(descriptor.digest), subject, headers) as response:
                skip = 0 if response.status == 206 else got
                try:
                    while piece := response.read(_PIECE):
                        new, skip = piece[skip:], max(0, skip - len(piece))
                        got += len(new)
                        _check_rate(got, start, subject)
                        if new:
                            yield new
                except (HTTPError, OSError) as exc:
                    if attempt == RESUMES:
                        raise _trouble(exc, self._host, subject) from exc
            if got >= descriptor.size or attempt == RESUMES:
                return
            time.sleep(0.2 * attempt)

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
            return self._request(method, f"{self._scheme}://{self._server}{path}", sent)
        except HTTPError as exc:
            trouble = _trouble(exc, self._host, subject)
            if self._scheme == "http" or not self._may_be_plain() or isinstance(trouble, Untrusted):
                raise trouble from exc
        self._scheme = "http"
        try:
            return self._request(method, f"http://{self._server}{path}", sent)
        except HTTPError as exc:
            raise _trouble(exc, self._host, subject) from exc

    def _may_be_plain(self) -> bool:
        return self._tls.insecure or bool(_LOOPBACK.fullmatch(self._host))

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        return self._pool.request(method, url, headers=dict(headers), body=body, preload_content=False)

    def _log_in(self, challenge: str, subject: str) -> None:
        scheme, _, rest = challenge.partition(" ")
        match scheme.lower():
            case "basic" if self._credential:
                self._authorization = _basic(self._credential)
            case "bearer":
                self._authorization = f"Bearer {self._token(dict(_CHALLENGE.findall(rest)), subject)}"
            case "basic":
                raise AccessDenied(f"{subject}: the registry asks for a login and there is none for it")
            case _:
                raise AccessDenied(f"{subject}: the registry refuses access and names no login that is known")

    def _token(self, parameters: Mapping[str, str], subject: str) -> str:
        realm = urljoin(f"{self._scheme}://{self._server}/", parameters.get("realm", ""))
        if urlsplit(realm).scheme != "https" and self._scheme == "https":
            raise AccessDenied(f"{subject}: the registry sends its login to {realm}, expected an https address")
        asked = {"scope": f"repository:{self._repository}:pull"}
        if "service" in parameters:
            asked["service"] = parameters["service"]
        try:
            response = self._ask_for_token(realm, asked)
            body = response.read(MANIFEST_BYTES)
        except HTTPError as exc:
            raise _trouble(exc, urlsplit(realm).netloc, subject) from exc
        if response.status in (400, 401, 403):
            raise AccessDenied(f"{subject}: the login was refused (status {response.status} of its token server)")
        _check_status(response.status, f"token for {subject}")
        answer = parse_json(body, f"token for {subject}")
        if not (token := answer["token"].text() or answer["access_token"].text()):
            raise AccessDenied(f"{subject}: the token server gave no token")
        return token

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
        raise Unreachable(f"{subject}: got {status} from the registry, {RETRIES + 1} times")
    raise Unreachable(f"{subject}: got status {status} from the registry, expected 200")


def _check_rate(got: int, start: float, subject: str) -> None:
    seconds = time.monotonic() - start
    if seconds > GRACE_SECONDS + got / BYTES_PER_SECOND:
        raise BoundExceeded(f"{subject}: only {got} bytes in {seconds:.0f} s")


def _trouble(exc: Exception, host: str, subject: str) -> PreflightError:
    """Our error for one of urllib3's, in words that name the cause."""
    cause = exc.reason if isinstance(exc, MaxRetryError) and exc.reason else exc
    inner = cause.args[0] if cause.args else cause
    if isinstance(cause, SSLError) and isinstance(inner, ssl.SSLCertVerificationError):
        return Untrusted(f"{subject}: the certificate of {host} is not trusted ({inner.verify_message})")
    words = str(cause).rpartition(": ")[2] if cause.args else type(cause).__name__
    return Unreachable(f"{subject}: no answer from {host} ({type(cause).__name__}: {words})")


class Connections:
    """Open connections of this process, shared by all repositories that are reached in the same way."""

    def __init__(self, network: Network) -> None:
        self._network = network
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
            total=RETRIES,
            read=1,  # a server that hangs has been waited for twice
            other=0,  # a certificate does not change
            status_forcelist=_BUSY,
            allowed_methods=None,
            backoff_factor=0.25,
            retry_after_max=RETRY_AFTER_SECONDS,
            raise_on_status=False,
        )
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
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
