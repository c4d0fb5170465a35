"""Which relocations a kmod asks the loader for, and which of them no loader does (loader-reference 1, step 14)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.kmod.sections import ALWAYS, NOBITS, REL, RELA, Flaw, Section, Sections
from kmm_preflight.kmod.unpacked import Bytes

_ENTRY_BYTES = 24
# A driver of 100 MiB has 500,000, those of its debug data among them.
_ENTRIES = 4_000_000
_LITTLE = sys.byteorder == "little"
# NONE, 64, PC32, PLT32, 32, 32S, PC64: the types that every x86_64 loader of the range knows.
_X86_TYPES = frozenset((0, 1, 2, 4, 10, 11, 24))
_X86_EIGHT_BYTES = frozenset((1, 24))
# Absolute and relative numbers, and all parts of instructions that hold an address, by the ABI's numbers.
_ARM64_TYPES = frozenset((0, *range(256, 281), *range(282, 294), 299))
_FAR = 1 << 31
_TYPES = {"x86_64": _X86_TYPES, "aarch64": _ARM64_TYPES}


def relocation_flaws(sections: Sections, symbols: int) -> Iterator[Flaw]:
    """What the loader refuses, or does not survive. symbols is how many there are; types are x86_64's and aarch64's.

    BoundExceeded for more than four million.
    """
    tables = [one for one in sections.all if one.kind in (REL, RELA)]
    if sum(one.size for one in tables) > _ENTRIES * _ENTRY_BYTES:
        raise BoundExceeded(f"kmod: more than {_ENTRIES} relocations")
    for one in tables:
        if one.info >= len(sections.all):
            yield Flaw(
                ALWAYS, f"relocations of section {one.info}, expected one of the {len(sections.all)} that there are"
            )
        elif sections.all[one.info].loaded and one.kind == REL:
            yield Flaw(ALWAYS, "relocations without addends")
        elif sections.all[one.info].loaded:
            yield from _flaws(sections, one, sections.all[one.info], symbols)


def _flaws(sections: Sections, table: Section, target: Section, symbols: int) -> Iterator[Flaw]:
    content = sections.content(table)
    entries = memoryview(content[: len(content) // _ENTRY_BYTES * _ENTRY_BYTES])
    places = _numbers(entries, 8, 0, sections.machine.order)
    low, high = (8, 12) if sections.machine.order == "<" else (12, 8)
    types = _numbers(entries, 4, low, sections.machine.order)
    if max(_numbers(entries, 4, high, sections.machine.order), default=0) >= symbols:
        yield Flaw(ALWAYS, f"a relocation of {target.name} by a symbol that there is not")
    if max(places, default=0) >= max(target.size, 1):
        yield Flaw(ALWAYS, f"a relocation beyond the end of {target.name}")
    elif unknown := set(types) - _TYPES.get(sections.machine.word, frozenset(types)):
        yield Flaw(ALWAYS, f"a relocation of type {min(unknown)} in {target.name}")
    elif sections.machine.word == "x86_64":
        yield from _far(entries, target, types)
        yield from _x86(sections.data, target, places, types)


def _numbers(entries: memoryview, size: int, at: int, order: str) -> list[int]:
    """One number of each entry; in one go, as there can be 100,000."""
    words = entries.cast("B")
    if (order == "<") is not _LITTLE:
        return [int.from_bytes(words[place : place + size], "big" if order == ">" else "little")
                for place in range(at, len(words), _ENTRY_BYTES)]  # fmt: skip
    return words.cast("Q" if size == 8 else "I")[at // size :: _ENTRY_BYTES // size].tolist()


def _far(entries: memoryview, target: Section, types: list[int]) -> Iterator[Flaw]:
    """Numbers that no 32 bits hold, wherever the kmod is put."""
    addends = [number - (1 << 64) if number >> 63 else number for number in _numbers(entries, 8, 16, "<")]
    if min(addends, default=0) >= -_FAR and max(addends, default=0) < _FAR:
        return
    if any(not -_FAR <= one < _FAR and kind not in _X86_EIGHT_BYTES for one, kind in zip(addends, types, strict=True)):
        yield Flaw(ALWAYS, f"a relocation in {target.name} farther than 2 GiB")


def _x86(data: Bytes, target: Section, places: list[int], types: list[int]) -> Iterator[Flaw]:
    """Places that hold something already, which this loader takes for a sign of damage: in the file, or by then."""
    written = sorted(place for place, kind in zip(places, types, strict=True) if kind)
    if any(after - place < 4 for place, after in pairwise(written)):
        yield Flaw(ALWAYS, f"two relocations of one place in {target.name}")
    if target.kind == NOBITS:
        return
    content = data[target.offset : target.offset + target.size]
    for place, kind in zip(places, types, strict=True):
        size = 8 if kind in _X86_EIGHT_BYTES else 4
        if kind and any(content[place : place + size]):
            yield Flaw(ALWAYS, f"a relocation in {target.name} where byte {place} is not zero")
            return
