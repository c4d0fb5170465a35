"""What a program says that it runs with: its interpreter and its shared libraries, read from the file alone."""

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
    """machine: e_machine; order: the byte order for struct; interpreter "" for a static one; search: folders first."""

    machine: int
    order: str
    interpreter: str
    libraries: tuple[str, ...]
    search: tuple[str, ...]


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def read_linked(data: bytes) -> LinkedProgram:
    """What the program in these bytes needs. Malformed when it is no ELF object of 64 bits, or is damaged."""
    if data[:4] != b"\x7fELF" or len(data) < 64 or data[4] != _64_BITS:
        raise Malformed("no ELF program of 64 bits")
    order = ">" if data[5] == _BIG_ENDIAN else "<"
    try:
        (machine,) = struct.unpack_from(f"{order}H", data, 18)
        segments = list(_segments(data, order))
        interpreter = next((_string(data, one.offset) for one in segments if one.kind == _INTERPRETER), "")
        dynamic = list(_dynamic(data, order, segments))
    except struct.error as exc:
        raise Malformed("an ELF program that is cut short") from exc
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
    for one in segments:
        if one.kind == _DYNAMIC:
            for at in range(one.offset, one.offset + one.size, 16):
                tag, value = struct.unpack_from(f"{order}QQ", data, at)
                if not tag:
                    break
                yield tag, value


def _offset(segments: list[_Segment], address: int) -> int:
    for one in segments:
        if one.kind == _LOAD and one.address <= address < one.address + one.size:
            return address - one.address + one.offset
    raise Malformed("an ELF program whose strings are not loaded")


def _string(data: bytes, at: int) -> str:
    end = data.find(b"\0", at, at + _STRING_BYTES)
    if end < 0:
        raise Malformed("an ELF program with a name that does not end")
    return data[at:end].decode("utf-8", "surrogateescape")
