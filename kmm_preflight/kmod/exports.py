"""What a kmod exports to others, by its own tables (docs/reference/loader.md 2): its Module.symvers is in no image."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from kmm_preflight.kmod.sections import RELA, Section, Sections
from kmm_preflight.kmod.symbols import OwnSymbol, Symbols

_NAME_BYTES = 512
_ENTRIES = 1 << 16
_STRINGS_BYTES = 16 << 20
_RELOCATION_BYTES = 24
_PAIRS = (("__ksymtab", "__kcrctab"), ("__ksymtab_gpl", "__kcrctab_gpl"))
# Three relative numbers of 32 bits, or three addresses: value, name, namespace.
_RELATIVE, _ADDRESSES = (12, 4), (24, 8)


@dataclass(frozen=True)
class Export:
    """One symbol that others may use; crc is None where it has none."""

    crc: int | None
    gpl: bool
    namespace: str


def read_exports(sections: Sections, symbols: Symbols) -> Mapping[str, Export]:
    """The exports by name: from the symbols that name them, else (stripped of those) from the tables themselves."""
    if not any(sections.named(table) for table, _ in _PAIRS):
        return {}
    return _by_symbols(sections, symbols) or _by_tables(sections, symbols)


def unversioned_exports(sections: Sections) -> bool:
    """Whether a table of exports is there without its table of CRCs."""
    return any(
        (exported := sections.named(table)) is not None and exported.size >= _RELATIVE[0] and not sections.named(crcs)
        for table, crcs in _PAIRS
    )


def _by_symbols(sections: Sections, symbols: Symbols) -> Mapping[str, Export]:
    tables = {number: one.name for number, one in enumerate(sections.all) if one.name in dict(_PAIRS)}
    crcs, spaces = symbols.placed("__crc_"), symbols.placed("__kstrtabns_")
    found: dict[str, Export] = {}
    for name, entry in symbols.placed("__ksymtab_").items():
        table = tables.get(entry.section)
        if table is not None and len(found) < _ENTRIES:
            crc = _crc(sections, symbols, crcs.get(name))
            found[name] = Export(crc, table.endswith("_gpl"), _string(sections, spaces.get(name)))
    return found


def _crc(sections: Sections, symbols: Symbols, symbol: OwnSymbol | None) -> int | None:
    if symbol is None:
        return None
    if symbols.absolute(symbol):  # older kernels' way
        return symbol.value & 0xFFFFFFFF
    return _number(sections, sections.all[symbol.section], symbol.value) if _inside(sections, symbol) else None


def _inside(sections: Sections, symbol: OwnSymbol) -> bool:
    return symbol.section < len(sections.all)


def _number(sections: Sections, section: Section, at: int) -> int | None:
    content = sections.part(section, at, 4)
    return int(struct.unpack(f"{sections.machine.order}I", content)[0]) if len(content) == 4 else None


def _string(sections: Sections, symbol: OwnSymbol | None) -> str:
    if symbol is None or not _inside(sections, symbol):
        return ""
    content = sections.part(sections.all[symbol.section], symbol.value, _NAME_BYTES)
    return content.partition(b"\0")[0].decode("utf-8", "replace")


def _by_tables(sections: Sections, symbols: Symbols) -> Mapping[str, Export]:
    """Entry i of a table belongs to CRC i; the names are found by the relocations of the entries."""
    strings = sections.bounded(sections.named("__ksymtab_strings"), _STRINGS_BYTES)
    size, word = _RELATIVE if sections.machine.word in ("x86_64", "aarch64") else _ADDRESSES
    found = {}
    for table, crcs in _PAIRS:
        exported, checks = sections.named(table), sections.named(crcs)
        if exported is None:
            continue
        targets = _targets(sections, symbols, exported)
        for number in range(min(exported.size // size, _ENTRIES)):
            name = _text(strings, targets.get(number * size + word))
            space = _text(strings, targets.get(number * size + 2 * word))
            if name:
                crc = _number(sections, checks, 4 * number) if checks else None
                found[name] = Export(crc, table.endswith("_gpl"), space)
    return found


def _text(strings: bytes, start: int | None) -> str:
    if start is None or start < 0:
        return ""
    return strings[start : start + _NAME_BYTES].partition(b"\0")[0].decode("utf-8", "replace")


def _targets(sections: Sections, symbols: Symbols, section: Section) -> dict[int, int]:
    """Where in their sections the relocations of a section lead, by the place that each is for."""
    number = next(number for number, one in enumerate(sections.all) if one is section)
    tables = (one for one in sections.all if one.kind == RELA and one.info == number)
    content = sections.bounded(next(tables, None), 3 * _ENTRIES * _RELOCATION_BYTES)
    whole = content[: len(content) // _RELOCATION_BYTES * _RELOCATION_BYTES]
    entries = struct.iter_unpack(f"{sections.machine.order}QQq", whole)
    return {place: symbols.at(what >> 32).value + addend for place, what, addend in entries}
