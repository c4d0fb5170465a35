"""The index of one layer: every name with kind, size, mode, link and kept content, as a table on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kmm_preflight.base.sorted_table import SEPARATOR, Table, magic, write_table
from kmm_preflight.oci.tar import EntryKind

FORMAT_VERSION = 1
_HEAD = magic("layer", FORMAT_VERSION)


@dataclass(frozen=True)
class LayerEntry:
    """A name in a layer; content is the sha256 of the file's bytes where they were kept, else ""."""

    path: str
    kind: EntryKind
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
        return SEPARATOR.join(field.encode("utf-8", "surrogateescape") for field in fields)


def _unpacked(fields: list[bytes]) -> LayerEntry:
    path, _, kind, size, mode, link, content = (field.decode("utf-8", "surrogateescape") for field in fields)
    return LayerEntry(path, EntryKind(kind), int(size), int(mode, 8), link, content)


def write_index(out: IO[bytes], records: list[bytes]) -> None:
    """Writes packed entries as an index. The list is sorted in place.

    Of a path that stands twice the last one counts, as it would when the layer is unpacked.
    """
    write_table(out, _HEAD, records)


class LayerIndex:
    """An index that was read back; searches are exact on normalised paths, without following links."""

    def __init__(self, path: Path) -> None:
        """Opens and checks the file; Damaged when its checksum, version or size is wrong."""
        self._table = Table(path, _HEAD)

    def find(self, path: str) -> LayerEntry | None:
        """The entry at the path, or None."""
        key = path.encode("utf-8", "surrogateescape")
        number, found = self._table.first(key), None
        while number < len(self._table) and self._table.key(number) == key:
            found, number = number, number + 1
        return None if found is None else _unpacked(self._table.fields(found))

    def kept(self) -> Iterator[str]:
        """Paths of the files whose bytes were kept."""
        return (entry.path for entry in self.below("") if entry.content)

    def has_below(self, path: str) -> bool:
        """Whether any name stands below the path, so that it is a folder even without an entry of its own."""
        return next(self._numbers_below(path), None) is not None

    def below(self, path: str) -> Iterator[LayerEntry]:
        """All entries below the path, in order; of the root every entry."""
        for number in self._numbers_below(path):
            yield _unpacked(self._table.fields(number))

    def _numbers_below(self, path: str) -> Iterator[int]:
        prefix = f"{path}/".encode("utf-8", "surrogateescape") if path else b""
        number = self._table.first(prefix)
        while number < len(self._table) and self._table.key(number).startswith(prefix):
            yield number
            number += 1
