"""Manifests, indexes and configs: JSON of a registry becomes values, or is Malformed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import BoundExceeded, DigestMismatch, Malformed
from kmm_preflight.oci.reference import parse_digest

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MANIFEST_BYTES = 4 * 1024 * 1024  # the bound of containers/image
CONFIG_BYTES = 4 * 1024 * 1024
MANIFESTS_IN_AN_INDEX = 1000
LAYERS_IN_AN_IMAGE = 500


@dataclass(frozen=True)
class Descriptor:
    """How a document names a blob; size in bytes."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True)
class Child:
    """An entry of an index; os and arch are "" where it does not say."""

    descriptor: Descriptor
    os: str
    arch: str


@dataclass(frozen=True)
class Index:
    """An OCI index or docker list, in its order."""

    children: tuple[Child, ...]


@dataclass(frozen=True)
class ImageManifest:
    """An OCI or docker schema 2 manifest; layers base first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class Config:
    """What an image says of itself; "" where it does not. search_path is PATH of its processes."""

    os: str
    arch: str
    labels: Mapping[str, str]
    search_path: str = ""


def digest_of(body: bytes, like: str = "sha256:") -> str:
    """The digest of the bytes, by the algorithm of the other digest."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def check_digest(body: bytes, digest: str, subject: str) -> None:
    """DigestMismatch unless the bytes have the digest."""
    if (got := digest_of(body, digest)) != digest:
        raise DigestMismatch(f"{subject}: got bytes of digest {got}, expected {digest}")


def parse_json(body: bytes, subject: str) -> Field:
    """The JSON object; Malformed for anything else."""
    try:
        document = Field(json.loads(body), "")
        document.mapping()
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"{subject}: got no JSON object") from exc
    return document


def parse_manifest(body: bytes, subject: str) -> Index | ImageManifest:
    """Index or manifest, told apart by structure: mediaType is optional, and wrong now and then."""
    document = parse_json(body, subject)
    try:
        if document["manifests"].given:
            return _index(document["manifests"], subject)
        if document["schemaVersion"].value == 1:
            raise document["schemaVersion"].refuse("2: schema 1 holds no digest of a config and nodes refuse it")
        return _manifest(document, subject)
    except Malformed as exc:
        raise Malformed(f"{subject}: {exc.message}") from exc


def _index(entries: Field, subject: str) -> Index:
    if len(entries.items()) > MANIFESTS_IN_AN_INDEX:
        raise BoundExceeded(f"{subject}: more than {MANIFESTS_IN_AN_INDEX} manifests in an index")
    return Index(
        tuple(
            Child(_descriptor(entry), entry["platform"]["os"].text(), entry["platform"]["architecture"].text())
            for entry in entries
        )
    )


def _manifest(document: Field, subject: str) -> ImageManifest:
    layers = document["layers"].present("layers: is this an image?")
    config = document["config"].present("a config: is this an image?")
    if len(layers.items()) > LAYERS_IN_AN_IMAGE:
        raise BoundExceeded(f"{subject}: more than {LAYERS_IN_AN_IMAGE} layers")
    made = ImageManifest(_descriptor(config), tuple(_descriptor(layer) for layer in layers))
    if made.config.media_type and "config" not in made.config.media_type and "image" not in made.config.media_type:
        raise config["mediaType"].refuse("an image's config: this is another artifact")
    for layer, item in zip(made.layers, layers, strict=True):
        if layer.media_type and ("tar" not in layer.media_type or "encrypted" in layer.media_type):
            raise item["mediaType"].refuse("a tar layer")
    return made


def _descriptor(field: Field) -> Descriptor:
    size = field["size"].value
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise field["size"].refuse("a number of bytes")
    try:
        digest = parse_digest(field["digest"].text())
    except Malformed as exc:
        raise Malformed(f"{field.path}.digest: {exc.message}") from exc
    return Descriptor(field["mediaType"].text(), digest, size)


def parse_config(body: bytes, subject: str) -> Config:
    """System, architecture, labels and search path of an image's config."""
    document = parse_json(body, subject)
    try:
        labels = document["config"]["Labels"].mapping()
        told = {key: text for key, text in labels.items() if isinstance(text, str)}
        variables = [item.value for item in document["config"]["Env"] if isinstance(item.value, str)]
        paths = [value.removeprefix("PATH=") for value in variables if value.startswith("PATH=")]
        return Config(document["os"].text(), document["architecture"].text(), told, paths[-1] if paths else "")
    except Malformed as exc:
        raise Malformed(f"{subject}: {exc.message}") from exc
