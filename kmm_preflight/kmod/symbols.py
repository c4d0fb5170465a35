"""Symbol table of a kmod: the symbols it needs, and the places of its own (docs/reference/loader.md 1.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.kmod.sections import ALWAYS, SINCE_STRINGS, SYMTAB, Flaw, Section, Sections

# A driver of 100 MiB has 200,000.
_SYMBOLS = 500_000
_STRINGS_BYTES = 64 << 20
_COMMON = 1000
_NEEDED = 100_000
_ENTRY_BYTES = 24
# KSYM_NAME_LEN of the newest kernels. No kernel exports a longer name.
_NAME_BYTES = 512
_WEAK = 2
_NO_LIMIT = 1 << 64
_IN_NO_SECTION, _IN_LIVEPATCH, _IS_ABSOLUTE, _IS_COMMON = 0, 0xFF20, 0xFFF1, 0xFFF2


@dataclass(frozen=True)
class NeededSymbol:
    """A symbol that the kernel or another kmod must provide."""

    name: str
    """Name of the symbol."""
    weak: bool
    """True if the kmod loads without the symbol."""


@dataclass(frozen=True)
class OwnSymbol:
    """A symbol that the kmod defines."""

    section: int
    """Number of the symbol's section, or a special number, such as that of an absolute symbol."""
    value: int
    """Offset in the section, or the number itself if the symbol is absolute."""


class SymbolTable:
    """The first symbol table of an object. The loader uses no other."""

    def __init__(self, sections: Sections, table: Section) -> None:
        """Raise BoundExceeded if the table has more than 500,000 symbols, or 64 MiB of names."""
        order = sections.machine.order
        content = sections.bounded(table, _SYMBOLS * _ENTRY_BYTES)
        self.count = len(content) // _ENTRY_BYTES
        # The loader reads the name of the first symbol too, although that symbol means nothing.
        self._first = int.from_bytes(content[:4], "little" if order == "<" else "big")
        self._entries = list(
            struct.iter_unpack(f"{order}IBxHQ8x", content[_ENTRY_BYTES : self.count * _ENTRY_BYTES])
        )  # name, binding and type, section, value; without the first symbol
        self._names = sections.bounded(sections.all[table.link], _STRINGS_BYTES)
        self._sections = len(sections.all)
        # The kernel does not use the symbols of .modinfo, from which a tool may have removed tags.
        self._sizes = [section.size if section.name != ".modinfo" else _NO_LIMIT for section in sections.all]

    def name(self, start: int) -> str:
        """Return the name that begins at an offset of the string table."""
        end = self._names.find(b"\0", start, start + _NAME_BYTES)
        return self._names[start : end if end >= 0 else start + _NAME_BYTES].decode("utf-8", "replace")

    def needed(self) -> Iterator[NeededSymbol]:
        """Yield the undefined symbols in the table's order. Raise BoundExceeded after 100,000."""
        count = 0
        for start, bound, section, _ in self._entries:
            if section == _IN_NO_SECTION:
                count += 1
                if count > _NEEDED:
                    raise BoundExceeded(f"kmod: more than {_NEEDED} undefined symbols")
                yield NeededSymbol(self.name(start), bound >> 4 == _WEAK)

    def common(self) -> tuple[str, ...]:
        """Return up to 1000 tentative definitions, which the loader refuses. Marks of the compiler are left out."""
        names = (self.name(start) for start, _, section, _ in self._entries if section == _IS_COMMON)
        return tuple(islice((name for name in names if not name.startswith("__gnu_lto")), _COMMON))

    def flaws(self) -> Iterator[Flaw]:
        """Yield symbols whose section, value or name lies outside the object."""
        special = (_IN_LIVEPATCH, _IS_ABSOLUTE, _IS_COMMON)
        beyond = {section for _, _, section, _ in self._entries if section >= self._sections} - {*special}
        if beyond:
            yield Flaw(ALWAYS, f"a symbol in section {min(beyond)}, but the object has {self._sections} sections")
        sizes = self._sizes
        if any(section < len(sizes) and value > sizes[section] for _, _, section, value in self._entries if section):
            yield Flaw(ALWAYS, "a symbol beyond the end of its section")
        if any(start >= len(self._names) for start in (self._first, *(start for start, *_ in self._entries))):
            yield Flaw(ALWAYS, "a symbol whose name lies outside the string table")
        if not (self._names.startswith(b"\0") and self._names.endswith(b"\0")):
            yield Flaw(SINCE_STRINGS, "symbol names that do not start and end with a zero byte")

    def with_prefix(self, prefix: str) -> dict[str, OwnSymbol]:
        """Map the names that start with the prefix, without the prefix, to the kmod's own symbols."""
        starts = set(_positions(self._names, prefix.encode()))
        return {
            self.name(start).removeprefix(prefix): OwnSymbol(section, value)
            for start, _, section, value in self._entries
            if section != _IN_NO_SECTION and start in starts
        }

    def symbol(self, number: int) -> OwnSymbol:
        """Return the symbol of a number. If the number is 0 or too large, return a symbol in no section."""
        known = 0 < number <= len(self._entries)
        _, _, section, value = self._entries[number - 1] if known else (0, 0, _IN_NO_SECTION, 0)
        return OwnSymbol(section, value)

    def name_of(self, number: int) -> str | None:
        """Return the name of the symbol of a number, or None if the number is 0 or too large."""
        return self.name(self._entries[number - 1][0]) if 0 < number <= len(self._entries) else None

    def is_absolute(self, symbol: OwnSymbol) -> bool:
        """True if the symbol's value is a plain number and not an offset."""
        return symbol.section == _IS_ABSOLUTE


def find_symbol_table(sections: Sections) -> Section | None:
    """Return the section of the first symbol table, or None if the object was stripped of it."""
    return next((section for section in sections.all if section.kind == SYMTAB), None)


def _positions(text: bytes, part: bytes) -> Iterator[int]:
    at = text.find(part)
    count = 0
    while at >= 0:
        yield at
        at = text.find(part, at + 1)
        count += 1
        if count > _SYMBOLS:
            raise BoundExceeded(f"kmod: more than {_SYMBOLS} names with {part!r}")
