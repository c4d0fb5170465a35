"""The index of one layer: every name with kind, size, mode, link and kept content, sorted, in one file.

The file is read in place: its size is what counts, not the number of names, and a search touches a few pages of it.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kmm_preflight.oci.tar import Kind

FORMAT_VERSION = 1
_MAGIC = f"kmm-preflight layer {FORMAT_VERSION} {sys.byteorder}\n".encode()
_HEAD = struct.Struct(f">{len(_MAGIC)}s32sQ")  # magic, sha256 of all that follows the digest, number of entries
_SEPARATOR = b"\0"


@dataclass(frozen=True)
class Entry:
    """A name in a layer; content is the sha256 of the file's bytes where they were kept, else ""."""

    path: str
    kind: Kind
    size: int = 0
    mode: int = 0o755
    link: str = ""
    content: str = ""

    def packed(self, number: int) -> bytes:
        """The entry as a record. Records sort by path, then by number: the entry's place in the layer."""
        fields = (
            self.path,
            f"{number:08d}",
            self.kind.value,
            str(self.size),
            f"{self.mode:o}",
            self.link,
            self.content,
        )
        return _SEPARATOR.join(field.encode("utf-8", "surrogateescape") for field in fields)


def _unpacked(record: bytes) -> Entry:
    path, _, kind, size, mode, link, content = (
        field.decode("utf-8", "surrogateescape") for field in record.split(_SEPARATOR)
    )
    return Entry(path, Kind(kind), int(size), int(mode, 8), link, content)


def write_index(out: IO[bytes], records: list[bytes]) -> None:
    """Writes the records as an index: head, end offset of each record, records. The list is sorted in place.

    Of a path that stands twice the last one counts, as it would when the layer is unpacked.
    """
    records.sort()
    ends = array("Q")
    position = 0
    for record in records:
        position += len(record)
        ends.append(position)
    checksum = hashlib.sha256(struct.pack(">Q", len(records)) + ends.tobytes())
    for record in records:
        checksum.update(record)
    out.write(_HEAD.pack(_MAGIC, checksum.digest(), len(records)))
    out.write(ends.tobytes())
    for record in records:
        out.write(record)


class Damaged(Exception):
    """The file is not an index that this version wrote whole."""


class LayerIndex:
    """An index that was read back; searches are exact on normalised paths, without following links."""

    def __init__(self, path: Path) -> None:
        """Opens and checks the file; Damaged when its checksum, version or size is wrong."""
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                raise Damaged(path)
            magic, digest, count = _HEAD.unpack(head)
            self._count = int(count)
            checksum = hashlib.sha256(head[-8:])
            while piece := file.read(1 << 20):
                checksum.update(piece)
            if magic != _MAGIC or checksum.digest() != digest:
                raise Damaged(path)
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._records = _HEAD.size + 8 * self._count

    def _end(self, number: int) -> int:
        if number < 0:
            return self._records
        (end,) = struct.unpack_from("=Q", self._file, _HEAD.size + 8 * number)
        return int(end) + self._records

    def _record(self, number: int) -> bytes:
        return self._file[self._end(number - 1) : self._end(number)]

    def _path(self, number: int) -> bytes:
        return self._record(number).partition(_SEPARATOR)[0]

    def _first(self, path: bytes) -> int:
        return bisect_left(range(self._count), path, key=self._path)

    def find(self, path: str) -> Entry | None:
        """The entry at the path, or None."""
        key = path.encode("utf-8", "surrogateescape")
        number, found = self._first(key), None
        while number < self._count and self._path(number) == key:
            found, number = number, number + 1
        return None if found is None else _unpacked(self._record(found))

    def kept(self) -> Iterator[str]:
        """Paths of the files whose bytes were kept."""
        return (entry.path for entry in self.below("") if entry.content)

    def has_below(self, path: str) -> bool:
        """Whether any name stands below the path, so that it is a folder even without an entry of its own."""
        return next(self._numbers_below(path), None) is not None

    def below(self, path: str) -> Iterator[Entry]:
        """All entries below the path, in order; of the root every entry."""
        for number in self._numbers_below(path):
            yield _unpacked(self._record(number))

    def _numbers_below(self, path: str) -> Iterator[int]:
        prefix = f"{path}/".encode("utf-8", "surrogateescape") if path else b""
        number = self._first(prefix)
        while number < self._count and self._path(number).startswith(prefix):
            yield number
            number += 1
