"""Places in the code that lead out of the kmod, and the relocations that link them to the kernel (x86_64)."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator

from kmm_preflight.kmod.sections import ALWAYS, RELA, Flaw, Section, Sections
from kmm_preflight.kmod.symbols import SymbolTable

_ENTRY_BYTES = 24
# Tables of jumps and calls to code of the kernel. Each one is an instruction of five or six bytes with an address.
_TABLES = (".return_sites", ".retpoline_sites")
_ADDRESS_AT = (1, 2)
# Table of the begins of functions. Those that are traced begin with a call, or with an instruction that does nothing.
_BEGINS, _CALL = "__mcount_loc", 0xE8
_TYPE = 0xFFFFFFFF


def unlinked_site_flaws(sections: Sections, symbols: SymbolTable) -> Iterator[Flaw]:
    """Yield a section of code whose jumps out of the kmod have no relocation.

    A tool removed the relocations. The kernel loads such a kmod, runs its code and crashes.
    """
    sites: dict[int, set[int]] = defaultdict(set)
    for table in sections.all:
        target = _target(sections, table)
        if target is not None and target.name in (*_TABLES, _BEGINS):
            for _, number, addend in _entries(sections, table):
                symbol = symbols.symbol(number >> 32)
                place = symbol.value + addend
                if target.name != _BEGINS or _is_call(sections, symbol.section, place):
                    sites[symbol.section].add(place)
    for table in sections.all:
        if _target(sections, table) is not None and table.info in sites:
            places = {place for place, *_ in _entries(sections, table)}
            sites[table.info] -= {place - at for place in places for at in _ADDRESS_AT}
    for number, left in sites.items():
        section = sections.all[number] if 0 < number < len(sections.all) else None
        # The code of the exit does not run when the kmod is loaded.
        if left and section is not None and section.loaded and not section.name.startswith(".exit"):
            name = section.name
            yield Flaw(ALWAYS, f"no relocation of byte {min(left)} in {name}, where the code leaves the kmod")


def _is_call(sections: Sections, number: int, place: int) -> bool:
    known = 0 < number < len(sections.all) and place >= 0
    return known and sections.part(sections.all[number], place, 1) == bytes([_CALL])


def _target(sections: Sections, table: Section) -> Section | None:
    """Return the section that a table of relocations is for, or None for any other section."""
    known = table.kind == RELA and 0 < table.info < len(sections.all)
    return sections.all[table.info] if known else None


def _entries(sections: Sections, table: Section) -> Iterator[tuple[int, int, int]]:
    content = sections.content(table)
    whole = struct.iter_unpack("<QQq", content[: len(content) // _ENTRY_BYTES * _ENTRY_BYTES])
    return (entry for entry in whole if entry[1] & _TYPE)  # the type 0 does nothing
