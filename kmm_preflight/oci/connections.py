"""Connections to registries: shared pools, patience, proxies, CAs; and urllib3's errors as errors of this suite."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import urllib3
from urllib3.exceptions import MaxRetryError, ProtocolError, SSLError

from kmm_preflight.errors import PreflightError, Truncated, Unreachable, Untrusted
from kmm_preflight.model import VERIFIED_HTTPS, RegistryTLS
from kmm_preflight.oci.auth_session import Challenge
from kmm_preflight.oci.proxy import Proxy, is_reached_directly

BUSY = (429, 500, 502, 503, 504)
"""Statuses of a server with a temporary problem: requests are repeated."""


@dataclass(frozen=True)
class Patience:
    """Time limits and numbers of retries for requests to registries."""

    connect_seconds: float = 10
    """The longest time for a connection."""
    read_seconds: float = 20
    """The longest time without a byte of the answer."""
    retries: int = 3
    """The number of times that a request is repeated."""
    backoff_seconds: float = 0.25
    """The first wait before a repeated request; later waits are longer."""
    retry_after_seconds: int = 10
    """The longest wait that a registry can require with Retry-After."""
    grace_seconds: float = 60
    """The time at the start of a body in which its rate is not checked."""
    bytes_per_second: int = 16 * 1024
    """The lowest average rate of a body after the grace time."""
    resumes: int = 3
    """The number of times that the rest of a body is requested after it broke off."""


@dataclass(frozen=True)
class Network:
    """The settings with which this machine reaches registries."""

    ca: Path | None = None
    """A file of CAs that are trusted in addition to the system's CAs."""
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Proxies by scheme; the key "no" holds the hosts that are reached without a proxy."""
    patience: Patience = Patience()
    """Time limits and numbers of retries."""
    authorities: str = field(default="", repr=False)
    """CAs in PEM that the nodes of a cluster trust for every registry; empty if there are no such CAs."""

    @property
    def sets_proxies(self) -> bool:
        """True if HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY is set, even to nothing."""
        return not {"http", "https", "all", "no"}.isdisjoint(self.proxies)


@dataclass(frozen=True)
class Greeting:
    """The answer of a registry to a request for /v2/."""

    scheme: str
    """The scheme of the answer: https or http."""
    challenges: tuple[Challenge, ...]
    """The ways to log in; empty if all requests are sent without a login."""


class Connections:
    """Open connections of this process. Repositories with equal settings share a pool."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.patience = network.patience
        self._pools: dict[tuple[str | None, RegistryTLS, str | None], urllib3.PoolManager] = {}
        self.greetings: dict[tuple[str, RegistryTLS, str | None], Greeting] = {}
        """The answers to /v2/, by server, settings and CAs. A registry is asked once."""

    def pool(self, server: str, tls: RegistryTLS, authority: str | None = None) -> urllib3.PoolManager:
        """Return the pool for a server. It uses the proxy, unless NO_PROXY names the server."""
        proxies = self._network.proxies
        proxy = proxies.get("https") or None
        if proxy and is_reached_directly(server, proxies.get("no", "")):
            proxy = None
        key = (proxy, tls, authority)
        if key not in self._pools:
            self._pools[key] = self._new_pool(proxy, self._context(tls, authority))
        return self._pools[key]

    def _new_pool(self, proxy: str | None, context: ssl.SSLContext) -> urllib3.PoolManager:
        retries = urllib3.Retry(
            total=self.patience.retries,
            read=1,  # then the wait for a server that hangs is twice read_seconds
            other=0,  # a certificate does not change between attempts
            status_forcelist=BUSY,
            allowed_methods=None,
            backoff_factor=self.patience.backoff_seconds,
            retry_after_max=self.patience.retry_after_seconds,
            raise_on_status=False,
        )
        timeout = urllib3.Timeout(connect=self.patience.connect_seconds, read=self.patience.read_seconds)
        if not proxy:
            return urllib3.PoolManager(retries=retries, timeout=timeout, ssl_context=context)
        through = Proxy.parse(proxy)
        return urllib3.ProxyManager(
            through.url,
            proxy_headers=_proxy_headers(through.login),
            proxy_ssl_context=self._context(VERIFIED_HTTPS),  # weaker TLS settings are for the registry only
            retries=retries,
            timeout=timeout,
            ssl_context=context,
        )

    def _context(self, tls: RegistryTLS, authority: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        for authorities in (authority, self._network.authorities):
            if authorities:
                context.load_verify_locations(cadata=authorities)
        if self._network.ca:
            context.load_verify_locations(cafile=str(self._network.ca))
        if tls.insecure_skip_tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _proxy_headers(login: bytes | None) -> dict[str, str] | None:
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode()}"} if login else None


def registry_error(exc: Exception, host: str, subject: str) -> PreflightError:
    """Return the error of this suite for an error of urllib3. Its message names the cause."""
    cause = exc.reason if isinstance(exc, MaxRetryError) and exc.reason else exc
    inner = cause.args[0] if cause.args else cause
    if isinstance(exc, ProtocolError):  # not inside a MaxRetryError: it was raised while a body was read
        return Truncated(f"{subject}: the answer of {host} breaks off ({cause.args[0]})")
    if isinstance(cause, SSLError) and isinstance(inner, ssl.SSLCertVerificationError):
        return Untrusted(f"{subject}: the certificate of {host} is not trusted ({inner.verify_message})")
    words = str(cause).rpartition(": ")[2] if cause.args else type(cause).__name__
    while words.count(")") > words.count("("):  # the end of a repr whose start is cut off
        words = words[:-1].rstrip("'\"")
    return Unreachable(f"{subject}: no answer from {host}{_through(exc)} ({type(cause).__name__}: {words})")


def _through(exc: Exception) -> str:
    """Return the words that name the proxy, empty without a proxy."""
    pool = exc.pool if isinstance(exc, MaxRetryError) else None
    proxy = pool.proxy if isinstance(pool, urllib3.HTTPConnectionPool) else None
    return f" through the proxy {proxy.netloc}" if proxy else ""
