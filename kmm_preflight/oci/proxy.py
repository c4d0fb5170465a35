"""A forward proxy on the way to registries, and for which of them it is passed by."""

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
    """host[:port] of a proxy that speaks HTTP, or HTTPS where secure; login is user:password, empty for none."""

    host: str
    secure: bool = False
    login: bytes = field(default=b"", repr=False)

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """The proxy at a URL; Malformed tells nothing of the URL, which may hold a password."""
        if problem := _problem(text):
            raise Malformed(f"got {problem}, expected http://HOST:PORT or https://HOST:PORT")
        url = urlsplit(text)
        # A password's %40 is its @ (RFC 3986), for Go and curl too.
        parts = (unquote_to_bytes(part or "") for part in (url.username, url.password))
        login = b":".join(parts)
        return cls(url.netloc.rpartition("@")[2], url.scheme == "https", b"" if login == b":" else login)

    @property
    def url(self) -> str:
        """The URL, without the login."""
        return f"{'https' if self.secure else 'http'}://{self.host}"


def _problem(text: str) -> str:
    if re.search(r"[\s\x00-\x1f]", text):
        return "an address with white space in it"
    if re.search(r"[\ud800-\udfff]", text):
        return "an address that is no text"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return "an address whose host or port is none"
    if url.scheme not in ("http", "https"):
        return "no scheme http or https"
    return _problem_of_host(url) or ("port 0" if port == 0 else "")


def _problem_of_host(url: SplitResult) -> str:
    if not _HOST.fullmatch(url.hostname or ""):
        return "no host"
    # Of http://user:12/34@host the host would be user, and be shown with what is a password's beginning.
    behind = "@" in url.path + url.query + url.fragment
    return "an address with an @ behind its host (in a password / is %2F, ? is %3F, # is %23)" if behind else ""


def passed_by(server: str, no_proxy: str) -> bool:
    """Whether host[:port] is reached without a proxy: NO_PROXY as curl and Go read it, names without DNS.

    Entries are separated by commas: a name with all names below it, an address or a network such as 10.0.0.0/16, each
    for all ports or with one; * is everything.
    """
    host, port = _split(server.lower())
    entries = (entry.strip().lower() for entry in no_proxy.split(","))
    return any(_names(entry, host, port or _HTTPS_PORT) for entry in entries if entry)


def _names(entry: str, host: str, port: str) -> bool:
    if entry == "*":
        return True
    name, wanted = _split(entry)
    if wanted not in ("", port):
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
    except ValueError:
        name = name.removeprefix("*").lstrip(".")
        return bool(name) and f".{host}".endswith(f".{name}")


def _split(place: str) -> tuple[str, str]:
    """Host and port, "" for none; an IPv6 address stands in brackets where a port follows."""
    hit = re.fullmatch(r"\[([^]]*)\](?::(\d+))?|([^:]*):(\d+)", place)
    return (hit[1] or hit[3] or "", hit[2] or hit[4] or "") if hit else (place, "")
