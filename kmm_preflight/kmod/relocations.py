"""Relocations of a kmod, and those that no loader applies (docs/reference/loader.md 1, step 14)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.kmod.linked_sites import unlinked_site_flaws
from kmm_preflight.kmod.packed import ObjectBytes
from kmm_preflight.kmod.patch_sites import patch_site_flaws
from kmm_preflight.kmod.sections import ALWAYS, NOBITS, REL, RELA, Flaw, Section, Sections
from kmm_preflight.kmod.symbols import SymbolTable

_ENTRY_BYTES = 24
# A driver of 100 MiB has 500,000 relocations, including those of its debug data.
_ENTRIES = 4_000_000
_LITTLE = sys.byteorder == "little"
# NONE, 64, PC32, PLT32, 32, 32S, PC64: the types that every supported x86_64 loader applies.
_X86_TYPES = frozenset((0, 1, 2, 4, 10, 11, 24))
_X86_EIGHT_BYTES = frozenset((1, 24))
# An unsigned number of 32 bits. Addresses of kmods and of the kernel are all above 4 GiB.
_X86_SHORT = 10
# Absolute and relative numbers, and all parts of instructions that hold an address. The numbers are the ABI's.
_ARM64_TYPES = frozenset((0, *range(256, 281), *range(282, 294), 299))
_FAR = 1 << 31
_LIVEPATCH, _LIVEPATCH_NAME = 0x100000, ".klp.rela."
_TYPES = {"x86_64": _X86_TYPES, "aarch64": _ARM64_TYPES}


def relocation_flaws(sections: Sections, symbols: SymbolTable) -> Iterator[Flaw]:
    """Yield relocations that the loader refuses, or that crash the kernel.

    Types are checked for x86_64 and aarch64 only. Raise BoundExceeded if there are more than four million relocations.
    """
    tables = [section for section in sections.all if section.kind in (REL, RELA)]
    if sum(table.size for table in tables) > _ENTRIES * _ENTRY_BYTES:
        raise BoundExceeded(f"kmod: more than {_ENTRIES} relocations")
    for table in tables:
        if table.info >= len(sections.all):
            count = len(sections.all)
            yield Flaw(ALWAYS, f"relocations of section {table.info}, but the object has {count} sections")
        elif sections.all[table.info].loaded and table.kind == REL:
            yield Flaw(ALWAYS, "relocations without addends")
        elif sections.all[table.info].loaded and table.flags & _LIVEPATCH and not _is_named_livepatch(table):
            yield Flaw(ALWAYS, f"relocations of a live patch in {table.name}, expected {_LIVEPATCH_NAME}…")
        elif sections.all[table.info].loaded:
            yield from _table_flaws(sections, table, sections.all[table.info], symbols)
    if sections.machine.word == "x86_64":
        yield from unlinked_site_flaws(sections, symbols)


def _is_named_livepatch(table: Section) -> bool:
    return table.name.startswith(_LIVEPATCH_NAME)


def _table_flaws(sections: Sections, table: Section, target: Section, symbols: SymbolTable) -> Iterator[Flaw]:
    content = sections.content(table)
    entries = memoryview(content[: len(content) // _ENTRY_BYTES * _ENTRY_BYTES])
    places = _numbers(entries, 8, 0, sections.machine.order)
    low, high = (8, 12) if sections.machine.order == "<" else (12, 8)
    types = _numbers(entries, 4, low, sections.machine.order)
    numbers = _numbers(entries, 4, high, sections.machine.order)
    if max(numbers, default=0) >= symbols.count:
        yield Flaw(ALWAYS, f"a relocation of {target.name} by a symbol that does not exist")
    if max(places, default=0) >= max(target.size, 1):
        yield Flaw(ALWAYS, f"a relocation beyond the end of {target.name}")
    elif unknown := set(types) - _TYPES.get(sections.machine.word, frozenset(types)):
        yield Flaw(ALWAYS, f"a relocation of type {min(unknown)} in {target.name}")
    elif sections.machine.word == "x86_64":
        addends = [number - (1 << 64) if number >> 63 else number for number in _numbers(entries, 8, 16, "<")]
        yield from _far_flaws(addends, target, types)
        yield from _short_flaws(numbers, target, types, symbols)
        yield from _place_flaws(sections.data, target, places, types)
        yield from patch_site_flaws(sections, symbols, target, zip(numbers, types, addends, strict=True))


def _numbers(entries: memoryview, size: int, at: int, order: str) -> list[int]:
    """Return the number at an offset of each entry, in one call: a table can have 100,000 entries."""
    table = entries.cast("B")
    if (order == "<") is not _LITTLE:
        return [int.from_bytes(table[place : place + size], "big" if order == ">" else "little")
                for place in range(at, len(table), _ENTRY_BYTES)]  # fmt: skip
    return table.cast("Q" if size == 8 else "I")[at // size :: _ENTRY_BYTES // size].tolist()


def _far_flaws(addends: list[int], target: Section, types: list[int]) -> Iterator[Flaw]:
    """Yield an addend that does not fit into 32 bits, at whatever address the kmod is loaded."""
    if min(addends, default=0) >= -_FAR and max(addends, default=0) < _FAR:
        return
    pairs = zip(addends, types, strict=True)
    if any(not -_FAR <= addend < _FAR and kind not in _X86_EIGHT_BYTES for addend, kind in pairs):
        yield Flaw(ALWAYS, f"a relocation in {target.name} farther than 2 GiB")


def _short_flaws(numbers: list[int], target: Section, types: list[int], symbols: SymbolTable) -> Iterator[Flaw]:
    """Yield an address in four unsigned bytes."""
    if _X86_SHORT in types and any(
        kind == _X86_SHORT and not symbols.is_absolute(symbols.symbol(number))
        for number, kind in zip(numbers, types, strict=True)
    ):
        yield Flaw(ALWAYS, f"an address in {target.name} that does not fit into four bytes")


def _place_flaws(data: ObjectBytes, target: Section, places: list[int], types: list[int]) -> Iterator[Flaw]:
    """Yield places that are not zero when the loader writes to them. x86_64 takes this for a sign of damage.

    The file has other bytes there, or another relocation wrote there before.
    """
    sizes = [8 if kind in _X86_EIGHT_BYTES else 4 for kind in types]
    # Place and size in one number, which sorts fast.
    written = sorted(place << 4 | size for place, size, kind in zip(places, sizes, types, strict=True) if kind)
    if any((after >> 4) - (before >> 4) < before & 15 for before, after in pairwise(written)):
        yield Flaw(ALWAYS, f"two relocations of one place in {target.name}")
    elif written and (written[-1] >> 4) + (written[-1] & 15) > target.size:
        yield Flaw(ALWAYS, f"a relocation beyond the end of {target.name}")
    if target.kind == NOBITS:
        return
    content = data[target.offset : target.offset + target.size]
    for place, size, kind in zip(places, sizes, types, strict=True):
        if kind and any(content[place : place + size]):
            yield Flaw(ALWAYS, f"a relocation in {target.name} where byte {place} is not zero")
            return
