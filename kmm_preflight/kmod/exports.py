"""Symbols that a kmod exports, read from its own tables (docs/reference/loader.md 2).

Images do not contain the Module.symvers of their kmods.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from kmm_preflight.kmod.sections import RELA, Section, Sections
from kmm_preflight.kmod.symbols import OwnSymbol, SymbolTable

_NAME_BYTES = 512
_ENTRIES = 1 << 16
_STRINGS_BYTES = 16 << 20
_RELOCATION_BYTES = 24
_PAIRS = (("__ksymtab", "__kcrctab"), ("__ksymtab_gpl", "__kcrctab_gpl"))
_FLAGS, _GPL_ONLY = "__kflagstab", 1
# Size of an entry and of one field: three relative numbers of 32 bits, or three addresses. Value, name, namespace.
_RELATIVE, _ADDRESSES = (12, 4), (24, 8)


@dataclass(frozen=True)
class KmodExport:
    """A symbol that a kmod exports to other kmods."""

    crc: int | None
    """CRC of the symbol, or None without symbol versions."""
    gpl: bool
    """True if only GPL-compatible kmods may use the symbol."""
    namespace: str | None
    """Namespace that users of the symbol must import, or None."""
    flagged: bool = False
    """True if the flags of the symbol say that only GPL-compatible kmods may use it. Only newer kernels read flags."""


def by_flags(exports: Mapping[str, KmodExport]) -> Mapping[str, KmodExport]:
    """Return the exports as kernels since 7.1 read them: from one table, with the flags of each symbol."""
    return {name: replace(export, gpl=export.flagged) for name, export in exports.items() if not export.gpl}


def lacks_flags(sections: Sections) -> bool:
    """True if the table of exports has no table of flags. Kernels since 7.1 refuse that."""
    exported = sections.named(_PAIRS[0][0])
    return exported is not None and exported.size >= _RELATIVE[0] and not sections.named(_FLAGS)


def read_exports(sections: Sections, symbols: SymbolTable) -> Mapping[str, KmodExport]:
    """Map names to exports.

    Read the symbols that name the exports. If the kmod was stripped of them, read the tables.
    """
    if not any(sections.named(table) for table, _ in _PAIRS):
        return {}
    return _by_symbols(sections, symbols) or _by_tables(sections, symbols)


def has_unversioned_exports(sections: Sections) -> bool:
    """True if a table of exports has no table of CRCs."""
    return any(
        (exported := sections.named(table)) is not None and exported.size >= _RELATIVE[0] and not sections.named(crcs)
        for table, crcs in _PAIRS
    )


def _by_symbols(sections: Sections, symbols: SymbolTable) -> Mapping[str, KmodExport]:
    tables = {number: section.name for number, section in enumerate(sections.all) if section.name in dict(_PAIRS)}
    crcs, namespaces = symbols.with_prefix("__crc_"), symbols.with_prefix("__kstrtabns_")
    flags = _read_flags(sections)
    exports: dict[str, KmodExport] = {}
    size, _ = _entry_size(sections)
    for name, entry in symbols.with_prefix("__ksymtab_").items():
        table = tables.get(entry.section)
        if table is not None and len(exports) < _ENTRIES:
            crc = _crc(sections, symbols, crcs.get(name))
            namespace = _string(sections, namespaces.get(name))
            exports[name] = KmodExport(crc, table.endswith("_gpl"), namespace, flags(entry.value // size))
    return exports


def _entry_size(sections: Sections) -> tuple[int, int]:
    """Return the size of an entry in a table of exports, and that of one of its fields."""
    return _RELATIVE if sections.machine.word in ("x86_64", "aarch64") else _ADDRESSES


def _read_flags(sections: Sections) -> Callable[[int], bool]:
    """Return a function that is True for the numbers of the exports that are for GPL-compatible kmods only."""
    flags = sections.bounded(sections.named(_FLAGS), _ENTRIES)
    return lambda number: number < len(flags) and bool(flags[number] & _GPL_ONLY)


def _crc(sections: Sections, symbols: SymbolTable, symbol: OwnSymbol | None) -> int | None:
    if symbol is None:
        return None
    if symbols.is_absolute(symbol):  # the format of older kernels
        return symbol.value & 0xFFFFFFFF
    return _number(sections, sections.all[symbol.section], symbol.value) if _is_inside(sections, symbol) else None


def _is_inside(sections: Sections, symbol: OwnSymbol) -> bool:
    return symbol.section < len(sections.all)


def _number(sections: Sections, section: Section, at: int) -> int | None:
    content = sections.part(section, at, 4)
    return int(struct.unpack(f"{sections.machine.order}I", content)[0]) if len(content) == 4 else None


def _string(sections: Sections, symbol: OwnSymbol | None) -> str | None:
    """Return the text at the symbol, or None if it is empty or absent."""
    if symbol is None or not _is_inside(sections, symbol):
        return None
    content = sections.part(sections.all[symbol.section], symbol.value, _NAME_BYTES)
    return content.partition(b"\0")[0].decode("utf-8", "replace") or None


def _by_tables(sections: Sections, symbols: SymbolTable) -> Mapping[str, KmodExport]:
    """Read the tables: entry i has CRC i, and the relocations of the entry lead to its name and namespace."""
    strings = sections.bounded(sections.named("__ksymtab_strings"), _STRINGS_BYTES)
    size, field = _entry_size(sections)
    exports, flags = {}, _read_flags(sections)
    for table, crcs in _PAIRS:
        exported, crc_table = sections.named(table), sections.named(crcs)
        if exported is None:
            continue
        targets = _targets(sections, symbols, exported)
        for number in range(min(exported.size // size, _ENTRIES)):
            name = _text(strings, targets.get(number * size + field))
            namespace = _text(strings, targets.get(number * size + 2 * field))
            if name:
                crc = _number(sections, crc_table, 4 * number) if crc_table else None
                exports[name] = KmodExport(crc, table.endswith("_gpl"), namespace, flags(number))
    return exports


def _text(strings: bytes, start: int | None) -> str | None:
    """Return the text at an offset of the strings, or None if it is empty or absent."""
    if start is None or start < 0:
        return None
    return strings[start : start + _NAME_BYTES].partition(b"\0")[0].decode("utf-8", "replace") or None


def _targets(sections: Sections, symbols: SymbolTable, section: Section) -> dict[int, int]:
    """Map each relocated offset of the section to the offset in another section to which the relocation leads."""
    number = sections.number(section)
    tables = (table for table in sections.all if table.kind == RELA and table.info == number)
    content = sections.bounded(next(tables, None), 3 * _ENTRIES * _RELOCATION_BYTES)
    whole = content[: len(content) // _RELOCATION_BYTES * _RELOCATION_BYTES]
    entries = struct.iter_unpack(f"{sections.machine.order}QQq", whole)
    return {place: symbols.symbol(symbol >> 32).value + addend for place, symbol, addend in entries}
