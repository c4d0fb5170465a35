"""Parsers for the JSON documents of a registry: manifests, indexes and configs. Anything else is Malformed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import BoundExceeded, DigestMismatch, Malformed
from kmm_preflight.oci.media_type import (
    DOCKER_LAYERS,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEXES,
    OCI_CONFIG,
    OCI_MANIFEST,
    SCHEMA_1,
    SIGNED_SCHEMA_1,
    check_fields,
    guessed_type,
)
from kmm_preflight.oci.reference import parse_digest

MANIFEST_BYTES = 4 * 1024 * 1024  # the bound of containers/image
CONFIG_BYTES = 4 * 1024 * 1024
MANIFESTS_IN_AN_INDEX = 1000
LAYERS_IN_AN_IMAGE = 500
_ZSTD = "io.github.containers.compression.zstd"
_DOCKER_FIELDS = ("Healthcheck", "Shell", "OnBuild")


@dataclass(frozen=True)
class Descriptor:
    """The reference of a document to a blob."""

    media_type: str | None
    """The media type, or None if the document has none."""
    digest: str
    """The digest of the blob."""
    size: int
    """The size of the blob in bytes; 0 if the document names none."""
    sized: bool = True
    """True if the document names a size. A manifest of schema 1 names none."""


@dataclass(frozen=True)
class Child:
    """An entry of an index."""

    descriptor: Descriptor
    """The manifest that the entry names."""
    os: str | None
    """The operating system, or None if the entry has none."""
    arch: str | None
    """The architecture in Go's spelling, or None if the entry has none."""
    variant: str | None = None
    """The variant of the architecture, such as v8, or None if the entry has none."""
    zstd: bool = False
    """True if an annotation says that its layers are compressed with zstd."""

    @property
    def platform(self) -> str:
        """The platform in words, such as linux/amd64/v2."""
        return "/".join([self.os or "", self.arch or "", *([self.variant] if self.variant else [])])


@dataclass(frozen=True)
class Index:
    """An OCI index or docker manifest list."""

    children: tuple[Child, ...]
    """The entries, in the order of the document."""
    docker: bool = False
    """True for a docker manifest list."""


@dataclass(frozen=True)
class ManifestAnswer:
    """The answer of a registry or layout to a request for a manifest."""

    body: bytes
    """The body, unverified."""
    media_type: str | None = None
    """The media type by which a node reads the body. None if nothing but the body names the type."""


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


_NO_CONFIG = Config(None, None, {})


@dataclass(frozen=True)
class ImageManifest:
    """An OCI manifest, or a docker manifest of schema 2 or 1."""

    config: Descriptor | None
    """The config blob. None for schema 1, whose manifest has the config."""
    layers: tuple[Descriptor, ...]
    """The layer blobs, base layer first."""
    own_config: Config = _NO_CONFIG
    """The config in a manifest of schema 1."""


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


def parse_manifest(answer: ManifestAnswer, subject: str) -> Index | ImageManifest:
    """Parse an index or a manifest as its media type says. Without a media type, the body decides.

    Raise Malformed, or BoundExceeded for too many entries.
    """
    document = parse_json(answer.body, subject)
    try:
        media_type = answer.media_type or guessed_type(document.mapping())
        check_fields(document.mapping(), media_type)
        if media_type in INDEXES:
            return _index(document["manifests"].present("an index"), subject, media_type == DOCKER_LIST)
        if media_type in (SCHEMA_1, SIGNED_SCHEMA_1):
            return _schema_1(document, subject)
        return _manifest(document, subject, media_type)
    except Malformed as exc:
        raise Malformed(f"{subject}: {exc.message}") from exc


def _index(entries: Field, subject: str, docker: bool) -> Index:
    if len(entries.items()) > MANIFESTS_IN_AN_INDEX:
        raise BoundExceeded(f"{subject}: more than {MANIFESTS_IN_AN_INDEX} manifests in an index")
    return Index(
        tuple(
            Child(
                parse_descriptor(entry),
                entry["platform"]["os"].optional_text(),
                entry["platform"]["architecture"].optional_text(),
                entry["platform"]["variant"].optional_text(),
                entry["annotations"][_ZSTD].value == "true",
            )
            for entry in entries
        ),
        docker,
    )


def _manifest(document: Field, subject: str, media_type: str) -> ImageManifest:
    named = document["mediaType"].text()
    if named != media_type and (named or media_type == DOCKER_MANIFEST):
        raise document["mediaType"].refuse(f"{media_type}, its Content-Type")
    layers = document["layers"].present("layers: is this an image?")
    config = document["config"].present("a config: is this an image?")
    _check_layers(layers, subject)
    manifest = ImageManifest(parse_descriptor(config), tuple(parse_descriptor(layer) for layer in layers))
    if media_type == OCI_MANIFEST and config["mediaType"].value != OCI_CONFIG:
        raise config["mediaType"].refuse(f"{OCI_CONFIG}: this is another artifact, not an image")
    for descriptor, layer in zip(manifest.layers, layers, strict=True):
        if media_type == DOCKER_MANIFEST and descriptor.media_type not in DOCKER_LAYERS:
            raise layer["mediaType"].refuse(f"a layer of a docker image, such as {DOCKER_LAYERS[1]}")
        if "encrypted" in (descriptor.media_type or ""):
            raise layer["mediaType"].refuse("a layer that is not encrypted")
    return manifest


def _check_layers(layers: Field, subject: str) -> None:
    if len(layers.items()) > LAYERS_IN_AN_IMAGE:
        raise BoundExceeded(f"{subject}: more than {LAYERS_IN_AN_IMAGE} layers")


def _schema_1(document: Field, subject: str) -> ImageManifest:
    """Return the image of docker's schema 1: the layers are listed from the top, and entries of history are JSON."""
    if document["schemaVersion"].value != 1:
        raise document["schemaVersion"].refuse("1: its Content-Type names no type of today's manifests")
    layers, history = document["fsLayers"].present("layers"), document["history"].present("a history")
    _check_layers(layers, subject)
    if not layers.items() or len(layers.items()) != len(history.items()):
        raise history.refuse("as many entries as there are layers")
    entries = [parse_json(item["v1Compatibility"].text().encode(), subject) for item in history]
    kept = [
        Descriptor(None, _digest(layer["blobSum"]), 0, sized=False)
        for layer, entry in zip(layers, entries, strict=True)
        if entry["throwaway"].value is not True
    ]
    own = parse_config(history.items()[0]["v1Compatibility"].text().encode(), subject)
    return ImageManifest(None, tuple(reversed(kept)), replace(own, arch=document["architecture"].optional_text()))


def parse_descriptor(field: Field) -> Descriptor:
    """Return a descriptor: digest, size and media type of a blob. Raise Malformed."""
    size = field["size"].value
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise field["size"].refuse("a number of bytes")
    return Descriptor(field["mediaType"].optional_text(), _digest(field["digest"]), size)


def _digest(field: Field) -> str:
    try:
        return parse_digest(field.text())
    except Malformed as exc:
        raise Malformed(f"{field.path}: {exc.message}") from exc


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
