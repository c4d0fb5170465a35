"""Header and sections of an ELF object, and the loader's checks of both (docs/reference/loader.md 1.1).

The object is parsed with struct, not with an ELF library, for these reasons:
- A kernel reads an object with its own class and byte order. x86_64 ignores the EI_CLASS and EI_DATA bytes and loads
  an object that says ELF32. A library that believes these bytes misreads that object.
- The loader's checks depend on exact offsets: each section must end before the appended signature begins, and the
  string tables must end with a zero byte. A verdict must refuse the same damage as the kernel, and no other damage.
- The object is mapped from its file, not copied. Each table has a limit on its size, so a damaged size ends the check
  with BoundExceeded instead of using all memory.
- A driver of some megabytes must be judged in milliseconds, so the entries of a table are unpacked in one call.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.machine import Architecture, machine_word
from kmm_preflight.kmod.packed import ObjectBytes

HEADER_BYTES = 64
_SECTION_BYTES = 64
_RELOCATABLE = 1
_NAME_BYTES = 256

NULL, SYMTAB, STRTAB, RELA, NOBITS, REL = 0, 2, 3, 4, 8, 9
WRITE, ALLOC, EXEC = 1, 2, 4

# Mainline releases in which the loader learned a check. A RHEL release counts as the mainline release in its name.
ALWAYS, SINCE_COUNTED, SINCE_STRINGS, SINCE_FLAGS = (0, 0), (6, 4), (6, 14), (7, 1)

_TRAILER = b"~Module signature appended~\n"
_SIGNATURE_HEAD = struct.Struct(">8BI")
_PKCS7 = 2


class WrongArchitecture(Malformed):
    """An object of another architecture. The message is the word for that architecture."""


@dataclass(frozen=True)
class Flaw:
    """Damage in an object that kernels refuse."""

    since: tuple[int, int]
    """The first mainline release that refuses it, as major and minor version."""
    words: str
    """The damage as a noun phrase."""


@dataclass(frozen=True)
class Section:
    """A section header."""

    name: str
    """The name; empty if the section has none, or if it lies outside the string table."""
    kind: int
    """The type: sh_type in the ELF specification."""
    flags: int
    """Flags such as ALLOC."""
    address: int
    """Address of the section in memory, 0 in a kmod."""
    offset: int
    """First byte in the file."""
    size: int
    """Size in bytes."""
    link: int
    """Number of a related section, such as the string table of a symbol table."""
    info: int
    """Number of the section to which relocations apply."""
    alignment: int
    """Alignment in bytes."""

    @property
    def loaded(self) -> bool:
        """True if the loader finds the section by name."""
        return bool(self.flags & ALLOC)


@dataclass(frozen=True)
class Sections:
    """The sections of an object."""

    data: ObjectBytes
    """The whole object, with its appended signature."""
    machine: Architecture
    """The architecture of the kernel that reads the object."""
    flags: int
    """e_flags of the ELF header."""
    all: tuple[Section, ...]
    """The sections by number."""
    flaws: tuple[Flaw, ...] = field(default=())
    """Damage in the section headers that some or all kernels refuse."""

    def named(self, name: str) -> Section | None:
        """Return the first loaded section of the name, as the loader finds it."""
        return next((section for section in self.all if section.loaded and section.name == name), None)

    def anywhere(self, name: str) -> Section | None:
        """Return the first section of the name, loaded or not."""
        return next((section for section in self.all if section.name == name), None)

    def number(self, section: Section) -> int:
        """Return the number of a section of this object."""
        return next(number for number, other in enumerate(self.all) if other is section)

    def content(self, section: Section | None) -> bytes:
        """Return the section's bytes. They are empty if the section is absent or has no bytes in the file."""
        if section is None or section.kind in (NULL, NOBITS):
            return b""
        return self.data[section.offset : section.offset + section.size]

    def part(self, section: Section, at: int, size: int) -> bytes:
        """Return up to size bytes of the section from the offset at, fewer at the section's end."""
        if section.kind in (NULL, NOBITS) or at >= section.size:
            return b""
        return self.data[section.offset + at : section.offset + min(at + size, section.size)]

    def bounded(self, section: Section | None, most: int) -> bytes:
        """Return the section's bytes. Raise BoundExceeded if there are more than most."""
        if section is not None and section.kind not in (NULL, NOBITS) and section.size > most:
            raise BoundExceeded(f"kmod: {section.size} bytes in section {section.name}, expected at most {most}")
        return self.content(section)


def read_sections(data: ObjectBytes, machine: Architecture) -> Sections:
    """Return the sections of a kmod for the architecture.

    Raise WrongArchitecture if the object is for another one, and Malformed if all kernels refuse the header.
    """
    end = _end_of_object(data)
    head = _checked_header(data, end, machine)
    order = machine.order
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
    flaws += _section_flaws(sections, [header[0] for header in headers], len(strings), end)
    return Sections(data, machine, flags, tuple(sections), tuple(flaws))


def _checked_header(data: ObjectBytes, end: int, machine: Architecture) -> bytes:
    """Return the ELF header."""
    head = data[:HEADER_BYTES]
    if not head.startswith(b"\x7fELF"):
        raise Malformed(f"data that starts {head[:16]!r}, expected \\x7fELF")
    if end < HEADER_BYTES:
        raise Malformed(f"{end} bytes, expected an ELF header of {HEADER_BYTES}")
    kind, number = struct.unpack_from(f"{machine.order}HH", head, 16)
    if number not in machine.numbers or (machine.word == "s390x" and head[4] != 2):
        raise WrongArchitecture(machine_word(head))
    if kind != _RELOCATABLE:
        raise Malformed(f"an ELF object of type {kind}, expected {_RELOCATABLE} (relocatable)")
    return head


def _end_of_object(data: ObjectBytes) -> int:
    """Return the end of the object, where an appended signature begins. The signature itself is not read."""
    end = len(data)
    if data[max(0, end - len(_TRAILER)) : end] != _TRAILER:
        return end
    end -= len(_TRAILER)
    if end < _SIGNATURE_HEAD.size:
        return end
    *fields, length = _SIGNATURE_HEAD.unpack(data[end - _SIGNATURE_HEAD.size : end])
    whole = fields[2] == _PKCS7 and length <= end - _SIGNATURE_HEAD.size
    return end - _SIGNATURE_HEAD.size - int(length) if whole else end


def _names(data: ObjectBytes, headers: list[tuple[int, ...]], number: int, end: int) -> bytes:
    """Return the string table of the section names."""
    if not 0 < number < len(headers):
        raise Malformed(f"section names in section {number}, but the object has {len(headers)} sections")
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


def _section_flaws(sections: list[Section], names: list[int], strings: int, end: int) -> Iterator[Flaw]:
    """Yield the flaws of the section headers. Raise Malformed for damage that ends the loader's work at once.

    names: the offset of each section's name in the string table, which has strings bytes.
    """
    first = sections[0]
    if first.kind != NULL or first.size or first.address:
        raise Malformed("a first section that is not empty")
    for number, (section, name) in enumerate(zip(sections, names, strict=True)):
        if name >= strings:
            # Kernels before 6.4 check the names of loaded sections only, but they read all names, the first included.
            yield Flaw(ALWAYS, f"no name for section {number}")
        if section.kind in (NULL, NOBITS):
            continue
        section_end = section.offset + section.size
        if section_end > end:
            raise Malformed(f"section {number} up to byte {section_end}, expected all within {end} bytes")
        if section.kind == SYMTAB and not 0 < section.link < len(sections):
            raise Malformed(f"symbol names in section {section.link}, but the object has {len(sections)} sections")
        if section.alignment & (section.alignment - 1):
            yield Flaw(ALWAYS, f"section {number} aligned to {section.alignment} bytes, expected a power of two")
    yield from _count_flaws(sections)


def _count_flaws(sections: list[Section]) -> Iterator[Flaw]:
    """Yield sections that appear more than once, which kernels since 6.4 refuse.

    An object without a symbol table is refused elsewhere.
    """
    for name in (".modinfo", ".gnu.linkonce.this_module"):
        count = sum(section.name == name for section in sections if section.kind != NULL)
        if count > 1:
            yield Flaw(SINCE_COUNTED, f"{count} sections {name}, expected one")
    tables = [section for section in sections if section.kind == SYMTAB]
    if len(tables) > 1:
        yield Flaw(SINCE_COUNTED, f"{len(tables)} symbol tables, expected one")
    if tables and sections[tables[0].link].kind != STRTAB:
        yield Flaw(SINCE_COUNTED, "symbol names outside a string table")
