"""Read the relocations of a kmod, and find those that no loader supports (docs/reference/loader.md 1, step 14)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.kmod.packed import Bytes
from kmm_preflight.kmod.patch_sites import leads_astray
from kmm_preflight.kmod.sections import ALWAYS, NOBITS, REL, RELA, Flaw, Section, Sections
from kmm_preflight.kmod.symbols import Symbols

_ENTRY_BYTES = 24
# A driver of 100 MiB has 500,000, those of its debug data among them.
_ENTRIES = 4_000_000
_LITTLE = sys.byteorder == "little"
# NONE, 64, PC32, PLT32, 32, 32S, PC64: the types that every x86_64 loader of the range knows.
_X86_TYPES = frozenset((0, 1, 2, 4, 10, 11, 24))
_X86_EIGHT_BYTES = frozenset((1, 24))
# Holds no address of a module or of the kernel, which are all above 4 GiB.
_X86_SHORT = 10
# Absolute and relative numbers, and all parts of instructions that hold an address, by the ABI's numbers.
_ARM64_TYPES = frozenset((0, *range(256, 281), *range(282, 294), 299))
_FAR = 1 << 31
_LIVEPATCH, _LIVEPATCH_NAME = 0x100000, ".klp.rela."
_TYPES = {"x86_64": _X86_TYPES, "aarch64": _ARM64_TYPES}


def relocation_flaws(sections: Sections, symbols: Symbols) -> Iterator[Flaw]:
    """What the loader refuses, or does not survive. Types are x86_64's and aarch64's.

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
        elif sections.all[one.info].loaded and one.flags & _LIVEPATCH and not one.name.startswith(_LIVEPATCH_NAME):
            yield Flaw(ALWAYS, f"relocations of a live patch in {one.name}, expected {_LIVEPATCH_NAME}…")
        elif sections.all[one.info].loaded:
            yield from _flaws(sections, one, sections.all[one.info], symbols)


def _flaws(sections: Sections, table: Section, target: Section, symbols: Symbols) -> Iterator[Flaw]:
    content = sections.content(table)
    entries = memoryview(content[: len(content) // _ENTRY_BYTES * _ENTRY_BYTES])
    places = _numbers(entries, 8, 0, sections.machine.order)
    low, high = (8, 12) if sections.machine.order == "<" else (12, 8)
    types = _numbers(entries, 4, low, sections.machine.order)
    of = _numbers(entries, 4, high, sections.machine.order)
    if max(of, default=0) >= symbols.count:
        yield Flaw(ALWAYS, f"a relocation of {target.name} by a symbol that there is not")
    if max(places, default=0) >= max(target.size, 1):
        yield Flaw(ALWAYS, f"a relocation beyond the end of {target.name}")
    elif unknown := set(types) - _TYPES.get(sections.machine.word, frozenset(types)):
        yield Flaw(ALWAYS, f"a relocation of type {min(unknown)} in {target.name}")
    elif sections.machine.word == "x86_64":
        addends = [number - (1 << 64) if number >> 63 else number for number in _numbers(entries, 8, 16, "<")]
        yield from _far(addends, target, types)
        yield from _short(of, target, types, symbols)
        yield from _x86(sections.data, target, places, types)
        yield from leads_astray(sections, symbols, target, zip(of, types, addends, strict=True))


def _numbers(entries: memoryview, size: int, at: int, order: str) -> list[int]:
    """One number of each entry; in one go, as there can be 100,000."""
    words = entries.cast("B")
    if (order == "<") is not _LITTLE:
        return [int.from_bytes(words[place : place + size], "big" if order == ">" else "little")
                for place in range(at, len(words), _ENTRY_BYTES)]  # fmt: skip
    return words.cast("Q" if size == 8 else "I")[at // size :: _ENTRY_BYTES // size].tolist()


def _far(addends: list[int], target: Section, types: list[int]) -> Iterator[Flaw]:
    """Numbers that no 32 bits hold, wherever the kmod is put."""
    if min(addends, default=0) >= -_FAR and max(addends, default=0) < _FAR:
        return
    if any(not -_FAR <= one < _FAR and kind not in _X86_EIGHT_BYTES for one, kind in zip(addends, types, strict=True)):
        yield Flaw(ALWAYS, f"a relocation in {target.name} farther than 2 GiB")


def _short(of: list[int], target: Section, types: list[int], symbols: Symbols) -> Iterator[Flaw]:
    """Addresses in four bytes that are not extended by their sign."""
    if _X86_SHORT in types and any(
        kind == _X86_SHORT and not symbols.absolute(symbols.at(one)) for one, kind in zip(of, types, strict=True)
    ):
        yield Flaw(ALWAYS, f"an address in {target.name} that four bytes do not hold")


def _x86(data: Bytes, target: Section, places: list[int], types: list[int]) -> Iterator[Flaw]:
    """Places that hold something already, which this loader takes for a sign of damage: in the file, or by then."""
    sizes = [8 if kind in _X86_EIGHT_BYTES else 4 for kind in types]
    # Place and size in one number, which sorts fast.
    written = sorted(place << 4 | size for place, size, kind in zip(places, sizes, types, strict=True) if kind)
    if any((after >> 4) - (one >> 4) < one & 15 for one, after in pairwise(written)):
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
