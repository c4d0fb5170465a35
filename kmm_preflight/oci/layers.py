"""A layer is read once from end to end: verified, unpacked, walked; what stays is its index and the files asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from kmm_preflight.errors import BoundExceeded, DigestMismatch, Malformed, Truncated
from kmm_preflight.kmod.names import is_kmod_file, module_key
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.compression import decompressed
from kmm_preflight.oci.document import Descriptor
from kmm_preflight.oci.index import Entry, LayerIndex
from kmm_preflight.oci.tar import ByteReader, Kind, Member, walk

NAMES_IN_A_LAYER = 400_000
RECORD_BYTES = 40 << 20
KEPT_FILE_BYTES = 512 << 20
KEPT_LAYER_BYTES = 2 << 30


@dataclass(frozen=True)
class Wanted:
    """Which files' bytes a run asks for: single paths, kmods by module name, every kmod below a folder."""

    paths: frozenset[str] = frozenset()
    kmods: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str):
            return False
        name = PurePosixPath(path).name
        if path in self.paths:
            return True
        if not is_kmod_file(name):
            return False
        return module_key(name) in self.kmods or any(path.startswith(f"{folder}/") for folder in self.folders)

    def and_path(self, path: str) -> Wanted:
        """The same, and one path more."""
        return Wanted(self.paths | {path}, self.kmods, self.folders)


class Verified:
    """Chunks of a blob on their way, measured and hashed; finish() tells whether they were what was asked for."""

    def __init__(self, chunks: Iterable[bytes], descriptor: Descriptor, subject: str) -> None:
        self._chunks = iter(chunks)
        self._descriptor = descriptor
        self._subject = subject
        self._hash = hashlib.new(descriptor.digest.partition(":")[0])
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._size += len(chunk)
            if self._size > self._descriptor.size:
                expected = f"expected {self._descriptor.size}"
                raise DigestMismatch(f"{self._subject}: got more than {expected} bytes, {expected}")
            self._hash.update(chunk)
            yield chunk

    def finish(self) -> None:
        """Reads what is left; Truncated or DigestMismatch when the bytes are not those of the descriptor."""
        for _ in self:
            pass
        if self._size < self._descriptor.size:
            raise Truncated(f"{self._subject}: got {self._size} bytes, expected {self._descriptor.size}")
        algorithm = self._descriptor.digest.partition(":")[0]
        got = f"{algorithm}:{self._hash.hexdigest()}"
        if got != self._descriptor.digest:
            raise DigestMismatch(f"{self._subject}: got bytes of digest {got}, expected {self._descriptor.digest}")


def layer_index(
    descriptor: Descriptor, fetch: Callable[[], Iterator[bytes]], wanted: Wanted, cache: Cache, needed: str = ""
) -> LayerIndex:
    """The layer's index from the cache, or from the blob that fetch opens.

    needed is a path whose bytes must be among what was kept: a layer without them is read again. One process reads,
    others wait for it. Raises what fetch and Verified raise, Malformed and BoundExceeded.
    """
    with cache.lock(descriptor.digest):
        index = cache.index(descriptor.digest)
        if index and not (needed and _lost(index, needed, cache)):
            return index
        return scan(descriptor, fetch(), wanted.and_path(needed) if needed else wanted, cache)


def _lost(index: LayerIndex, path: str, cache: Cache) -> bool:
    entry = index.find(path)
    return entry is not None and (not entry.content or cache.file(entry.content) is None)


def scan(descriptor: Descriptor, chunks: Iterable[bytes], wanted: Wanted, cache: Cache) -> LayerIndex:
    """Reads the whole blob and keeps its index and the wanted files."""
    subject = f"layer {descriptor.digest}"
    verified = Verified(chunks, descriptor, subject)
    try:
        records = _records(ByteReader(decompressed(verified, subject), subject), subject, wanted, cache)
    except Malformed:
        # Damage is the image's own only if the bytes are those that its manifest names.
        verified.finish()
        raise
    verified.finish()
    return cache.keep_index(descriptor.digest, records)


def _records(reader: ByteReader, subject: str, wanted: Wanted, cache: Cache) -> list[bytes]:
    records: list[bytes] = []
    total, kept = 0, 0
    for number, member in enumerate(walk(reader, subject)):
        content = ""
        if member.path in wanted and _keepable(member, kept):
            content = cache.keep_file(reader.pieces(member.size))
            kept += member.size
        entry = Entry(member.path, member.kind, member.size, member.mode, member.link, content)
        record = entry.packed(number)
        total += len(record)
        if number >= NAMES_IN_A_LAYER or total > RECORD_BYTES:
            raise BoundExceeded(f"{subject}: more than {NAMES_IN_A_LAYER} names, or {RECORD_BYTES >> 20} MiB of them")
        if member.path:
            records.append(record)
    return records


def _keepable(member: Member, kept: int) -> bool:
    if member.kind is not Kind.FILE or member.size > KEPT_FILE_BYTES:
        return False
    return kept + member.size <= KEPT_LAYER_BYTES
