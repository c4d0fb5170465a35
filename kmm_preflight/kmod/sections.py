"""An object's header and sections, with the checks that the loader makes of them (docs/reference/loader.md 1.1)."""

# struct instead of pyelftools: the kernel reads by its own class and byte order and ignores what EI_CLASS and EI_DATA
# claim (x86_64 loads an object that says ELF32), which a reader that believes them misreads; and a kmod of some
# megabytes has to be judged in milliseconds.

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.machine import Architecture, machine_word
from kmm_preflight.kmod.packed import Bytes

HEADER_BYTES = 64
_SECTION_BYTES = 64
_RELOCATABLE = 1
_NAME_BYTES = 256

NULL, SYMTAB, STRTAB, RELA, NOBITS, REL = 0, 2, 3, 4, 8, 9
WRITE, ALLOC, EXEC = 1, 2, 4

# What the loader learned to check, by the mainline release that has it; RHEL's numbers are those it is based on.
ALWAYS, SINCE_COUNTED, SINCE_STRINGS = (0, 0), (6, 4), (6, 14)

_TRAILER = b"~Module signature appended~\n"
_SIGNATURE_HEAD = struct.Struct(">8BI")
_PKCS7 = 2


class WrongMachine(Malformed):
    """An object of another architecture; the message is the word for it."""


@dataclass(frozen=True)
class Flaw:
    """Something in an object that kernels since a release refuse."""

    since: tuple[int, int]
    words: str


@dataclass(frozen=True)
class Section:
    """A section header; name is "" where the string table does not have it."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int

    @property
    def loaded(self) -> bool:
        """Whether the loader finds it by name."""
        return bool(self.flags & ALLOC)


@dataclass(frozen=True)
class Sections:
    """The sections of an object, what its header says beside them, and flaws that only some kernels mind."""

    data: Bytes
    machine: Architecture
    flags: int
    all: tuple[Section, ...]
    flaws: tuple[Flaw, ...] = field(default=())

    def named(self, name: str) -> Section | None:
        """The first loaded section of that name, as the loader finds it."""
        return next((one for one in self.all if one.loaded and one.name == name), None)

    def anywhere(self, name: str) -> Section | None:
        """The first section of that name, loaded or not."""
        return next((one for one in self.all if one.name == name), None)

    def content(self, section: Section | None) -> bytes:
        """The section's bytes; none of one that is absent or takes no room in the file."""
        if section is None or section.kind in (NULL, NOBITS):
            return b""
        return self.data[section.offset : section.offset + section.size]

    def part(self, section: Section, at: int, size: int) -> bytes:
        """That many of the section's bytes from a place on, fewer at its end."""
        if section.kind in (NULL, NOBITS) or at >= section.size:
            return b""
        return self.data[section.offset + at : section.offset + min(at + size, section.size)]

    def bounded(self, section: Section | None, most: int) -> bytes:
        """The section's bytes; BoundExceeded when there are more than that."""
        if section is not None and section.kind not in (NULL, NOBITS) and section.size > most:
            raise BoundExceeded(f"kmod: {section.size} bytes in section {section.name}, expected at most {most}")
        return self.content(section)


def read_sections(data: Bytes, machine: Architecture) -> Sections:
    """The sections of a kmod for this machine. Malformed tells what every kernel refuses it for."""
    end = _end_of_object(data)
    head = data[:HEADER_BYTES]
    if not head.startswith(b"\x7fELF"):
        raise Malformed(f"data that starts {head[:16]!r}, expected \\x7fELF")
    if end < HEADER_BYTES:
        raise Malformed(f"{end} bytes, expected an ELF header of {HEADER_BYTES}")
    order = machine.order
    kind, number = struct.unpack_from(f"{order}HH", head, 16)
    if number not in machine.numbers or (machine.word == "s390x" and head[4] != 2):
        raise WrongMachine(machine_word(head))
    if kind != _RELOCATABLE:
        raise Malformed(f"an ELF object of type {kind}, expected {_RELOCATABLE} (relocatable)")
    (start,) = struct.unpack_from(f"{order}Q", head, 40)
    (flags,) = struct.unpack_from(f"{order}I", head, 48)
    size, count, names = struct.unpack_from(f"{order}HHH", head, 58)
    if size != _SECTION_BYTES:
        raise Malformed(f"section headers of {size} bytes, expected {_SECTION_BYTES}")
    if start >= end or start + size * count > end:
        raise Malformed(f"section headers up to byte {start + size * count}, expected all within {end} bytes")
    headers = list(struct.iter_unpack(f"{order}IIQQQQIIQQ", data[start : start + size * count]))
    strings = _names(data, headers, names, end)
    flaws = [] if headers[names][1] == STRTAB else [Flaw(SINCE_COUNTED, "section names outside a string table")]
    sections = [
        Section(_name(strings, header[0]), header[1], *header[2:9])
        for header in headers  # name, kind, flags, address, offset, size, link, info, alignment
    ]
    flaws += _checked(sections, [header[0] for header in headers], len(strings), end)
    return Sections(data, machine, flags, tuple(sections), tuple(flaws))


def _end_of_object(data: Bytes) -> int:
    """Where the object ends and a signature that is appended to it begins. Only its extent is read."""
    end = len(data)
    if data[max(0, end - len(_TRAILER)) : end] != _TRAILER:
        return end
    end -= len(_TRAILER)
    if end < _SIGNATURE_HEAD.size:
        return end
    *fields, length = _SIGNATURE_HEAD.unpack(data[end - _SIGNATURE_HEAD.size : end])
    whole = fields[2] == _PKCS7 and length <= end - _SIGNATURE_HEAD.size
    return end - _SIGNATURE_HEAD.size - int(length) if whole else end


def _names(data: Bytes, headers: list[tuple[int, ...]], number: int, end: int) -> bytes:
    """The string table of the section names."""
    if not 0 < number < len(headers):
        raise Malformed(f"section names in section {number}, expected one of the {len(headers)} that there are")
    offset, size = headers[number][4], headers[number][5]
    if offset + size > end:
        raise Malformed(f"section names up to byte {offset + size}, expected all within {end} bytes")
    strings = data[offset : offset + size]
    if not strings.endswith(b"\0"):
        raise Malformed("section names that do not end with a zero byte")
    return strings


def _name(strings: bytes, start: int) -> str:
    if start >= len(strings):
        return ""
    return strings[start : strings.find(b"\0", start, start + _NAME_BYTES)].decode("utf-8", "replace")


def _checked(sections: list[Section], names: list[int], strings: int, end: int) -> Iterator[Flaw]:
    """Flaws that only some kernels mind; Malformed for those of all."""
    first = sections[0]
    if first.kind != NULL or first.size or first.address:
        raise Malformed("a first section that is not empty")
    for number, (one, name) in enumerate(zip(sections, names, strict=True)):
        if name >= strings:
            # Kernels before 6.4 check this only of loaded sections, and read the names of all, the first one's too.
            yield Flaw(ALWAYS, f"no name for section {number}")
        if one.kind in (NULL, NOBITS):
            continue
        if one.offset + one.size > end:
            raise Malformed(f"section {number} up to byte {one.offset + one.size}, expected all within {end} bytes")
        if one.kind == SYMTAB and not 0 < one.link < len(sections):
            raise Malformed(f"symbol names in section {one.link}, expected one of the {len(sections)} that there are")
        if one.alignment & (one.alignment - 1):
            yield Flaw(ALWAYS, f"section {number} aligned to {one.alignment} bytes, expected a power of two")
    yield from _counted(sections)


def _counted(sections: list[Section]) -> Iterator[Flaw]:
    """Sections that since 6.4 must be there just once; how many symbol tables none is, is told elsewhere."""
    for name in (".modinfo", ".gnu.linkonce.this_module"):
        count = sum(one.name == name for one in sections if one.kind != NULL)
        if count > 1:
            yield Flaw(SINCE_COUNTED, f"{count} sections {name}, expected one")
    tables = [one for one in sections if one.kind == SYMTAB]
    if len(tables) > 1:
        yield Flaw(SINCE_COUNTED, f"{len(tables)} symbol tables, expected one")
    if tables and sections[tables[0].link].kind != STRTAB:
        yield Flaw(SINCE_COUNTED, "symbol names outside a string table")
