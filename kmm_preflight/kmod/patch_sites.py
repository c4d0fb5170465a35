"""Tables of a kmod that point to its own code and data: init, names of exports, code that the kernel patches."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from kmm_preflight.kmod.sections import ALWAYS, EXEC, NOBITS, RELA, Flaw, Section, Sections
from kmm_preflight.kmod.symbols import OwnSymbol, SymbolTable

_NONE, _ADDRESS, _RELATIVE = 0, 1, 2
_NO_LIMIT = 1 << 64
_THIS_MODULE = ".gnu.linkonce.this_module"
_ENTRY_POINTS = ("init_module", "cleanup_module")
_ENTRY_BYTES = 24
# struct module has two relocations.
_MOST_ENTRIES = 1 << 12
# Tables of places in the code. x86_64 kernels expect one type of relocation in each table.
_OF_CODE = {
    _THIS_MODULE: _ADDRESS,
    "__mcount_loc": _ADDRESS,
    "__patchable_function_entries": _ADDRESS,
    ".parainstructions": _ADDRESS,
    ".call_sites": _RELATIVE,
    ".ibt_endbr_seal": _RELATIVE,
    ".retpoline_sites": _RELATIVE,
    ".return_sites": _RELATIVE,
    ".smp_locks": _RELATIVE,
}
# Tables of places in any section. The kernel reads them before it runs the kmod's init.
_OF_ANY = frozenset(
    (
        "__bug_table",
        "__ex_table",
        "__jump_table",
        "__ksymtab",
        "__ksymtab_gpl",
        "__param",
        ".altinstructions",
        ".orc_unwind_ip",
        ".static_call_sites",
    )
)


def patch_site_flaws(
    sections: Sections, symbols: SymbolTable, target: Section, relocations: Iterable[tuple[int, int, int]]
) -> Iterator[Flaw]:
    """Yield the first entry of a table that points to a wrong place.

    The loader follows these entries without a check, and the kernel crashes. So no message of the kernel names them.
    relocations: symbol number, type and addend of each relocation of the target section.
    """
    code = _OF_CODE.get(target.name)
    if code is None and target.name not in _OF_ANY:
        return
    entries, limits_of = list(relocations), _code_limits if code else _section_limits
    limits = {number: limits_of(sections, symbols.symbol(number)) for number in {number for number, *_ in entries}}
    if target.name == _THIS_MODULE:
        limits |= {number: _start_only(limits[number]) for number in limits if symbols.name_of(number) in _ENTRY_POINTS}
    for number, kind, addend in entries:
        low, high = limits[number]
        if kind != _NONE and not (low <= addend < high and code in (None, kind)):
            place = "code of the kmod" if code else "a place in the kmod"
            yield Flaw(ALWAYS, f"an entry of {target.name} that does not point to {place}")
            return


def _section_limits(sections: Sections, symbol: OwnSymbol) -> tuple[int, int]:
    """Return the range of addends that stay in the symbol's section, its end included.

    If the symbol is not the kmod's own, every addend is in the range.
    """
    if not 0 < symbol.section < len(sections.all):
        return -_NO_LIMIT, _NO_LIMIT
    if not sections.all[symbol.section].loaded:
        return 0, 0  # the section is not in memory when the kernel reads the table
    return -symbol.value, sections.all[symbol.section].size + 1 - symbol.value


def _start_only(limits: tuple[int, int]) -> tuple[int, int]:
    """Reduce the range to the addend 0: the kernel calls a function at its first byte."""
    return max(limits[0], 0), min(limits[1], 1)


def _code_limits(sections: Sections, symbol: OwnSymbol) -> tuple[int, int]:
    """Return the range of addends that stay in the symbol's section, if it has code. Otherwise the range is empty."""
    section = sections.all[symbol.section] if 0 < symbol.section < len(sections.all) else None
    if section is None or not section.loaded or not section.flags & EXEC or section.kind == NOBITS:
        return 0, 0
    return -symbol.value, section.size - symbol.value


def read_entry_offsets(sections: Sections, symbols: SymbolTable, this: Section) -> Mapping[str, int]:
    """Map init_module and cleanup_module to their byte offsets in struct module. Leave out a function it lacks."""
    number = sections.number(this)
    tables = (section for section in sections.all if section.kind == RELA and section.info == number)
    content = sections.bounded(next(tables, None), _ENTRY_BYTES * _MOST_ENTRIES)
    whole = content[: len(content) // _ENTRY_BYTES * _ENTRY_BYTES]
    entries = struct.iter_unpack(f"{sections.machine.order}QQ8x", whole)
    offsets = {symbols.name_of(symbol >> 32): place for place, symbol in entries}
    return {name: offsets[name] for name in _ENTRY_POINTS if name in offsets}
