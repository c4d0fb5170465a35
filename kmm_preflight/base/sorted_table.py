"""Tables on disk: records sorted by their first field, and searched in place.

A search touches a few pages of the file, so memory does not grow with the number of records.
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
"""The byte between the fields of a record. No field contains it."""

_REST = struct.Struct(">32sQ")  # sha256 of everything after it, number of records
_PIECE_BYTES = 1 << 20


class TableDamaged(Exception):
    """The file is not a whole table of the expected kind and version."""


def magic(kind: str, version: int) -> bytes:
    """Return the first bytes of a file of this kind of table. They name this machine's byte order, used in the file."""
    return f"kmm-preflight {kind} {version} {sys.byteorder}\n".encode()


def write_table(out: IO[bytes], head: bytes, records: list[bytes]) -> None:
    """Write a table: head, checksum, end of each record, records. Sort the list of records in place."""
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
    """A table that is open for reading."""

    def __init__(self, path: Path, head: bytes) -> None:
        """Open and check the file. Raise TableDamaged if its checksum, kind, version or size is wrong."""
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
        """Return the fields of a record."""
        return self._record(number).split(SEPARATOR)

    def key(self, number: int) -> bytes:
        """Return the first field of a record."""
        return self._record(number).partition(SEPARATOR)[0]

    def first(self, key: bytes) -> int:
        """Return the number of the first record whose key is at least this key, or the count of records if none is."""
        return bisect_left(range(self._count), key, key=self.key)

    def _record(self, number: int) -> bytes:
        return self._file[self._end(number - 1) : self._end(number)]

    def _end(self, number: int) -> int:
        if number < 0:
            return self._records
        (end,) = struct.unpack_from("=Q", self._file, self._ends + 8 * number)
        return int(end) + self._records
