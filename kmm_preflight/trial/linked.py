"""Dependencies of a program, read from its file: the interpreter and the shared libraries."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kmm_preflight.errors import Malformed

_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRINGS, _RPATH, _RUNPATH = 1, 5, 15, 29
_64_BITS, _BIG_ENDIAN = 2, 2
_STRING_BYTES = 4096


@dataclass(frozen=True)
class LinkedProgram:
    """Dependencies of an ELF program."""

    machine: int
    """Number of the architecture (e_machine)."""
    order: str
    """Byte order, as the module struct writes it."""
    interpreter: str | None
    """Path of the dynamic linker; None for a static program."""
    libraries: tuple[str, ...]
    """Names of the shared libraries."""
    search: tuple[str, ...]
    """Folders to search first for libraries (RPATH and RUNPATH)."""


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def read_linked(data: bytes) -> LinkedProgram:
    """Return the dependencies of a program. Raise Malformed if it is damaged or not a 64-bit ELF program."""
    if data[:4] != b"\x7fELF" or len(data) < 64 or data[4] != _64_BITS:
        raise Malformed("not a 64-bit ELF program")
    order = ">" if data[5] == _BIG_ENDIAN else "<"
    try:
        (machine,) = struct.unpack_from(f"{order}H", data, 18)
        segments = list(_segments(data, order))
        interpreter = next(
            (_string(data, segment.offset) for segment in segments if segment.kind == _INTERPRETER), None
        )
        dynamic = list(_dynamic(data, order, segments))
    except struct.error as exc:
        raise Malformed("an ELF program that is cut off") from exc
    strings = next((_offset(segments, value) for tag, value in dynamic if tag == _STRINGS), 0)
    named = [(tag, _string(data, strings + value)) for tag, value in dynamic if tag in (_NEEDED, _RPATH, _RUNPATH)]
    libraries = tuple(text for tag, text in named if tag == _NEEDED)
    search = tuple(folder for tag, text in named if tag != _NEEDED for folder in text.split(":") if folder)
    return LinkedProgram(machine, order, interpreter, libraries, search)


def _segments(data: bytes, order: str) -> Iterator[_Segment]:
    (start,) = struct.unpack_from(f"{order}Q", data, 32)
    size, count = struct.unpack_from(f"{order}HH", data, 54)
    for number in range(count):
        kind, _, offset, address, _, length = struct.unpack_from(f"{order}IIQQQQ", data, start + number * size)
        yield _Segment(kind, offset, address, length)


def _dynamic(data: bytes, order: str, segments: list[_Segment]) -> Iterator[tuple[int, int]]:
    for segment in segments:
        if segment.kind == _DYNAMIC:
            for at in range(segment.offset, segment.offset + segment.size, 16):
                tag, value = struct.unpack_from(f"{order}QQ", data, at)
                if not tag:
                    break
                yield tag, value


def _offset(segments: list[_Segment], address: int) -> int:
    for segment in segments:
        if segment.kind == _LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    raise Malformed("an ELF program whose strings are not loaded")


def _string(data: bytes, at: int) -> str:
    end = data.find(b"\0", at, at + _STRING_BYTES)
    if end < 0:
        raise Malformed("an ELF program with a name that does not end")
    return data[at:end].decode("utf-8", "surrogateescape")
