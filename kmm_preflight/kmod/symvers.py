"""Module.symvers: the symbols that a kernel exports, parsed once into a table on disk (docs/reference/loader.md 2)."""

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

# A kernel exports 25,000 to 35,000 symbols, in 1.5 to 2.5 MB of text.
SYMVERS_BYTES = 64 << 20
_SYMBOLS = 1 << 20
_LINE_BYTES = 1 << 14
_HEAD = magic("symvers", 2)
_GPL = frozenset(("EXPORT_SYMBOL_GPL", "EXPORT_UNUSED_SYMBOL_GPL"))
_DIGEST = re.compile(r"[0-9a-z]+[:-][0-9a-f]{32,128}")
VMLINUX = "vmlinux"
LAYOUT = "module_layout"


@dataclass(frozen=True)
class ExportedSymbol:
    """A symbol that a kernel exports."""

    name: str
    """Name of the symbol."""
    crc: int | None
    """CRC of the symbol, or None without symbol versions."""
    provider: str
    """The part of the kernel that has the symbol: vmlinux, or the path of an in-tree kmod without .ko."""
    gpl: bool
    """True if only GPL-compatible kmods may use the symbol."""
    namespace: str | None
    """Namespace that users of the symbol must import, or None."""


def parse_symvers(text: Iterable[bytes]) -> Iterator[ExportedSymbol]:
    """Yield the symbols of a Module.symvers, with either order of columns.

    text: pieces of the file, plain or compressed as .gz, .xz or .zst. Raise Malformed with the number of the first
    invalid line, and BoundExceeded if the text has more than 64 MiB.
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
                yield _parse_line(line, number)
        if len(rest) > _LINE_BYTES:
            raise Malformed(f"Module.symvers: line {number + 1} has no end")
    if rest:
        raise Malformed(f"Module.symvers: line {number + 1} is cut short")


def _parse_line(line: bytes, number: int) -> ExportedSymbol:
    """Parse CRC, symbol, provider, type[, namespace].

    For some releases before 5.6 the namespace was before the provider.
    """
    fields = line.decode("utf-8", "replace").split("\t") if SEPARATOR not in line else []
    if len(fields) == 5 and fields[4].startswith("EXPORT_"):
        fields = [*fields[:2], fields[3], fields[4], fields[2]]
    if len(fields) not in (4, 5) or not fields[3].startswith("EXPORT_") or not fields[1]:
        raise Malformed(f"Module.symvers: line {number} is {line[:80]!r}, expected CRC, symbol, provider and type")
    try:
        crc = int(fields[0], 16) & 0xFFFFFFFF
    except ValueError as exc:
        raise Malformed(f"Module.symvers: line {number} begins {fields[0][:20]!r}, expected a CRC") from exc
    namespace = fields[4] if len(fields) == 5 else ""
    return ExportedSymbol(fields[1], crc or None, fields[2], fields[3] in _GPL, namespace or None)


def write_symvers(out: IO[bytes], symbols: Iterable[ExportedSymbol]) -> None:
    """Write the symbols as a table sorted by name. If two symbols have one name, keep that of vmlinux."""
    records: dict[str, bytes] = {}
    for symbol in symbols:
        if symbol.name not in records or symbol.provider == VMLINUX:
            crc, gpl = f"{symbol.crc or 0:08x}", "G" if symbol.gpl else "-"
            fields = (symbol.name, crc, symbol.provider, gpl, symbol.namespace or "")
            records[symbol.name] = SEPARATOR.join(field.encode() for field in fields)
        if len(records) > _SYMBOLS:
            raise BoundExceeded(f"Module.symvers: more than {_SYMBOLS} symbols")
    write_table(out, _HEAD, list(records.values()))


class Symvers:
    """A table of exported symbols in a file."""

    def __init__(self, path: Path) -> None:
        """Raise TableDamaged if the file's checksum, version or size is wrong."""
        self._table = Table(path, _HEAD)

    def __len__(self) -> int:
        return len(self._table)

    def find(self, name: str) -> ExportedSymbol | None:
        """Return the symbol, or None if the kernel does not export it."""
        key = name.encode("utf-8", "surrogatepass")
        number = self._table.first(key)
        if number == len(self._table) or self._table.key(number) != key:
            return None
        own_name, crc, provider, gpl, namespace = (field.decode() for field in self._table.fields(number))
        return ExportedSymbol(own_name, int(crc, 16) or None, provider, gpl == "G", namespace or None)

    @property
    def versioned(self) -> bool:
        """True if the kernel was built with MODVERSIONS. Without it no symbol has a CRC."""
        layout = self.find(LAYOUT)
        return layout is not None and layout.crc is not None

    @property
    def has_crcs(self) -> bool:
        """True if a symbol has a CRC. A list of a kernel's stable symbols has CRCs, but may lack module_layout."""
        return self.versioned or any(int(crc, 16) for _, crc, *_ in self._table)

    def providers(self) -> frozenset[str]:
        """Return all that provide a symbol: vmlinux, and paths of in-tree kmods. Read the whole table."""
        return frozenset(provider.decode() for _, _, provider, *_ in self._table)


class SymversStore:
    """Tables in a folder, named by the digest of their Module.symvers. Each write is atomic."""

    def __init__(self, folder: Path) -> None:
        """Create the folder if needed. Only this user may write to it: a table with a correct checksum is trusted."""
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(self, digest: str) -> Symvers | None:
        """Return the table, or None if it is absent, damaged, or written by another version of the suite."""
        with suppress(OSError, TableDamaged, ValueError):
            path = self._path(digest)
            table = Symvers(path)
            os.utime(path)
            return table
        return None

    def keep(self, digest: str, text: Iterable[bytes]) -> Symvers:
        """Parse the text, store the table under the digest and return it.

        Raise Malformed and BoundExceeded as parse_symvers does.
        """
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".new-", delete=False) as out:
            try:
                write_symvers(out, parse_symvers(text))
                out.flush()
                table = Symvers(Path(out.name))  # opened first: after the rename another process may remove the file
                os.replace(out.name, self._path(digest))
            finally:
                Path(out.name).unlink(missing_ok=True)
        return table

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a digest")
        return self._folder / digest.replace(":", "-")
