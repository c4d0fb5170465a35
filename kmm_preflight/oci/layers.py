"""Reading of a layer: verify, decompress and walk the whole blob once, then keep its index and the requested files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from kmm_preflight.base.decompression import decompress
from kmm_preflight.errors import BoundExceeded, DigestMismatch, Malformed, Truncated
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.document import Descriptor
from kmm_preflight.oci.index import LayerEntry, LayerIndex
from kmm_preflight.oci.tar import STREAM_BYTES, ByteReader, EntryKind, Member, walk
from kmm_preflight.oci.unpacking import UnpackedLayer

NAMES_IN_A_LAYER = 400_000
NAMES_UNPACKED = 100_000
RECORD_BYTES = 40 << 20
KEPT_FILE_BYTES = 512 << 20
KEPT_LAYER_BYTES = 2 << 30
KEPT_FILES = 10_000
NAMES_IN_AN_IMAGE = 1_000_000


def keep_nothing(path: str) -> bool:
    """Return False: keep no file."""
    return False


@dataclass(frozen=True)
class KeepRules:
    """Rules for which files of a layer the bytes are kept."""

    paths: frozenset[str] = frozenset()
    """Single files."""
    keeps: Callable[[str], bool] = keep_nothing
    """True if the file at this path is kept."""
    together: Callable[[str], bool] = keep_nothing
    """True for files that are kept together: a request for one such file keeps all such files of its folder."""
    folders: frozenset[str] = frozenset()
    """Folders in which all files that are kept together are kept."""

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str):
            return False
        if path in self.paths or self.keeps(path):
            return True
        return self.together(path) and any(path.startswith(f"{folder}/") for folder in self.folders)

    def with_file(self, path: str, kept: Iterable[str]) -> KeepRules:
        """Return these rules with another file, the files kept before, and the files that belong with the new file."""
        folders = {path.rpartition("/")[0]} if "/" in path and self.together(path) else set[str]()
        return replace(self, paths=self.paths | {path, *kept}, folders=self.folders | folders)


@dataclass
class ReadBudget:
    """The rest of the budget for reading the layers of an image."""

    unpacked: int = STREAM_BYTES
    """Decompressed bytes."""
    names: int = NAMES_IN_AN_IMAGE
    """Names of entries."""

    def spend(self, unpacked: int, names: int) -> None:
        """Subtract the cost of a layer."""
        self.unpacked -= unpacked
        self.names -= names


class VerifiedStream:
    """The chunks of a blob, measured and hashed while they pass. `finish` checks size and digest."""

    def __init__(self, chunks: Iterable[bytes], descriptor: Descriptor, subject: str) -> None:
        self._chunks = iter(chunks)
        self._descriptor = descriptor
        self._subject = subject
        self._hash = hashlib.new(descriptor.digest.partition(":")[0])
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._size += len(chunk)
            if self._size > (self._descriptor.size if self._descriptor.sized else STREAM_BYTES):
                raise DigestMismatch(f"{self._subject}: got more than {self._descriptor.size} bytes")
            self._hash.update(chunk)
            yield chunk

    def finish(self) -> None:
        """Read the rest of the blob and check it.

        Raise Truncated or DigestMismatch if the bytes do not match the descriptor. Raise Malformed if the digest
        matches but the descriptor's size is larger.
        """
        for _ in self:
            pass
        algorithm = self._descriptor.digest.partition(":")[0]
        got = f"{algorithm}:{self._hash.hexdigest()}"
        sizes = f"{self._subject}: got {self._size} bytes, expected {self._descriptor.size}"
        if self._descriptor.sized and self._size < self._descriptor.size:
            if got == self._descriptor.digest:
                raise Malformed(f"{sizes}: the manifest has a wrong size")
            raise Truncated(sizes)
        if got != self._descriptor.digest:
            raise DigestMismatch(f"{self._subject}: got bytes of digest {got}, expected {self._descriptor.digest}")


def layer_index(
    descriptor: Descriptor,
    fetch: Callable[[], Iterator[bytes]],
    keep: KeepRules,
    cache: Cache,
    budget: ReadBudget,
    needed: str | None = None,
) -> LayerIndex:
    """Return the layer's index from the cache, or read the blob that fetch opens.

    needed is a path whose bytes must be kept: a cached layer without them is read again. One process reads a layer
    while others wait for it. Raise Malformed, BoundExceeded, and the errors of fetch and VerifiedStream.
    """
    with cache.lock(descriptor.digest):
        index = cache.index(descriptor.digest)
        if index and not (needed and _is_lost(index, needed, cache)):
            return index
        if needed:
            keep = keep.with_file(needed, (*index.kept(), *_link_targets(index, keep)) if index else ())
        return scan(descriptor, fetch(), keep, cache, budget)


def _link_targets(index: LayerIndex, keep: KeepRules) -> Iterator[str]:
    """Yield the targets of the hard links that the rules keep.

    A target comes before its link in a layer, so its bytes have passed when the link is read. Every name in an ostree
    container is such a link.
    """
    return (entry.link for entry in index.below("") if entry.kind is EntryKind.HARDLINK and entry.path in keep)


def _is_lost(index: LayerIndex, path: str, cache: Cache) -> bool:
    entry = index.find(path)
    return entry is not None and (not entry.content or cache.file(entry.content) is None)


def scan(
    descriptor: Descriptor, chunks: Iterable[bytes], keep: KeepRules, cache: Cache, budget: ReadBudget
) -> LayerIndex:
    """Read the whole blob. Keep its index, and the files that the rules keep, in the cache."""
    subject = f"layer {descriptor.digest}"
    verified = VerifiedStream(chunks, descriptor, subject)
    reader = ByteReader(decompress(verified, subject), subject, budget.unpacked)
    records: list[bytes] = []
    try:
        _walk_into(records, reader, subject, keep, cache, min(NAMES_IN_A_LAYER, budget.names))
        reader.skip_rest()  # a node unpacks the whole stream, and refuses damage after the last entry too
    except Malformed:
        # The image itself is damaged only if the bytes match the digest: otherwise finish raises DigestMismatch.
        verified.finish()
        raise
    finally:
        budget.spend(reader.position, len(records))
    verified.finish()
    return cache.keep_index(descriptor.digest, records)


def _walk_into(
    records: list[bytes], reader: ByteReader, subject: str, keep: KeepRules, cache: Cache, names: int
) -> None:
    total, kept, files = 0, 0, 0
    unpacked: UnpackedLayer | None = UnpackedLayer()
    problem: str | None = None
    for number, member in enumerate(walk(reader, subject)):
        content = None
        if member.path in keep and _is_keepable(member, kept) and files < KEPT_FILES:
            files += 1
            content = cache.keep_file(reader.pieces(member.size))
            kept += member.size
        entry = LayerEntry(member.path, member.kind, member.size, member.mode, member.link, content)
        record = entry.packed(number)
        total += len(record)
        if number >= names or total > RECORD_BYTES:
            raise BoundExceeded(f"{subject}: more than {names} names, or more than {RECORD_BYTES >> 20} MiB of names")
        if member.path:
            records.append(record)
        if number == NAMES_UNPACKED:
            unpacked = None  # its memory would grow with the layer
        if unpacked and problem is None:
            problem = unpacked.add(member)
    if problem:
        records.append(LayerEntry("", EntryKind.FOLDER, link=problem).packed(0))


def _is_keepable(member: Member, kept: int) -> bool:
    """True if the bytes in the stream are the file's content, and within the bounds."""
    if member.kind is not EntryKind.FILE or member.sparse or member.size > KEPT_FILE_BYTES:
        return False
    return kept + member.size <= KEPT_LAYER_BYTES
