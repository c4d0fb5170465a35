"""Image names, parsed once at the edge: a reference to a registry, or to a local OCI layout."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NewType

from kmm_preflight.errors import Malformed

Digest = NewType("Digest", str)
"""A digest whose form was checked: sha256:… or sha512:…"""

# The grammar of the distribution project (reference.go), which nodes and registries apply.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_REPOSITORY_CHARACTERS = 255
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_OLD_NAME = "index.docker.io"


def parse_digest(text: str) -> Digest:
    """Return the text as a digest. Raise Malformed for another text or algorithm."""
    if not _DIGEST.fullmatch(text):
        raise Malformed(f"digest: got {text!r}, expected sha256: or sha512: and lower case hexadecimal digits")
    return Digest(text)


def on_loopback(host: str) -> bool:
    """True if host[:port] is this machine. A registry on loopback may use plain HTTP."""
    return _LOOPBACK.fullmatch(host) is not None


def on_cluster_network(host: str) -> bool:
    """True if host[:port] is a Service of Kubernetes, such as OpenShift's own registry: nodes and Pods reach it."""
    return host.partition(":")[0].endswith((".svc", ".svc.cluster.local"))


@dataclass(frozen=True)
class Reference:
    """The name of an image in a registry. If both tag and digest are given, the digest decides."""

    host: str
    """host[:port] of the registry."""
    repository: str
    """The path of the repository, without host, tag and digest."""
    tag: str | None
    """The tag; None is possible only with a digest."""
    digest: str | None
    """The digest, or None if the name has none."""
    written: str | None = field(default=None, compare=False)
    """The text that was parsed, or None if the reference was composed from parts. Two spellings of a name are equal."""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse [host[:port]/]repository[:tag][@digest]. Without a host, the host is docker.io.

        Without tag and digest, the tag is latest. Raise Malformed with the part that is wrong.
        """
        name, at, digest = text.partition("@")
        if at:
            parse_digest(digest)
        head, slash, rest = name.partition("/")
        has_host = bool(slash) and (any(char in head for char in ".:") or head == "localhost" or head != head.lower())
        host, path = (head, rest) if has_host else (_DOCKER_HUB, name)
        host = _DOCKER_HUB if host == _DOCKER_HUB_OLD_NAME else host
        path, colon, tag = path.partition(":")
        _check(text, host, path, tag if colon else None)
        if host == _DOCKER_HUB and "/" not in path:
            path = f"library/{path}"
        return cls(host, path, tag or (None if at else "latest"), digest or None, text)

    @property
    def name(self) -> str:
        """The name for messages and reports: as written, else in full."""
        return self.written or str(self)

    @property
    def identifier(self) -> str:
        """The digest, or the tag if there is no digest: what a request to the registry names."""
        identifier = self.digest or self.tag
        assert identifier  # parse sets at least one
        return identifier

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}{'@' + self.digest if self.digest else ''}"


def _check(text: str, host: str, path: str, tag: str | None) -> None:
    if not (match := _HOST.fullmatch(host)) or int(match["port"] or 1) not in range(1, 65536):
        raise Malformed(f"image name {text!r}: got host {host!r}, expected a host name with an optional port")
    if len(path) > _REPOSITORY_CHARACTERS or not _REPOSITORY.fullmatch(path):
        expected = "lower case letters and digits, separated by . _ - and /"
        raise Malformed(f"image name {text!r}: got repository {path!r}, expected {expected}")
    if tag is not None and not _TAG.fullmatch(tag):
        expected = "at most 128 letters, digits, . _ and -"
        raise Malformed(f"image name {text!r}: got tag {tag!r}, expected {expected}")


@dataclass(frozen=True)
class LayoutReference:
    """The name of an image in a local OCI layout."""

    path: Path
    """The folder or the tar archive of the layout."""
    tag: str | None
    """The image's name or digest in the layout; None names the only image of the layout."""
    archive: bool
    """True if the layout is a tar archive."""

    @property
    def name(self) -> str:
        """The name for messages and reports."""
        return str(self)

    def __str__(self) -> str:
        return f"{'oci-archive' if self.archive else 'oci'}:{self.path}{':' + self.tag if self.tag else ''}"


ImageName = Reference | LayoutReference
"""The name of an image: in a registry, or in a local OCI layout."""


def parse_name(text: str) -> ImageName:
    """Parse an image name: a registry reference, oci:DIR[:TAG] or oci-archive:FILE[:TAG]. Raise Malformed."""
    transport, _, rest = text.partition(":")
    if transport not in ("oci", "oci-archive"):
        return Reference.parse(text)
    path, _, tag = rest.partition(":")
    if not path or "\0" in rest:
        raise Malformed(f"image name {text!r}: the path is missing, expected {transport}:PATH[:TAG]")
    return LayoutReference(Path(path), tag or None, transport == "oci-archive")
