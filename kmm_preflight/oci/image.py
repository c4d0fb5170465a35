"""Images of one platform: from a name to index or manifest, config, layers and file system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kmm_preflight.errors import BoundExceeded, Malformed, NotFound, PlatformMissing
from kmm_preflight.model import JudgedImage
from kmm_preflight.oci.attachments import read_attachments
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.document import (
    CONFIG_BYTES,
    Config,
    Descriptor,
    ImageManifest,
    Index,
    ManifestAnswer,
    check_digest,
    digest_of,
    parse_config,
    parse_manifest,
)
from kmm_preflight.oci.filesystem import FileSystem, Layer, Located
from kmm_preflight.oci.index import LayerEntry, LayerIndex
from kmm_preflight.oci.layers import KeepRules, ReadBudget, VerifiedStream, layer_index
from kmm_preflight.oci.sigstore import Attachment
from kmm_preflight.text import listed

INDEX_DEPTH = 3
# Variants that a node of an architecture takes, best first. A node for amd64 takes none of v2, v3 and v4.
_VARIANTS: dict[str, tuple[str | None, ...]] = {"arm64": ("v8", None)}
# How many times the layers of an image may be read again, for files that the rules did not keep at first.
READ_AGAIN = 16


class Repository(Protocol):
    """A registry's repository or a local layout, as a source of manifests and blobs. It raises PreflightError."""

    def manifest(self, reference: str) -> ManifestAnswer:
        """Return the answer for a tag or digest, unverified. Raise NotFound, AccessDenied or Undecidable."""

    def has_blob(self, digest: str) -> bool:
        """True if the blob can be read here with these credentials."""

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Return the blob's bytes in pieces, unverified."""


@dataclass(frozen=True)
class ResolvedImage:
    """The image of one platform for a name."""

    name: str
    """The name of the image, as written."""
    digest: str
    """The digest for the name: of the index if there is one, else of the manifest."""
    manifest_digest: str
    """The digest of the platform's manifest."""
    manifest: ImageManifest
    """The platform's manifest."""
    read_from: str | None = None
    """The mirror that the image was read from, or None if it was read from its own name."""

    def judged(self) -> JudgedImage:
        """Return the values that a report shows."""
        return JudgedImage(self.name, self.digest, self.manifest_digest, self.read_from)


@dataclass(frozen=True)
class FetchedManifest:
    """The first manifest or index for a name, with its repository."""

    repository: Repository
    """The repository that returned the body."""
    reference: str
    """The tag or digest in the request."""
    answer: ManifestAnswer
    """The body, unverified, with its media type."""
    mirror: str | None = None
    """The name at the mirror, or None if the body was read from the image's own name."""


def platforms(fetched: FetchedManifest, name: str) -> tuple[str, ...] | None:
    """Return the architectures of the Linux images in an index, in its order, or None for a single image.

    An entry without an architecture has the empty one.
    """
    document = parse_manifest(_checked(fetched.answer, fetched.reference, name), name)
    if not isinstance(document, Index):
        return None
    return tuple(child.arch or "" for child in document.children if child.os == "linux")


def find_image(fetched: FetchedManifest, name: str, arch: str) -> ResolvedImage:
    """Return the Linux image of the architecture for the name.

    Raise PlatformMissing if an index has no such image, or names an image that its registry does not have (a sparse
    index).
    """
    answer = _checked(fetched.answer, fetched.reference, name)
    digest = child_digest = digest_of(answer.body, fetched.reference if ":" in fetched.reference else "sha256:")
    for _ in range(INDEX_DEPTH):
        document = parse_manifest(answer, name)
        if isinstance(document, ImageManifest):
            return ResolvedImage(name, digest, child_digest, document, fetched.mirror)
        child_digest = _child(document, name, arch)
        try:
            answer = _checked(fetched.repository.manifest(child_digest), child_digest, name)
        except NotFound as exc:
            problem = f"image {name}: its index names {child_digest} for linux/{arch}, which the registry does not have"
            raise PlatformMissing(problem) from exc
    raise BoundExceeded(f"image {name}: more than {INDEX_DEPTH} indexes inside one another")


def _checked(answer: ManifestAnswer, reference: str, name: str) -> ManifestAnswer:
    if ":" in reference:
        check_digest(answer.body, reference, f"image {name}")
    return answer


def _child(index: Index, name: str, arch: str) -> str:
    """Return the digest of the entry that a node takes (docs/reference/openshift.md 5.6)."""
    matching = [
        (variants.index(child.variant), not child.zstd, position, child)
        for variants in [_VARIANTS.get(arch, (None,))]
        for position, child in enumerate(index.children)
        if child.os == "linux" and child.arch == arch and child.variant in variants
    ]
    # Nodes try an entry of an OCI index without a platform last: its own index or config names the platform.
    unspecified = [child for child in index.children if not (child.arch or child.os or index.docker)]
    if matching:
        return min(matching, key=lambda found: found[:3])[3].descriptor.digest
    if unspecified:
        return unspecified[0].descriptor.digest
    available = [child.platform for child in index.children if child.arch not in (None, "unknown")]
    raise PlatformMissing(f"image {name}: got an index of {listed(available)}, expected linux/{arch}")


class Image:
    """An open image. Every byte that it returns is verified, and comes from the cache if possible."""

    def __init__(self, resolved: ResolvedImage, repository: Repository, cache: Cache, keep: KeepRules) -> None:
        self.resolved = resolved
        self._repository = repository
        self._cache = cache
        self._keep = keep
        self._available: set[str] = set()
        self._budget = ReadBudget()
        self._config: Config | None = None
        self._problems: dict[str, str] = {}
        self._reread: dict[str, LayerIndex] = {}
        self._reread_paths: set[str] = set()
        self.files = FileSystem([Layer(_Opener(self, layer)) for layer in reversed(resolved.manifest.layers)])

    @property
    def layer_count(self) -> int:
        """The number of its layers."""
        return len(self.resolved.manifest.layers)

    def config(self) -> Config:
        """Return the image's config. Read it once."""
        if self._config is None:
            self._config = self._read_config()
        return self._config

    def other_platform(self, arch: str | None) -> str | None:
        """Return the problem if the config names another platform than linux and this architecture, else None."""
        config = self.config()
        if config.os in (None, "linux") and (arch is None or config.arch in (None, arch)):
            return None
        got = config.arch if config.os in (None, "linux") else f"{config.os}/{config.arch or ''}"
        return f"image {self.resolved.name}: got an image for {got}, expected linux/{arch or 'any'}"

    def _read_config(self) -> Config:
        descriptor = self.resolved.manifest.config
        if descriptor is None:
            return self.resolved.manifest.own_config
        subject = f"config {descriptor.digest} of image {self.resolved.name}"
        if descriptor.size > CONFIG_BYTES:
            raise BoundExceeded(f"{subject}: got {descriptor.size} bytes, expected at most {CONFIG_BYTES}")
        with self._cache.lock(descriptor.digest):
            # The cache holds files by sha256, so it has no config whose digest uses another algorithm.
            path = self._cache.file(descriptor.digest.removeprefix("sha256:"))
            if path is None:
                body = self._fetched(descriptor, subject)
                self._cache.keep_file([body])
            elif self._repository.has_blob(descriptor.digest):
                body = path.read_bytes()
            else:
                raise _missing(subject)
        return parse_config(body, subject)

    def _fetched(self, descriptor: Descriptor, subject: str) -> bytes:
        try:
            with self._repository.blob(descriptor) as chunks:
                verified = VerifiedStream(chunks, descriptor, subject)
                body = b"".join(verified)
                verified.finish()
        except NotFound as exc:
            raise _missing(subject) from exc
        return body

    def open_layer(self, descriptor: Descriptor, needed: str | None = None) -> LayerIndex:
        """Return the layer's index. Keep the bytes of the needed path. Read the blob if the cache lacks them."""

        def fetch() -> Iterator[bytes]:
            with self._repository.blob(descriptor) as chunks:
                yield from chunks
            self._available.add(descriptor.digest)

        try:
            index = layer_index(descriptor, fetch, self._keep, self._cache, self._budget, needed)
        except NotFound as exc:
            raise _missing(self._layer_subject(descriptor)) from exc
        if problem := index.problem():
            self._problems[descriptor.digest] = f"layer {descriptor.digest}: {problem}"
        return index

    def check_unpacking(self) -> None:
        """Raise Malformed if a node cannot unpack one of the layers that were read."""
        for problem in self._problems.values():
            raise Malformed(f"image {self.resolved.name}: {problem}, so a node cannot unpack the image")

    def _layer_subject(self, descriptor: Descriptor) -> str:
        return f"layer {descriptor.digest} of image {self.resolved.name}"

    def attachments(self) -> tuple[Attachment, ...]:
        """Return the signatures of the platform's manifest in its registry, unverified. Raise PreflightError."""
        digest, subject = self.resolved.manifest_digest, f"image {self.resolved.name}"
        return read_attachments(self._repository, digest, subject)

    def check_layers(self) -> None:
        """Check that each layer can be read, except the layers that were just fetched. Raise Malformed if one cannot.

        The content of these layers is not read.
        """
        for descriptor in self.resolved.manifest.layers:
            if descriptor.digest in self._available:
                continue
            if not self._repository.has_blob(descriptor.digest):
                raise _missing(self._layer_subject(descriptor))
            self._available.add(descriptor.digest)

    def content(self, located: Located) -> Path:
        """Return the path of a local file with the bytes of an entry.

        Raise BoundExceeded if the entry is too large to keep, or sparse.
        """
        descriptor = self.resolved.manifest.layers[-1 - located.layer]
        index = self._reread.get(descriptor.digest)
        path = self._kept(index.find(located.path) if index else located.entry)
        if path is None and len(self._reread_paths) < READ_AGAIN:
            self._reread_paths.add(located.path)
            index = self._reread[descriptor.digest] = self.open_layer(descriptor, located.path)
            path = self._kept(index.find(located.path))
        if path is None:
            raise BoundExceeded(f"/{located.path} of image {self.resolved.name}: too large or too sparse to read")
        return path

    def _kept(self, entry: LayerEntry | None) -> Path | None:
        return self._cache.file(entry.content) if entry and entry.content else None


@dataclass(frozen=True)
class _Opener:
    image: Image
    descriptor: Descriptor

    def __call__(self) -> LayerIndex:
        return self.image.open_layer(self.descriptor)


def _missing(subject: str) -> Malformed:
    return Malformed(f"{subject} is missing from its repository")
