"""A layer is read once from end to end: verified, unpacked, walked; what stays is its index and the files asked for."""

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

NAMES_IN_A_LAYER = 400_000
RECORD_BYTES = 40 << 20
KEPT_FILE_BYTES = 512 << 20
KEPT_LAYER_BYTES = 2 << 30
KEPT_FILES = 10_000
NAMES_IN_AN_IMAGE = 1_000_000


def nothing(path: str) -> bool:
    """Return False: keep no file."""
    return False


@dataclass(frozen=True)
class KeepRules:
    """Rules for which files of a layer the bytes are kept."""

    paths: frozenset[str] = frozenset()
    """Single files."""
    keeps: Callable[[str], bool] = nothing
    """True if the file at this path is kept."""
    together: Callable[[str], bool] = nothing
    """True for files that are kept together: who asks for a single file asks for all such files of its folder."""
    folders: frozenset[str] = frozenset()
    """Folders in which all files that are kept together are kept."""

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str):
            return False
        if path in self.paths or self.keeps(path):
            return True
        return self.together(path) and any(path.startswith(f"{folder}/") for folder in self.folders)

    def also(self, path: str, kept: Iterable[str]) -> KeepRules:
        """Return these rules with another file, the files kept before, and the files that belong with the new file."""
        folders = {path.rpartition("/")[0]} if "/" in path and self.together(path) else set[str]()
        return replace(self, paths=self.paths | {path, *kept}, folders=self.folders | folders)


@dataclass
class ReadBudget:
    """What reading the layers of one image may still cost: bytes when unpacked, and names."""

    unpacked: int = STREAM_BYTES
    names: int = NAMES_IN_AN_IMAGE

    def spend(self, unpacked: int, names: int) -> None:
        """Takes off what a layer cost."""
        self.unpacked -= unpacked
        self.names -= names


class VerifiedStream:
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
                raise DigestMismatch(f"{self._subject}: got more bytes than expected, which is {self._descriptor.size}")
            self._hash.update(chunk)
            yield chunk

    def finish(self) -> None:
        """Reads what is left; Truncated or DigestMismatch when the bytes are not those of the descriptor.

        Malformed when they are, but the descriptor says that there are more of them.
        """
        for _ in self:
            pass
        algorithm = self._descriptor.digest.partition(":")[0]
        got = f"{algorithm}:{self._hash.hexdigest()}"
        sizes = f"{self._subject}: got {self._size} bytes, expected {self._descriptor.size}"
        if self._size < self._descriptor.size:
            if got == self._descriptor.digest:
                raise Malformed(f"{sizes} as the manifest says, which is wrong")
            raise Truncated(sizes)
        if got != self._descriptor.digest:
            raise DigestMismatch(f"{self._subject}: got bytes of digest {got}, expected {self._descriptor.digest}")


def layer_index(
    descriptor: Descriptor,
    fetch: Callable[[], Iterator[bytes]],
    wanted: KeepRules,
    cache: Cache,
    allowance: ReadBudget,
    needed: str = "",
) -> LayerIndex:
    """The layer's index from the cache, or from the blob that fetch opens.

    needed is a path whose bytes must be among what was kept: a layer without them is read again. One process reads,
    others wait for it. Raises what fetch and Verified raise, Malformed and BoundExceeded.
    """
    with cache.lock(descriptor.digest):
        index = cache.index(descriptor.digest)
        if index and not (needed and _lost(index, needed, cache)):
            return index
        if needed:
            wanted = wanted.also(needed, (*index.kept(), *_linked(index, wanted)) if index else ())
        return scan(descriptor, fetch(), wanted, cache, allowance)


def _linked(index: LayerIndex, wanted: KeepRules) -> Iterator[str]:
    """Files that wanted names are hard links to, as every name of an ostree container is: they come before the name."""
    return (entry.link for entry in index.below("") if entry.kind is EntryKind.HARDLINK and entry.path in wanted)


def _lost(index: LayerIndex, path: str, cache: Cache) -> bool:
    entry = index.find(path)
    return entry is not None and (not entry.content or cache.file(entry.content) is None)


def scan(
    descriptor: Descriptor, chunks: Iterable[bytes], wanted: KeepRules, cache: Cache, allowance: ReadBudget
) -> LayerIndex:
    """Reads the whole blob and keeps its index and the wanted files."""
    subject = f"layer {descriptor.digest}"
    verified = VerifiedStream(chunks, descriptor, subject)
    reader = ByteReader(decompress(verified, subject), subject, allowance.unpacked)
    records: list[bytes] = []
    try:
        _walk_into(records, reader, subject, wanted, cache, min(NAMES_IN_A_LAYER, allowance.names))
        reader.skip_rest()  # a node unpacks it all, and refuses what is damaged behind the last entry too
    except Malformed:
        # Damage is the image's own only if the bytes are those that its manifest names.
        verified.finish()
        raise
    finally:
        allowance.spend(reader.position, len(records))
    verified.finish()
    return cache.keep_index(descriptor.digest, records)


def _walk_into(
    records: list[bytes], reader: ByteReader, subject: str, wanted: KeepRules, cache: Cache, names: int
) -> None:
    total, kept, files = 0, 0, 0
    for number, member in enumerate(walk(reader, subject)):
        content = ""
        if member.path in wanted and _keepable(member, kept) and files < KEPT_FILES:
            files += 1
            content = cache.keep_file(reader.pieces(member.size))
            kept += member.size
        entry = LayerEntry(member.path, member.kind, member.size, member.mode, member.link, content)
        record = entry.packed(number)
        total += len(record)
        if number >= names or total > RECORD_BYTES:
            raise BoundExceeded(f"{subject}: more than {names} names, or {RECORD_BYTES >> 20} MiB of them")
        if member.path:
            records.append(record)


def _keepable(member: Member, kept: int) -> bool:
    """Whether the bytes in the stream are the file's own, and not too many."""
    if member.kind is not EntryKind.FILE or member.sparse or member.size > KEPT_FILE_BYTES:
        return False
    return kept + member.size <= KEPT_LAYER_BYTES
