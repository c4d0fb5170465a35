"""The index of a layer: a table on disk with kind, size, mode, link and kept content of every name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kmm_preflight.base.sorted_table import SEPARATOR, Table, magic, write_table
from kmm_preflight.oci.tar import EntryKind

FORMAT_VERSION = 2
_HEAD = magic("layer", FORMAT_VERSION)


@dataclass(frozen=True)
class LayerEntry:
    """A name in a layer."""

    path: str
    """The path from the root of the image, without a leading slash; empty for the root."""
    kind: EntryKind
    """The kind of entry."""
    size: int = 0
    """The size of a file in bytes; 0 for other kinds."""
    mode: int = 0o755
    """The permission bits."""
    link: str = ""
    """The target of a symbolic or hard link."""
    content: str | None = None
    """The sha256 of the file's bytes if they were kept."""

    def packed(self, number: int) -> bytes:
        """Return the entry as a record. number is the position of the entry in the layer.

        Records sort by path, then by number.
        """
        fields = (
            self.path,
            f"{number:08d}",
            self.kind.value,
            str(self.size),
            f"{self.mode:o}",
            self.link,
            self.content or "",
        )
        return SEPARATOR.join(field.encode("utf-8", "surrogateescape") for field in fields)


def _unpacked(fields: list[bytes]) -> LayerEntry:
    path, _, kind, size, mode, link, content = (field.decode("utf-8", "surrogateescape") for field in fields)
    return LayerEntry(path, EntryKind(kind), int(size), int(mode, 8), link, content or None)


def write_index(out: IO[bytes], records: list[bytes]) -> None:
    """Write packed entries as an index. Sort the list of records in place.

    If a path occurs twice, the last entry counts, as when a node unpacks the layer.
    """
    write_table(out, _HEAD, records)


class LayerIndex:
    """An index that is open for reading. Searches take normalised paths and follow no links."""

    def __init__(self, path: Path) -> None:
        """Open and check the file. Raise TableDamaged if its checksum, version or size is wrong."""
        self._table = Table(path, _HEAD)

    def find(self, path: str) -> LayerEntry | None:
        """Return the entry at the path, or None."""
        key = path.encode("utf-8", "surrogateescape")
        number, last = self._table.first(key), None
        while number < len(self._table) and self._table.key(number) == key:
            last, number = number, number + 1
        return None if last is None else _unpacked(self._table.fields(last))

    def problem(self) -> str | None:
        """Return why a node cannot unpack the layer, or None."""
        entry = self.find("")
        return entry.link if entry else None

    def kept(self) -> Iterator[str]:
        """Yield the paths of the files whose bytes were kept."""
        return (entry.path for entry in self.below("") if entry.content)

    def has_below(self, path: str) -> bool:
        """True if any name is below the path: then the path is a folder, even without an entry of its own."""
        return next(self._numbers_below(path), None) is not None

    def below(self, path: str) -> Iterator[LayerEntry]:
        """Yield all entries below the path, in order. For the empty path, yield every entry."""
        for number in self._numbers_below(path):
            if self._table.key(number):  # the record without a path holds the layer's problem
                yield _unpacked(self._table.fields(number))

    def _numbers_below(self, path: str) -> Iterator[int]:
        prefix = f"{path}/".encode("utf-8", "surrogateescape") if path else b""
        number = self._table.first(prefix)
        while number < len(self._table) and self._table.key(number).startswith(prefix):
            yield number
            number += 1
