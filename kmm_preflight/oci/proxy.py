"""The forward proxy for requests to registries, and the registries that are reached without it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from kmm_preflight.errors import Malformed

_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_HTTPS_PORT = "443"


@dataclass(frozen=True)
class Proxy:
    """A forward proxy."""

    host: str
    """host[:port] of the proxy."""
    secure: bool = False
    """True if the proxy itself is reached by HTTPS."""
    login: bytes | None = field(default=None, repr=False)
    """user:password, or None if the proxy needs no login."""

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """Parse the URL of a proxy. Raise Malformed without the URL, which may contain a password."""
        if problem := _problem(text):
            raise Malformed(f"{problem}, expected http://HOST:PORT or https://HOST:PORT")
        url = urlsplit(text)
        # %40 in a password means @ (RFC 3986), for Go and curl too.
        parts = (unquote_to_bytes(part or "") for part in (url.username, url.password))
        login = b":".join(parts)
        return cls(url.netloc.rpartition("@")[2], url.scheme == "https", None if login == b":" else login)

    @property
    def url(self) -> str:
        """The URL, without the login."""
        return f"{'https' if self.secure else 'http'}://{self.host}"


def _problem(text: str) -> str | None:
    if re.search(r"[\s\x00-\x1f]", text):
        return "the address contains white space"
    if re.search(r"[\ud800-\udfff]", text):
        return "the address is not valid text"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return "the address has an invalid host or port"
    if url.scheme not in ("http", "https"):
        return "the scheme is not http or https"
    return _problem_of_host(url) or ("the port is 0" if port == 0 else None)


def _problem_of_host(url: SplitResult) -> str | None:
    if not _HOST.fullmatch(url.hostname or ""):
        return "the address has no valid host"
    # http://user:12/34@host would parse with user as host, and messages would show the start of the password.
    if "@" in url.path + url.query + url.fragment:
        return "the address has an @ after its host (in a password, write %2F for /, %3F for ?, %23 for #)"
    return None


def is_reached_directly(server: str, no_proxy: str) -> bool:
    """True if NO_PROXY says that host[:port] is reached without a proxy. Read NO_PROXY as curl and Go do, without DNS.

    Entries are separated by commas. An entry is a name (with all names below it), an address or a network such as
    10.0.0.0/16, each with or without a port; * means every server.
    """
    host, port = _split(server.lower())
    entries = (entry.strip().lower() for entry in no_proxy.split(","))
    return any(_matches(entry, host, port or _HTTPS_PORT) for entry in entries if entry)


def _matches(entry: str, host: str, port: str) -> bool:
    if entry == "*":
        return True
    name, entry_port = _split(entry)
    if entry_port not in ("", port):
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
    except ValueError:
        name = name.removeprefix("*").lstrip(".")
        return bool(name) and f".{host}".endswith(f".{name}")


def _split(place: str) -> tuple[str, str]:
    """Split host[:port]. A missing port is empty. An IPv6 address with a port is in brackets."""
    match = re.fullmatch(r"\[([^]]*)\](?::(\d+))?|([^:]*):(\d+)", place)
    return (match[1] or match[3] or "", match[2] or match[4] or "") if match else (place, "")
