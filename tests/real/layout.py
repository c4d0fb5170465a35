"""Writer of OCI layouts and docker images, byte by byte, for shapes that buildah and skopeo cannot produce."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True)
class Member:
    """A tar entry."""

    name: str
    """The path, as written into the header."""
    data: bytes = b""
    """The content of a file."""
    kind: bytes = tarfile.REGTYPE
    """The type flag of the header."""
    link: str = ""
    """The target of a symbolic or hard link."""
    mode: int = 0o644
    """The permission bits."""


def folder(name: str) -> Member:
    """Return a directory entry."""
    return Member(name, kind=tarfile.DIRTYPE, mode=0o755)


def symlink(name: str, target: str) -> Member:
    """Return a symbolic link entry."""
    return Member(name, kind=tarfile.SYMTYPE, link=target, mode=0o777)


def hardlink(name: str, target: str) -> Member:
    """Return a hard link entry to another name of the same layer."""
    return Member(name, kind=tarfile.LNKTYPE, link=target)


def tar(members: Iterable[Member | tuple[str, bytes]], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return the members as an uncompressed tar. Equal members give equal bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as archive:
        for member in members:
            if isinstance(member, tuple):
                member = Member(*member)
            entry = tarfile.TarInfo(member.name)
            entry.type, entry.linkname, entry.mode = member.kind, member.link, member.mode
            entry.size = len(member.data)
            archive.addfile(entry, io.BytesIO(member.data))
    return out.getvalue()


@dataclass(frozen=True)
class Blob:
    """Bytes in a registry."""

    data: bytes
    """The bytes."""
    media_type: str
    """The media type in the descriptor."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """The annotations of the blob."""

    @property
    def digest(self) -> str:
        """The sha256 digest of the bytes."""
        return "sha256:" + hashlib.sha256(self.data).hexdigest()

    def descriptor(self, **more: object) -> dict[str, object]:
        """Return the descriptor of this blob for a manifest or an index."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data), **more}


def layer(members: Iterable[Member | tuple[str, bytes]], media_type: str = OCI_LAYER + "+gzip") -> Blob:
    """Return a layer: gzip if the media type ends with gzip, else plain tar."""
    data = tar(members)
    return Blob(gzip.compress(data, 6, mtime=0) if media_type.endswith("gzip") else data, media_type)


@dataclass(frozen=True)
class Image:
    """A manifest or an index, with all blobs and manifests below it."""

    manifest: Blob
    """The manifest or index."""
    blobs: Sequence[Blob]
    """The config and the layers of a manifest."""
    children: Sequence[Image] = ()
    """The images of an index."""
    platform: Mapping[str, str] | None = None
    """The platform in the entry of an index."""

    @property
    def digest(self) -> str:
        """The sha256 digest of the manifest."""
        return self.manifest.digest


def image(
    layers: Sequence[Blob],
    architecture: str = "amd64",
    labels: Mapping[str, str] | None = None,
    docker: bool = False,
    keep_media_type: bool = True,
    history: bool = False,
) -> Image:
    """Return an image of these layers, base first. Its config has the architecture and the labels.

    Set history for a base image of builds: buildah counts the entries, and identifies images by their diff_ids.
    """
    body: dict[str, object] = {"architecture": architecture, "os": "linux", "config": {"Labels": dict(labels or {})},
            "rootfs": {"type": "layers", "diff_ids": []}}  # fmt: skip
    if history:
        body |= {"history": [{"created_by": "the tests"} for _ in layers]}
        body |= {"rootfs": {"type": "layers", "diff_ids": [_diff_id(blob) for blob in layers]}}
    config = Blob(json.dumps(body).encode(), DOCKER_CONFIG if docker else OCI_CONFIG)
    manifest: dict[str, object] = {"schemaVersion": 2}
    if keep_media_type:
        manifest["mediaType"] = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest |= {"config": config.descriptor(), "layers": [layer.descriptor() for layer in layers]}
    blob = Blob(json.dumps(manifest).encode(), DOCKER_MANIFEST if docker else OCI_MANIFEST)
    return Image(blob, [config, *layers], platform={"architecture": architecture, "os": "linux"})


def _diff_id(blob: Blob) -> str:
    data = gzip.decompress(blob.data) if blob.media_type.endswith("gzip") else blob.data
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def index(children: Sequence[Image], docker: bool = False, extra: Sequence[Mapping[str, object]] = ()) -> Image:
    """Return an OCI index or docker list of the children. Add extra descriptors, such as attestations, as given."""
    media_type = DOCKER_LIST if docker else OCI_INDEX
    entries = [child.manifest.descriptor(platform=dict(child.platform or {})) for child in children]
    body = {"schemaVersion": 2, "mediaType": media_type, "manifests": [*entries, *extra]}
    return Image(Blob(json.dumps(body).encode(), media_type), [], children)


def write_layout(directory: Path, images: Mapping[str, Image]) -> Path:
    """Write an OCI layout with the images by their names (org.opencontainers.image.ref.name). Return its path."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entries = []
    for name, image in images.items():
        for blob in every_blob(image):
            (blobs / blob.digest.partition(":")[2]).write_bytes(blob.data)
        entries.append(image.manifest.descriptor(annotations={"org.opencontainers.image.ref.name": name}))
    listing = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    (directory / "index.json").write_text(json.dumps(listing, indent=1))
    return directory


def every_blob(image: Image) -> list[Blob]:
    """Return all blobs of an image: children first, its manifest last. A registry accepts them in this order."""
    below = [blob for child in image.children for blob in every_blob(child)]
    return [*below, *image.blobs, image.manifest]
