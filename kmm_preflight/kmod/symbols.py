"""A kmod's symbol table: what it needs, and where its own symbols are (docs/reference/loader.md 1.4)."""

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
_COMMON_TOLD = 1000
_NEEDED = 100_000
_ENTRY_BYTES = 24
# KSYM_NAME_LEN of the newest kernels; no kernel exports a longer name.
_NAME_BYTES = 512
_WEAK = 2
_ANYWHERE = 1 << 64
_UNDEFINED, _LIVEPATCH, _ABSOLUTE, _COMMON = 0, 0xFF20, 0xFFF1, 0xFFF2


@dataclass(frozen=True)
class NeededSymbol:
    """A symbol that somebody else has to provide; a weak one need not be there."""

    name: str
    weak: bool


@dataclass(frozen=True)
class OwnSymbol:
    """A symbol of the kmod's own: in the section of that number, or absolute."""

    section: int
    value: int


class Symbols:
    """The first symbol table, as the loader takes it."""

    def __init__(self, sections: Sections, table: Section) -> None:
        """BoundExceeded for more than half a million symbols, or 64 MiB of names."""
        order = sections.machine.order
        content = sections.bounded(table, _SYMBOLS * _ENTRY_BYTES)
        self.count = len(content) // _ENTRY_BYTES
        # The loader reads the first one's name too, whatever it says.
        self._first = int.from_bytes(content[:4], "little" if order == "<" else "big")
        self._entries = list(
            struct.iter_unpack(f"{order}IBxHQ8x", content[_ENTRY_BYTES : self.count * _ENTRY_BYTES])
        )  # name, binding and type, section, value; without the first, which is nobody's
        self._names = sections.bounded(sections.all[table.link], _STRINGS_BYTES)
        self._sections = len(sections.all)
        # Nobody goes by the symbols of .modinfo, of which a tool may have taken tags away.
        self._sizes = [one.size if one.name != ".modinfo" else _ANYWHERE for one in sections.all]

    def name(self, start: int) -> str:
        """The name that begins there in the string table."""
        end = self._names.find(b"\0", start, start + _NAME_BYTES)
        return self._names[start : end if end >= 0 else start + _NAME_BYTES].decode("utf-8", "replace")

    def needed(self) -> Iterator[NeededSymbol]:
        """The undefined symbols in the table's order. BoundExceeded for more than 100,000."""
        count = 0
        for start, bound, section, _ in self._entries:
            if section == _UNDEFINED:
                count += 1
                if count > _NEEDED:
                    raise BoundExceeded(f"kmod: more than {_NEEDED} undefined symbols")
                yield NeededSymbol(self.name(start), bound >> 4 == _WEAK)

    def common(self) -> tuple[str, ...]:
        """Tentative definitions, for which the loader has no room; the compiler's own marks are none."""
        names = (self.name(start) for start, _, section, _ in self._entries if section == _COMMON)
        return tuple(islice((name for name in names if not name.startswith("__gnu_lto")), _COMMON_TOLD))

    def flaws(self) -> Iterator[Flaw]:
        """Symbols in sections that there are not, and names that are none."""
        special = (_LIVEPATCH, _ABSOLUTE, _COMMON)
        beyond = {section for _, _, section, _ in self._entries if section >= self._sections} - {*special}
        if beyond:
            yield Flaw(
                ALWAYS, f"a symbol in section {min(beyond)}, expected one of the {self._sections} that there are"
            )
        sizes = self._sizes
        if any(section < len(sizes) and value > sizes[section] for _, _, section, value in self._entries if section):
            yield Flaw(ALWAYS, "a symbol beyond the end of its section")
        if any(start >= len(self._names) for start in (self._first, *(start for start, *_ in self._entries))):
            yield Flaw(ALWAYS, "a symbol whose name lies outside the string table")
        if not (self._names.startswith(b"\0") and self._names.endswith(b"\0")):
            yield Flaw(SINCE_STRINGS, "symbol names that do not start and end with a zero byte")

    def placed(self, prefix: str) -> dict[str, OwnSymbol]:
        """The kmod's own symbols whose names start so, by the rest of the name; undefined ones are left out."""
        starts = set(_positions(self._names, prefix.encode()))
        return {
            self.name(start).removeprefix(prefix): OwnSymbol(section, value)
            for start, _, section, value in self._entries
            if section != _UNDEFINED and start in starts
        }

    def at(self, number: int) -> OwnSymbol:
        """The symbol of that number in the table; the first one, and one that there is not, is nowhere."""
        known = 0 < number <= len(self._entries)
        _, _, section, value = self._entries[number - 1] if known else (0, 0, _UNDEFINED, 0)
        return OwnSymbol(section, value)

    def name_of(self, number: int) -> str:
        """The name of the symbol of that number; "" for the first one, and one that there is not."""
        return self.name(self._entries[number - 1][0]) if 0 < number <= len(self._entries) else ""

    def absolute(self, symbol: OwnSymbol) -> bool:
        """Whether the value is a number and no place."""
        return symbol.section == _ABSOLUTE


def symbol_table(sections: Sections) -> Section | None:
    """The first one, None in an object that was stripped of it."""
    return next((one for one in sections.all if one.kind == SYMTAB), None)


def _positions(text: bytes, wanted: bytes) -> Iterator[int]:
    at = text.find(wanted)
    count = 0
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)
        count += 1
        if count > _SYMBOLS:
            raise BoundExceeded(f"kmod: more than {_SYMBOLS} names with {wanted!r}")
