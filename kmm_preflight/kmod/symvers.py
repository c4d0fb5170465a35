"""Module.symvers: what a kernel exports, parsed once into a table on disk (docs/reference/loader.md 2)."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kmm_preflight.base.decompression import decompress
from kmm_preflight.base.sorted_table import SEPARATOR, Table, TableDamaged, magic, write_table
from kmm_preflight.errors import BoundExceeded, Malformed

# 25,000 to 35,000 symbols are 1.5 to 2.5 MB.
SYMVERS_BYTES = 64 << 20
_SYMBOLS = 1 << 20
_LINE_BYTES = 1 << 14
_HEAD = magic("symvers", 2)
_GPL = frozenset(("EXPORT_SYMBOL_GPL", "EXPORT_UNUSED_SYMBOL_GPL"))
_DIGEST = re.compile(r"[0-9a-z]+[:-][0-9a-f]{32,128}")
VMLINUX = "vmlinux"
LAYOUT = "module_layout"


@dataclass(frozen=True)
class Exported:
    """A symbol of a kernel: its CRC (0: none), who provides it (vmlinux, or an in-tree kmod's path without .ko)."""

    name: str
    crc: int
    provider: str
    gpl: bool
    namespace: str


def parse_symvers(text: Iterable[bytes]) -> Iterator[Exported]:
    """The symbols of a Module.symvers in pieces, plain, .gz, .xz or .zst; both orders of columns.

    Malformed names the first line that is none; BoundExceeded for more than 64 MiB.
    """
    size, rest, number = 0, b"", 0
    for piece in decompress(text, "Module.symvers"):
        size += len(piece)
        if size > SYMVERS_BYTES:
            raise BoundExceeded(f"Module.symvers: more than {SYMVERS_BYTES >> 20} MiB")
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            number += 1
            if line:
                yield _exported(line, number)
        if len(rest) > _LINE_BYTES:
            raise Malformed(f"Module.symvers: line {number + 1} has no end")
    if rest:
        raise Malformed(f"Module.symvers: line {number + 1} is cut short")


def _exported(line: bytes, number: int) -> Exported:
    """CRC, symbol, provider, type[, namespace]; a while before 5.6 the namespace stood before the provider."""
    fields = line.decode("utf-8", "replace").split("\t") if SEPARATOR not in line else []
    if len(fields) == 5 and fields[4].startswith("EXPORT_"):
        fields = [*fields[:2], fields[3], fields[4], fields[2]]
    if len(fields) not in (4, 5) or not fields[3].startswith("EXPORT_") or not fields[1]:
        raise Malformed(f"Module.symvers: line {number} is {line[:80]!r}, expected CRC, symbol, provider and type")
    try:
        crc = int(fields[0], 16)
    except ValueError as exc:
        raise Malformed(f"Module.symvers: line {number} begins {fields[0][:20]!r}, expected a CRC") from exc
    return Exported(fields[1], crc & 0xFFFFFFFF, fields[2], fields[3] in _GPL, fields[4] if len(fields) == 5 else "")


def write_symvers(out: IO[bytes], symbols: Iterable[Exported]) -> None:
    """Writes them as a table by name. Of a name that stands twice vmlinux counts."""
    records: dict[str, bytes] = {}
    for one in symbols:
        if one.name not in records or one.provider == VMLINUX:
            fields = (one.name, f"{one.crc:08x}", one.provider, "G" if one.gpl else "-", one.namespace)
            records[one.name] = SEPARATOR.join(field.encode() for field in fields)
        if len(records) > _SYMBOLS:
            raise BoundExceeded(f"Module.symvers: more than {_SYMBOLS} symbols")
    write_table(out, _HEAD, list(records.values()))


class Symvers:
    """A table that was read back."""

    def __init__(self, path: Path) -> None:
        """Opens and checks the file; Damaged when its checksum, version or size is wrong."""
        self._table = Table(path, _HEAD)

    def __len__(self) -> int:
        return len(self._table)

    def find(self, name: str) -> Exported | None:
        """The symbol, None when nobody in the kernel exports it."""
        key = name.encode("utf-8", "surrogatepass")
        number = self._table.first(key)
        if number == len(self._table) or self._table.key(number) != key:
            return None
        found, crc, provider, gpl, namespace = (field.decode() for field in self._table.fields(number))
        return Exported(found, int(crc, 16), provider, gpl == "G", namespace)

    @property
    def versioned(self) -> bool:
        """Whether the kernel was built with MODVERSIONS: without it no symbol has a CRC."""
        layout = self.find(LAYOUT)
        return layout is not None and layout.crc != 0

    def providers(self) -> frozenset[str]:
        """Who provides at least one symbol. Goes through the whole table."""
        return frozenset(provider.decode() for _, _, provider, *_ in self._table)


class SymversStore:
    """Tables on disk, by the digest of the Module.symvers that they were made of; each write is atomic."""

    def __init__(self, folder: Path) -> None:
        """The folder must be this user's alone: what it holds is believed when its checksum fits."""
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(self, digest: str) -> Symvers | None:
        """The table, or None: not there, damaged, or written by another version."""
        with suppress(OSError, TableDamaged, ValueError):
            path = self._path(digest)
            table = Symvers(path)
            os.utime(path)
            return table
        return None

    def keep(self, digest: str, text: Iterable[bytes]) -> Symvers:
        """Parses the text and keeps it under the digest. Malformed and BoundExceeded as parse_symvers."""
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".new-", delete=False) as out:
            try:
                write_symvers(out, parse_symvers(text))
                out.flush()
                table = Symvers(Path(out.name))  # before it has a name under which somebody may remove it
                os.replace(out.name, self._path(digest))
            finally:
                Path(out.name).unlink(missing_ok=True)
        return table

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is no digest")
        return self._folder / digest.replace(":", "-")
