"""Kmods with random damage outside their code: bytes are changed, removed or inserted."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from random import Random

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.machine import MACHINES
from kmm_preflight.kmod.sections import EXEC, HEADER_BYTES, NOBITS, NULL, REL, RELA, Section, Sections, read_sections
from kmm_preflight.kmod.symbols import OwnSymbol, SymbolTable, find_symbol_table

AMD64 = MACHINES["amd64"]
_BYTES = (0, 1, 2, 0x7F, 0x80, 0xFF)
# Small kmods that need no other kmod, and whose init cannot fail.
KINDS = ("pf_plain", "pf_gives", "pf_gpl", "pf_namespace", "pf_weak", "pf_weak_found")


def mutants(kmods: Mapping[str, bytes], chance: Random) -> Iterator[bytes]:
    """Yield damaged kmods without end.

    Their names and exports differ, so that a kernel can load all of them.
    """
    number = 0
    while True:
        name = chance.choice(KINDS)
        number += 1
        whole = _renamed(kmods[name], name, number)
        kmod = _changed(whole, chance)
        if kmod != whole and _has_code_of(kmod, whole):
            yield kmod


def _renamed(kmod: bytes, name: str, number: int) -> bytes:
    at = kmod.index(bytes(24) + name.encode() + b"\0") + 24
    own = f"m{number:07}"[: len(name)].ljust(len(name), "m").encode()
    return (kmod[:at] + own + kmod[at + len(name) :]).replace(b"pf_given", f"p{number:07}".encode())


def _changed(kmod: bytes, chance: Random) -> bytes:
    changed, spans = bytearray(kmod), list(_spans(kmod))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = chance.randrange(*chance.choice(spans))
        changed[place] = chance.choice((*_BYTES, chance.randrange(256), changed[place] ^ 1 << chance.randrange(8)))
    more = chance.randbytes(chance.randrange(1, 200))
    match chance.randrange(8):
        case 0:
            return bytes(changed[: chance.randrange(len(changed))])
        case 1:
            place = chance.randrange(len(changed))
            return bytes(changed[:place] + more + changed[place:])
        case 2:
            return bytes(changed + more)
    return bytes(changed)


def _spans(kmod: bytes) -> Iterator[tuple[int, int]]:
    """Yield begin and end of headers, and of sections that are not code and whose relocations do not change code."""
    sections = read_sections(kmod, AMD64)
    (start,) = struct.unpack_from("<Q", kmod, 40)
    yield 0, HEADER_BYTES
    yield start, start + HEADER_BYTES * len(sections.all)
    for section in sections.all:
        if section.kind not in (NULL, NOBITS) and section.size and not _is_code(section, sections):
            yield section.offset, section.offset + section.size


def _is_code(section: Section, sections: Sections) -> bool:
    target = sections.all[section.info] if section.kind in (REL, RELA) else section
    return bool(target.flags & EXEC)


def _has_code_of(kmod: bytes, whole: bytes) -> bool:
    """True if the kmod has the code of the whole kmod, or if no loader can read the kmod."""
    with suppress(Malformed):
        return _code(kmod) == _code(whole)
    return True


def _code(kmod: bytes) -> tuple[dict[str, OwnSymbol | None], list[tuple[int, bytes]]]:
    """Return the symbols of init and exit, and numbers and bytes of the sections of code and of their relocations."""
    sections = read_sections(kmod, AMD64)
    table = find_symbol_table(sections)
    symbols = SymbolTable(sections, table) if table else None
    starts = {name: symbols.with_prefix(name).get("") for name in ("init_module", "cleanup_module")} if symbols else {}
    return starts, [
        (number, sections.content(section))
        for number, section in enumerate(sections.all)
        if section.info < len(sections.all) and _is_code(section, sections)
    ]
