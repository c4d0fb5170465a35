"""How registries are reached: shared connections, patience, proxies, CAs; and what went wrong, in our words."""

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
from kmm_preflight.oci.proxy import Proxy, passed_by

BUSY = (429, 500, 502, 503, 504)
"""Statuses of a server that is not itself at the moment: asked again."""


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
    """How this machine reaches registries: a CA bundle beside the system's, proxies by scheme, hosts without proxy.

    authorities are CAs in PEM that the nodes of a cluster trust for every registry.
    """

    ca: Path | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    patience: Patience = Patience()
    authorities: str = field(default="", repr=False)

    @property
    def sets_proxies(self) -> bool:
        """Whether HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY says anything, be it that there is none."""
        return not {"http", "https", "all", "no"}.isdisjoint(self.proxies)


class Connections:
    """Open connections of this process, shared by all repositories that are reached in the same way."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.patience = network.patience
        self._pools: dict[tuple[str, RegistryTLS, str], urllib3.PoolManager] = {}

    def pool(self, server: str, tls: RegistryTLS, authority: str = "") -> urllib3.PoolManager:
        """The pool for a server: through the proxy, unless the server is one of those reached without."""
        proxies = self._network.proxies
        proxy = proxies.get("https", "")
        if proxy and passed_by(server, proxies.get("no", "")):
            proxy = ""
        key = (proxy, tls, authority)
        if key not in self._pools:
            self._pools[key] = self._new_pool(proxy, self._context(tls, authority))
        return self._pools[key]

    def _new_pool(self, proxy: str, context: ssl.SSLContext) -> urllib3.PoolManager:
        retries = urllib3.Retry(
            total=self.patience.retries,
            read=1,  # a server that hangs has been waited for twice
            other=0,  # a certificate does not change
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
        login = f"Basic {base64.b64encode(through.login).decode()}"
        return urllib3.ProxyManager(
            through.url,
            proxy_headers={"Proxy-Authorization": login} if through.login else None,
            proxy_ssl_context=self._context(VERIFIED_HTTPS),  # what a Module allows, it allows of its registry
            retries=retries,
            timeout=timeout,
            ssl_context=context,
        )

    def _context(self, tls: RegistryTLS, authority: str = "") -> ssl.SSLContext:
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


def trouble(exc: Exception, host: str, subject: str) -> PreflightError:
    """Our error for one of urllib3's, in words that name the cause."""
    cause = exc.reason if isinstance(exc, MaxRetryError) and exc.reason else exc
    inner = cause.args[0] if cause.args else cause
    if isinstance(exc, ProtocolError):  # bare, so it came while a body was read and not on the way to an answer
        return Truncated(f"{subject}: the answer of {host} breaks off ({cause.args[0]})")
    if isinstance(cause, SSLError) and isinstance(inner, ssl.SSLCertVerificationError):
        return Untrusted(f"{subject}: the certificate of {host} is not trusted ({inner.verify_message})")
    words = str(cause).rpartition(": ")[2] if cause.args else type(cause).__name__
    while words.count(")") > words.count("("):  # the end of a repr whose beginning was cut off
        words = words[:-1].rstrip("'\"")
    return Unreachable(f"{subject}: no answer from {host}{_through(exc)} ({type(cause).__name__}: {words})")


def _through(exc: Exception) -> str:
    """The proxy that was asked, in words; "" for none."""
    pool = exc.pool if isinstance(exc, MaxRetryError) else None
    proxy = pool.proxy if isinstance(pool, urllib3.HTTPConnectionPool) else None
    return f" through the proxy {proxy.netloc}" if proxy else ""
