"""Parsers for the JSON documents of a registry: manifests, indexes and configs. Anything else is Malformed."""

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
_DOCKER_FIELDS = ("Healthcheck", "Shell", "OnBuild")


@dataclass(frozen=True)
class Descriptor:
    """The reference of a document to a blob."""

    media_type: str | None
    """The media type, or None if the document has none."""
    digest: str
    """The digest of the blob."""
    size: int
    """The size of the blob in bytes."""


@dataclass(frozen=True)
class Child:
    """An entry of an index."""

    descriptor: Descriptor
    """The manifest that the entry names."""
    os: str | None
    """The operating system, or None if the entry has none."""
    arch: str | None
    """The architecture in Go's spelling, or None if the entry has none."""


@dataclass(frozen=True)
class Index:
    """An OCI index or docker manifest list."""

    children: tuple[Child, ...]
    """The entries, in the order of the document."""


@dataclass(frozen=True)
class ImageManifest:
    """An OCI or docker schema 2 manifest."""

    config: Descriptor
    """The config blob."""
    layers: tuple[Descriptor, ...]
    """The layer blobs, base layer first."""


@dataclass(frozen=True)
class Config:
    """The parts of an image's config that this suite reads."""

    os: str | None
    """The operating system, or None if the config has none."""
    arch: str | None
    """The architecture in Go's spelling, or None if the config has none."""
    labels: Mapping[str, str]
    """The labels whose value is text."""
    search_path: str | None = None
    """The PATH of the image's processes, or None if the config sets none."""
    filled_layers: int = 0
    """The number of history entries that have a layer."""
    docker_fields: tuple[str, ...] = ()
    """Fields of the config that only Docker's format has: Healthcheck, Shell, OnBuild."""
    on_build: tuple[str, ...] = ()
    """Instructions of ONBUILD, for images that are built from this image."""


def digest_of(body: bytes, like: str = "sha256:") -> str:
    """Return the digest of the bytes, by the algorithm of the digest `like`."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def check_digest(body: bytes, digest: str, subject: str) -> None:
    """Raise DigestMismatch unless the bytes have the digest."""
    if (got := digest_of(body, digest)) != digest:
        raise DigestMismatch(f"{subject}: got bytes of digest {got}, expected {digest}")


def parse_json(body: bytes, subject: str) -> Field:
    """Return the JSON object as a field. Raise Malformed for anything else."""
    try:
        document = Field(json.loads(body), "")
        document.mapping()
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"{subject}: not a JSON object") from exc
    return document


def parse_manifest(body: bytes, subject: str) -> Index | ImageManifest:
    """Parse an index or a manifest, recognised by its structure: mediaType is optional and sometimes wrong.

    Raise Malformed, or BoundExceeded for too many entries.
    """
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
            Child(
                parse_descriptor(entry),
                entry["platform"]["os"].optional_text(),
                entry["platform"]["architecture"].optional_text(),
            )
            for entry in entries
        )
    )


def _manifest(document: Field, subject: str) -> ImageManifest:
    layers = document["layers"].present("layers: is this an image?")
    config = document["config"].present("a config: is this an image?")
    if len(layers.items()) > LAYERS_IN_AN_IMAGE:
        raise BoundExceeded(f"{subject}: more than {LAYERS_IN_AN_IMAGE} layers")
    manifest = ImageManifest(parse_descriptor(config), tuple(parse_descriptor(layer) for layer in layers))
    media_type = manifest.config.media_type or "image"
    if "config" not in media_type and "image" not in media_type:
        raise config["mediaType"].refuse("an image's config: this is another artifact")
    for descriptor, layer in zip(manifest.layers, layers, strict=True):
        media_type = descriptor.media_type or "tar"
        if "tar" not in media_type or "encrypted" in media_type:
            raise layer["mediaType"].refuse("a tar layer")
    return manifest


def parse_descriptor(field: Field) -> Descriptor:
    """Return a descriptor: digest, size and media type of a blob. Raise Malformed."""
    size = field["size"].value
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise field["size"].refuse("a number of bytes")
    try:
        digest = parse_digest(field["digest"].text())
    except Malformed as exc:
        raise Malformed(f"{field.path}.digest: {exc.message}") from exc
    return Descriptor(field["mediaType"].optional_text(), digest, size)


def parse_config(body: bytes, subject: str) -> Config:
    """Parse an image's config. Raise Malformed."""
    document = parse_json(body, subject)
    try:
        values = document["config"]["Labels"].mapping()
        labels = {key: value for key, value in values.items() if isinstance(value, str)}
        variables = [item.value for item in document["config"]["Env"] if isinstance(item.value, str)]
        paths = [value.removeprefix("PATH=") for value in variables if value.startswith("PATH=")]
        search_path = paths[-1] if paths else None
        return Config(
            document["os"].optional_text(),
            document["architecture"].optional_text(),
            labels,
            search_path,
            filled_layers=_filled_layers(document["history"].value),
            docker_fields=tuple(name for name in _DOCKER_FIELDS if document["config"][name].value),
            on_build=tuple(item for item in _list(document["config"]["OnBuild"].value) if isinstance(item, str)),
        )
    except Malformed as exc:
        raise Malformed(f"{subject}: {exc.message}") from exc


def _filled_layers(history: object) -> int:
    """Count the entries of a history that have a layer. Accept any JSON value: only builds use the number."""
    return sum(isinstance(entry, dict) and entry.get("empty_layer") is not True for entry in _list(history))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
