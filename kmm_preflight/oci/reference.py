"""Image names, parsed once at the edge: a registry's reference, or a local OCI layout."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NewType

from kmm_preflight.errors import Malformed

Digest = NewType("Digest", str)
"""A digest that parsed: sha256:… or sha512:…"""

# The grammar of the distribution project (reference.go), as node and registry apply it.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_REPOSITORY_CHARACTERS = 255
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_OF_OLD = "index.docker.io"


def parse_digest(text: str) -> Digest:
    """The digest; Malformed for any other text or algorithm."""
    if not _DIGEST.fullmatch(text):
        raise Malformed(f"digest: got {text!r}, expected sha256: or sha512: and lower case hexadecimal digits")
    return Digest(text)


def on_loopback(host: str) -> bool:
    """Whether host[:port] is this very machine, where a registry may speak plain HTTP."""
    return _LOOPBACK.fullmatch(host) is not None


@dataclass(frozen=True)
class Reference:
    """A name in a registry. tag is "" only beside a digest; a digest, where given, decides."""

    host: str
    repository: str
    tag: str
    digest: str
    written: str | None = field(default=None, compare=False)
    """The text that was parsed, or None if the reference was composed from parts. Two spellings of a name are equal."""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """host[:port]/repository[:tag][@digest]; without a host docker.io, without tag and digest latest.

        Malformed says which part is wrong.
        """
        name, at, digest = text.partition("@")
        if at:
            parse_digest(digest)
        head, slash, rest = name.partition("/")
        named = bool(slash) and (any(char in head for char in ".:") or head == "localhost" or head != head.lower())
        host, path = (head, rest) if named else (_DOCKER_HUB, name)
        host = _DOCKER_HUB if host == _DOCKER_HUB_OF_OLD else host
        path, colon, tag = path.partition(":")
        _check(text, host, path, tag if colon else None)
        if host == _DOCKER_HUB and "/" not in path:
            path = f"library/{path}"
        return cls(host, path, tag or ("" if at else "latest"), digest, text)

    @property
    def name(self) -> str:
        """The name for messages and reports: as written, else in full."""
        return self.written or str(self)

    @property
    def wanted(self) -> str:
        """What the registry is asked for: the digest, else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}{'@' + self.digest if self.digest else ''}"


def _check(text: str, host: str, path: str, tag: str | None) -> None:
    if not (hit := _HOST.fullmatch(host)) or int(hit["port"] or 1) not in range(1, 65536):
        raise Malformed(f"image name {text!r}: got host {host!r}, expected a host name with an optional port")
    if len(path) > _REPOSITORY_CHARACTERS or not _REPOSITORY.fullmatch(path):
        expected = "lower case letters and digits, separated by . _ - and /"
        raise Malformed(f"image name {text!r}: got repository {path!r}, expected {expected}")
    if tag is not None and not _TAG.fullmatch(tag):
        expected = "at most 128 letters, digits, . _ and -"
        raise Malformed(f"image name {text!r}: got tag {tag!r}, expected {expected}")


@dataclass(frozen=True)
class LayoutReference:
    """An image in a local OCI layout: a folder, or a tar archive of one. tag "" means the only image in it."""

    path: Path
    tag: str
    archive: bool

    @property
    def name(self) -> str:
        """The name for messages and reports."""
        return str(self)

    def __str__(self) -> str:
        return f"{'oci-archive' if self.archive else 'oci'}:{self.path}{':' + self.tag if self.tag else ''}"


ImageName = Reference | LayoutReference
"""The name of an image: in a registry, or in a local OCI layout."""


def parse_name(text: str) -> ImageName:
    """Return the name that a text such as quay.io/a/b:1, oci:DIR[:TAG] or oci-archive:FILE[:TAG] means.

    Raise Malformed for any other text.
    """
    transport, _, rest = text.partition(":")
    if transport not in ("oci", "oci-archive"):
        return Reference.parse(text)
    path, _, tag = rest.partition(":")
    if not path or "\0" in rest:
        raise Malformed(f"image name {text!r}: got no path, expected {transport}:PATH[:TAG]")
    return LayoutReference(Path(path), tag, transport == "oci-archive")
