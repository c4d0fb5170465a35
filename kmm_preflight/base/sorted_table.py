"""Records in a file, sorted by their first field and searched in place.

The file's size is what counts, not the number of records, and a search touches a few pages of it.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SEPARATOR = b"\0"
"""Between the fields of a record, in none of which it stands."""

_REST = struct.Struct(">32sQ")  # sha256 of all that follows it, number of records
_PIECE_BYTES = 1 << 20


class TableDamaged(Exception):
    """The file is not a table of this kind that this version wrote whole."""


def magic(kind: str, version: int) -> bytes:
    """How the file of a kind of table begins; ends of records are in this machine's byte order."""
    return f"kmm-preflight {kind} {version} {sys.byteorder}\n".encode()


def write_table(out: IO[bytes], head: bytes, records: list[bytes]) -> None:
    """Writes the records: head, checksum, end of each record, records. The list is sorted in place."""
    records.sort()
    ends = array("Q")
    position = 0
    for record in records:
        position += len(record)
        ends.append(position)
    checksum = hashlib.sha256(struct.pack(">Q", len(records)) + ends.tobytes())
    for record in records:
        checksum.update(record)
    out.write(head)
    out.write(_REST.pack(checksum.digest(), len(records)))
    out.write(ends.tobytes())
    for record in records:
        out.write(record)


class Table:
    """A table that was read back."""

    def __init__(self, path: Path, head: bytes) -> None:
        """Opens and checks the file; Damaged when its checksum, kind, version or size is wrong."""
        with path.open("rb") as file:
            begin, rest = file.read(len(head)), file.read(_REST.size)
            if begin != head or len(rest) < _REST.size:
                raise TableDamaged(path)
            digest, count = _REST.unpack(rest)
            checksum = hashlib.sha256(rest[-8:])
            while piece := file.read(_PIECE_BYTES):
                checksum.update(piece)
            if checksum.digest() != digest:
                raise TableDamaged(path)
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._count = int(count)
        self._ends = len(head) + _REST.size
        self._records = self._ends + 8 * self._count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[bytes]]:
        return (self.fields(number) for number in range(self._count))

    def fields(self, number: int) -> list[bytes]:
        """The fields of a record."""
        return self._record(number).split(SEPARATOR)

    def key(self, number: int) -> bytes:
        """The first field of a record."""
        return self._record(number).partition(SEPARATOR)[0]

    def first(self, key: bytes) -> int:
        """The number of the first record whose key is not below this one; their count when there is none."""
        return bisect_left(range(self._count), key, key=self.key)

    def _record(self, number: int) -> bytes:
        return self._file[self._end(number - 1) : self._end(number)]

    def _end(self, number: int) -> int:
        if number < 0:
            return self._records
        (end,) = struct.unpack_from("=Q", self._file, self._ends + 8 * number)
        return int(end) + self._records
