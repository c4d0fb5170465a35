"""Kmods with damage that leaves their code alone: bytes changed, cut off or put in, by a seeded chance."""

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
# Small kmods that need no other one, and of whose init nothing can be broken.
KINDS = ("pf_plain", "pf_gives", "pf_gpl", "pf_namespace", "pf_weak", "pf_weak_found")


def mutants(built: Mapping[str, bytes], chance: Random) -> Iterator[bytes]:
    """Without end. Each has a name of its own, and so has what it exports: one may stay loaded beside the next."""
    number = 0
    while True:
        name = chance.choice(KINDS)
        number += 1
        whole = _renamed(built[name], name, number)
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
    """Where its parts begin and end: headers, and the sections that neither are code nor are written into it."""
    sections = read_sections(kmod, AMD64)
    (start,) = struct.unpack_from("<Q", kmod, 40)
    yield 0, HEADER_BYTES
    yield start, start + HEADER_BYTES * len(sections.all)
    for one in sections.all:
        if one.kind not in (NULL, NOBITS) and one.size and not _is_code(one, sections):
            yield one.offset, one.offset + one.size


def _is_code(one: Section, sections: Sections) -> bool:
    return bool((sections.all[one.info] if one.kind in (REL, RELA) else one).flags & EXEC)


def _has_code_of(kmod: bytes, whole: bytes) -> bool:
    """Whether a loader that takes the kmod finds the same code; an object that no loader reads has none to lose."""
    with suppress(Malformed):
        return _code(kmod) == _code(whole)
    return True


def _code(kmod: bytes) -> tuple[dict[str, OwnSymbol | None], list[tuple[int, bytes]]]:
    """Where its init and exit begin, and the sections of code with what is written into them."""
    sections = read_sections(kmod, AMD64)
    table = find_symbol_table(sections)
    symbols = SymbolTable(sections, table) if table else None
    starts = {name: symbols.with_prefix(name).get("") for name in ("init_module", "cleanup_module")} if symbols else {}
    return starts, [
        (number, sections.content(one))
        for number, one in enumerate(sections.all)
        if one.info < len(sections.all) and _is_code(one, sections)
    ]
