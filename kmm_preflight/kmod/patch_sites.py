"""Where a kmod's tables lead the loader: to its init, the names of its exports, code that is patched while it loads."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from kmm_preflight.kmod.sections import ALWAYS, EXEC, NOBITS, RELA, Flaw, Section, Sections
from kmm_preflight.kmod.symbols import OwnSymbol, Symbols

_NONE, _ADDRESS, _RELATIVE = 0, 1, 2
_FAR = 1 << 64
_THIS_MODULE = ".gnu.linkonce.this_module"
_STARTS = ("init_module", "cleanup_module")
_ENTRY_BYTES = 24
# struct module has two.
_STARTS_MOST = 1 << 12
# Tables of places in the code, with the one type of relocation that the kernel's readers of x86_64 take them to have.
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
# Tables that lead to whatever the kmod has; the kernel walks them before the kmod's init runs.
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


def leads_astray(
    sections: Sections, symbols: Symbols, target: Section, relocations: Iterable[tuple[int, int, int]]
) -> Iterator[Flaw]:
    """The first place in one of those tables that lies outside what it should be in.

    relocations: of each the number of its symbol, its type, and what is added. The loader follows them without a look
    and takes the kernel down, so no refusal of its own has words for it.
    """
    code = _OF_CODE.get(target.name)
    if code is None and target.name not in _OF_ANY:
        return
    entries, limits_of = list(relocations), _in_code if code else _in_section
    limits = {number: limits_of(sections, symbols.at(number)) for number in {number for number, *_ in entries}}
    if target.name == _THIS_MODULE:
        limits |= {number: _begin(limits[number]) for number in limits if symbols.name_of(number) in _STARTS}
    for number, kind, addend in entries:
        low, high = limits[number]
        if kind != _NONE and not (low <= addend < high and code in (None, kind)):
            what = "code of the kmod" if code else "a place in the kmod"
            yield Flaw(ALWAYS, f"a place in {target.name} that leads astray, expected {what}")
            return


def _in_section(sections: Sections, symbol: OwnSymbol) -> tuple[int, int]:
    """What can be added to a symbol of the kmod's own, its section's end among it; to others, anything."""
    if not 0 < symbol.section < len(sections.all):
        return -_FAR, _FAR
    if not sections.all[symbol.section].loaded:
        return 0, 0  # what is not loaded is gone when the kernel looks there
    return -symbol.value, sections.all[symbol.section].size + 1 - symbol.value


def _begin(limits: tuple[int, int]) -> tuple[int, int]:
    """Of these nothing but 0: a function is called where it begins."""
    return max(limits[0], 0), min(limits[1], 1)


def _in_code(sections: Sections, symbol: OwnSymbol) -> tuple[int, int]:
    section = sections.all[symbol.section] if 0 < symbol.section < len(sections.all) else None
    if section is None or not section.loaded or not section.flags & EXEC or section.kind == NOBITS:
        return 0, 0
    return -symbol.value, section.size - symbol.value


def read_starts(sections: Sections, symbols: Symbols, this: Section) -> Mapping[str, int]:
    """Where in struct module, in bytes, the addresses of init and exit are written; without one that it has not."""
    number = next(number for number, one in enumerate(sections.all) if one is this)
    tables = (one for one in sections.all if one.kind == RELA and one.info == number)
    content = sections.bounded(next(tables, None), _ENTRY_BYTES * _STARTS_MOST)
    whole = content[: len(content) // _ENTRY_BYTES * _ENTRY_BYTES]
    entries = struct.iter_unpack(f"{sections.machine.order}QQ8x", whole)
    named = {symbols.name_of(what >> 32): place for place, what in entries}
    return {name: named[name] for name in _STARTS if name in named}
