"""From a name to the one image that a platform pulls: index or manifest, config, layers, file system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kmm_preflight.errors import BoundExceeded, Malformed, NotFound, PlatformMissing
from kmm_preflight.model import JudgedImage
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.document import (
    CONFIG_BYTES,
    Config,
    Descriptor,
    ImageManifest,
    Index,
    check_digest,
    digest_of,
    parse_config,
    parse_manifest,
)
from kmm_preflight.oci.filesystem import FileSystem, Layer, Located
from kmm_preflight.oci.index import LayerEntry, LayerIndex
from kmm_preflight.oci.layers import KeepRules, ReadBudget, VerifiedStream, layer_index
from kmm_preflight.text import listed

INDEX_DEPTH = 3
READ_AGAIN = 16  # how often layers of an image are read for a file that no plan named: what a kmod links to


class Repository(Protocol):
    """What reading an image asks of a registry or a layout; errors are those of errors.py."""

    def manifest(self, reference: str) -> bytes:
        """The body behind a tag or digest, as it came; NotFound, AccessDenied, Undecidable."""

    def has_blob(self, digest: str) -> bool:
        """Whether the blob can be had here with these credentials."""

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """The blob's bytes in pieces, unverified."""


@dataclass(frozen=True)
class ResolvedImage:
    """An image of one platform behind a name. digest is that of the index where there is one.

    read_from is the mirror that has it, None when it is at its own name.
    """

    name: str
    digest: str
    manifest_digest: str
    manifest: ImageManifest
    read_from: str | None = None

    def judged(self) -> JudgedImage:
        """What a report says of it."""
        return JudgedImage(self.name, self.digest, self.manifest_digest, self.read_from)


@dataclass(frozen=True)
class FetchedManifest:
    """Where a name was found: the repository, what it was asked for, and the body that it gave.

    mirror names the place when it is another one than the name's own.
    """

    repository: Repository
    reference: str
    body: bytes
    mirror: str | None = None


def platforms(source: FetchedManifest, name: str) -> tuple[str, ...] | None:
    """Architectures of the Linux images in an index, in its order; None when the name is a single image."""
    document = parse_manifest(_checked(source.body, source.reference, name), name)
    if not isinstance(document, Index):
        return None
    return tuple(child.arch for child in document.children if child.os == "linux")


def find_image(source: FetchedManifest, name: str, arch: str) -> ResolvedImage:
    """The Linux image for the architecture behind the name.

    PlatformMissing when an index has none, or its registry lacks the one that it names (a sparse index).
    """
    body = _checked(source.body, source.reference, name)
    digest = child_digest = digest_of(body, source.reference if ":" in source.reference else "sha256:")
    for _ in range(INDEX_DEPTH):
        document = parse_manifest(body, name)
        if isinstance(document, ImageManifest):
            return ResolvedImage(name, digest, child_digest, document, source.mirror)
        child_digest = _child(document, name, arch)
        try:
            body = _checked(source.repository.manifest(child_digest), child_digest, name)
        except NotFound as exc:
            problem = f"image {name}: its index names {child_digest} for linux/{arch}, which the registry does not have"
            raise PlatformMissing(problem) from exc
    raise BoundExceeded(f"image {name}: more than {INDEX_DEPTH} indexes inside one another")


def _checked(body: bytes, reference: str, name: str) -> bytes:
    if ":" in reference:
        check_digest(body, reference, f"image {name}")
    return body


def _child(index: Index, name: str, arch: str) -> str:
    fits = [child for child in index.children if child.arch == arch and child.os in ("linux", "")]
    # One without a platform is taken last, as nodes do: its own index or config says what it is for.
    for child in (*fits, *(child for child in index.children if not child.arch and not child.os)):
        return child.descriptor.digest
    have = [f"{child.os}/{child.arch}" for child in index.children if child.arch not in ("", "unknown")]
    raise PlatformMissing(f"image {name}: got an index of {listed(have)}, expected linux/{arch}")


class Image:
    """An image that was found, with what was read of it; every byte comes verified, from the cache where it can."""

    def __init__(self, resolved: ResolvedImage, repository: Repository, cache: Cache, wanted: KeepRules) -> None:
        self.resolved = resolved
        self._repository = repository
        self._cache = cache
        self._wanted = wanted
        self._here: set[str] = set()
        self._allowance = ReadBudget()
        self._config: Config | None = None
        self._again: dict[str, LayerIndex] = {}
        self._asked_again: set[str] = set()
        self.files = FileSystem([Layer(self._opener(layer)) for layer in reversed(resolved.manifest.layers)])

    def config(self) -> Config:
        """Architecture, labels and search path; read once."""
        if self._config is None:
            self._config = self._read_config()
        return self._config

    def _read_config(self) -> Config:
        descriptor = self.resolved.manifest.config
        subject = f"config {descriptor.digest} of image {self.resolved.name}"
        if descriptor.size > CONFIG_BYTES:
            raise BoundExceeded(f"{subject}: got {descriptor.size} bytes, read at most {CONFIG_BYTES}")
        with self._cache.lock(descriptor.digest):
            # By another algorithm than sha256 it is in no cache.
            path = self._cache.file(descriptor.digest.removeprefix("sha256:"))
            if path is None:
                body = self._fetched(descriptor, subject)
                self._cache.keep_file([body])
            elif self._repository.has_blob(descriptor.digest):
                body = path.read_bytes()
            else:
                raise Malformed(f"{subject} is not there")
        return parse_config(body, subject)

    def _fetched(self, descriptor: Descriptor, subject: str) -> bytes:
        try:
            with self._repository.blob(descriptor) as chunks:
                verified = VerifiedStream(chunks, descriptor, subject)
                body = b"".join(verified)
                verified.finish()
        except NotFound as exc:
            raise Malformed(f"{subject} is not there") from exc
        return body

    def _opener(self, descriptor: Descriptor) -> _Opener:
        return _Opener(self, descriptor)

    def open_layer(self, descriptor: Descriptor, needed: str = "") -> LayerIndex:
        """The layer's index, with the bytes of the needed path kept; reads the blob where the cache lacks them."""

        def fetch() -> Iterator[bytes]:
            with self._repository.blob(descriptor) as chunks:
                yield from chunks
            self._here.add(descriptor.digest)

        try:
            return layer_index(descriptor, fetch, self._wanted, self._cache, self._allowance, needed)
        except NotFound as exc:
            raise self._gone(descriptor) from exc

    def _gone(self, descriptor: Descriptor) -> Malformed:
        return Malformed(f"layer {descriptor.digest} of image {self.resolved.name} is not there")

    def check_layers(self) -> None:
        """Asks for each layer that was not fetched just now whether it can be had; Malformed when one cannot."""
        for descriptor in self.resolved.manifest.layers:
            if descriptor.digest in self._here:
                continue
            if not self._repository.has_blob(descriptor.digest):
                raise self._gone(descriptor)
            self._here.add(descriptor.digest)

    def content(self, located: Located) -> Path:
        """The bytes of a file, as a file; BoundExceeded when it is too large to keep, or sparse."""
        descriptor = self.resolved.manifest.layers[-1 - located.layer]
        again = self._again.get(descriptor.digest)
        path = self._kept(again.find(located.path) if again else located.entry)
        if path is None and len(self._asked_again) < READ_AGAIN:
            self._asked_again.add(located.path)
            again = self._again[descriptor.digest] = self.open_layer(descriptor, located.path)
            path = self._kept(again.find(located.path))
        if path is None:
            raise BoundExceeded(
                f"/{located.path} of image {self.resolved.name}: too large, or too sparse, to look into"
            )
        return path

    def _kept(self, entry: LayerEntry | None) -> Path | None:
        return self._cache.file(entry.content) if entry and entry.content else None


@dataclass(frozen=True)
class _Opener:
    image: Image
    descriptor: Descriptor

    def __call__(self) -> LayerIndex:
        return self.image.open_layer(self.descriptor)
