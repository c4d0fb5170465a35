"""Type data (BTF) of a kernel or a kmod, and the kernel's checks of a kmod's (docs/reference/loader.md 1.6).

A kmod's type data continues the kernel's: numbers of types and offsets of names below a limit are the kernel's.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from kmm_preflight.errors import Malformed

_MAGIC, _VERSION = 0xEB9F, 1
_HEAD = "HBBIIIII"
_HEAD_BYTES, _TYPE_BYTES, _SECTION_BYTES = 24, 12, 64
_TYPES = 1 << 20
_INT_BITS, _ENCODINGS = 128, (0, 1, 2, 4)
_UNUSED_INFO = 0x60FF0000
# The kernel counts letters of Latin-1 as letters.
_LETTERS = rb"A-Za-z_.\xc0-\xd6\xd8-\xf6\xf8-\xff"
_IDENTIFIER = re.compile(rb"[%s][%s0-9]*" % (_LETTERS, _LETTERS))
_INT, _POINTER, _ARRAY, _STRUCT, _UNION, _ENUM, _FORWARD, _TYPEDEF = 1, 2, 3, 4, 5, 6, 7, 8
_FUNCTION, _PROTOTYPE, _VARIABLE, _SECTION, _FLOAT, _DECLARATION_TAG, _TYPE_TAG, _ENUM64 = (
    12,
    13,
    14,
    15,
    16,
    17,
    18,
    19,
)
_MODIFIERS = (9, 10, 11)
_REFERENCES = (_POINTER, _TYPEDEF, *_MODIFIERS, _FUNCTION, _VARIABLE, _DECLARATION_TAG, _TYPE_TAG, _PROTOTYPE)
# Bytes behind a type: once, and for each of its parts.
_EXTRA = {_INT: (4, 0), _ARRAY: (12, 0), _STRUCT: (0, 12), _UNION: (0, 12), _ENUM: (0, 8), _PROTOTYPE: (0, 8),
          _VARIABLE: (4, 0), _SECTION: (0, 12), _DECLARATION_TAG: (4, 0), _ENUM64: (0, 12)}  # fmt: skip
_WITHOUT_PARTS = frozenset((_INT, _POINTER, _ARRAY, _FORWARD, _TYPEDEF, *_MODIFIERS, _VARIABLE, _FLOAT,
                            _DECLARATION_TAG, _TYPE_TAG))  # fmt: skip
_NAMED = frozenset((_TYPEDEF, _FORWARD, _FUNCTION, _VARIABLE, _SECTION, _TYPE_TAG, _DECLARATION_TAG))
_NAMELESS = frozenset((_POINTER, _ARRAY, *_MODIFIERS, _PROTOTYPE))
_IDENTIFIERS = frozenset((_STRUCT, _UNION, _ENUM, _ENUM64, _FORWARD, _TYPEDEF, _FUNCTION))
_SIZED = frozenset((_INT, _FLOAT, _STRUCT, _UNION, _ENUM, _ENUM64))


class Doubtful(Malformed):
    """A part that some kernels accept."""


@dataclass(frozen=True)
class _Type:
    """A type in the order of the data."""

    name: int
    """Offset of the name."""
    kind: int
    """Kind, such as a structure."""
    flagged: bool
    """True if offsets of members have a size of their own in the upper byte."""
    parts: int
    """Number of parts, such as members."""
    value: int
    """Size, or the number of another type."""
    extra: bytes
    """Bytes behind the head of the type."""


class TypeData:
    """Type data. Reading it raises Malformed for damage that the kernel refuses."""

    def __init__(self, data: bytes, order: str, base: TypeData | None = None) -> None:
        """Check the header. order: byte order as struct spells it. base: the data that this data continues."""
        self._order, self._base = order, base
        self._first_name = base.end_of_names if base else 0
        self._first_number = base.end_of_numbers if base else 1
        if len(data) < _HEAD_BYTES:
            raise Malformed(f"{len(data)} bytes")
        magic, version, flags, head, types, types_size, names, names_size = struct.unpack_from(order + _HEAD, data)
        if (magic, version, flags) != (_MAGIC, _VERSION, 0) or not _HEAD_BYTES <= head <= len(data):
            raise Malformed("an invalid header")
        if any(data[_HEAD_BYTES:head]):
            raise Doubtful("a header with more fields")
        rest = data[head:]
        if types or names != types_size or names + names_size != len(rest):
            raise Malformed("sections that do not follow each other")
        self._text, self._types = rest[names:], rest[:names]
        if (self._text and self._text[-1]) or (base is None and (not self._text or self._text[0])):
            raise Malformed("names that do not end")

    @property
    def end_of_names(self) -> int:
        """The offset behind the last name."""
        return self._first_name + len(self._text)

    @cached_property
    def end_of_numbers(self) -> int:
        """The number behind that of the last type."""
        return self._first_number + sum(1 for _ in self.types())

    def types(self) -> Iterator[_Type]:
        """Yield the types of this data, without those of its base."""
        at, count, unpack = 0, 0, struct.Struct(f"{self._order}III").unpack_from
        while at < len(self._types):
            if len(self._types) - at < _TYPE_BYTES:
                raise Malformed("a type that is cut short")
            name, info, value = unpack(self._types, at)
            kind, parts = info >> 24 & 0x1F, info & 0xFFFF
            once, each = _EXTRA.get(kind, (0, 0))
            end = at + _TYPE_BYTES + once + each * parts
            if not 0 < kind <= _ENUM64 or info & _UNUSED_INFO:
                raise Malformed(f"a type of kind {kind}")
            if end > len(self._types):
                raise Malformed("a type that is cut short")
            if (count := count + 1) > _TYPES:
                raise Malformed("too many types")
            yield _Type(name, kind, info >> 31 == 1, parts, value, self._types[at + _TYPE_BYTES : end])
            at = end

    def name(self, offset: int) -> bytes:
        """Return the name at an offset, of this data or of its base."""
        if offset < self._first_name and self._base:
            return self._base.name(offset)
        start = offset - self._first_name
        if start >= len(self._text):
            raise Malformed(f"a name at {offset}, behind the last name")
        return self._text[start : self._text.index(b"\0", start)]

    @cached_property
    def sizes(self) -> frozenset[tuple[int, bytes, int]]:
        """Kind, name and size of all named types. The size of a type that is only declared is 0."""
        named = (item for item in self.types() if item.name)
        return frozenset((item.kind, self.name(item.name), item.value if item.kind in _SIZED else 0) for item in named)

    @cached_property
    def names(self) -> frozenset[tuple[int, bytes]]:
        """Kind and name of all named types."""
        return frozenset((kind, name) for kind, name, _ in self.sizes)

    def check(self) -> None:
        """Check names and numbers of all types. Raise Malformed as the kernel refuses them (btf_check_meta)."""
        limit = self.end_of_numbers
        for item in self.types():
            self._check_name(item)
            if item.parts and item.kind in _WITHOUT_PARTS:
                raise Malformed(f"a type of kind {item.kind} with parts")
            self._check_layout(item)
            for number in self._numbers(item):
                if number >= limit:
                    # The kernel does not look up all numbers when it loads a kmod, but later.
                    raise Doubtful(f"a type with the number {number}, behind the last type")

    def _check_name(self, item: _Type) -> None:
        name = self.name(item.name)
        named = bool(item.name)
        if (item.kind in _NAMED and not name) or (item.kind in _NAMELESS and named):
            raise Malformed(f"a type of kind {item.kind} with an invalid name")
        names = [name] if named and item.kind in _IDENTIFIERS else []
        if item.kind in (_STRUCT, _UNION, _ENUM, _ENUM64):
            size = _EXTRA[item.kind][1]
            offsets = [offset for (offset,) in struct.iter_unpack(f"{self._order}I{size - 4}x", item.extra)]
            parts = [self.name(offset) for offset in offsets]
            required = item.kind in (_ENUM, _ENUM64)
            names += [part for part, offset in zip(parts, offsets, strict=True) if offset or required]
        for text in names:
            if not _IDENTIFIER.fullmatch(text):
                raise Malformed(f"a type with the name {text[:40].decode('latin-1')!r}")

    def _check_layout(self, item: _Type) -> None:
        """Check the bits of a number, and the places of members (btf_int_check_meta, btf_struct_check_meta)."""
        if item.kind == _INT:
            (bits,) = struct.unpack(f"{self._order}I", item.extra)
            used = (bits & 0xFF) + (bits >> 16 & 0xFF)
            if bits >> 28 or used > _INT_BITS or -(-used // 8) > item.value or bits >> 24 & 0xF not in _ENCODINGS:
                raise Malformed("a number with invalid bits")
        if item.kind in (_STRUCT, _UNION):
            last = 0
            for (place,) in struct.iter_unpack(f"{self._order}8xI", item.extra):
                offset = place & 0xFFFFFF if item.flagged else place
                if offset < last or -(-offset // 8) > item.value or (item.kind == _UNION and offset):
                    raise Malformed("a member beyond its structure")
                last = offset

    def _numbers(self, item: _Type) -> list[int]:
        """Return the numbers of other types that the type refers to."""
        order = self._order
        if item.kind == _ARRAY:
            return list(struct.unpack_from(f"{order}II", item.extra))
        if item.kind in (_STRUCT, _UNION):
            return [number for (number,) in struct.iter_unpack(f"{order}4xI4x", item.extra)]
        if item.kind == _PROTOTYPE:
            return [item.value, *(number for (number,) in struct.iter_unpack(f"{order}4xI", item.extra))]
        if item.kind == _SECTION:
            return [number for (number,) in struct.iter_unpack(f"{order}I8x", item.extra)]
        return [item.value] if item.kind in _REFERENCES else []

    def _used_names(self) -> set[int]:
        """Return the offsets of all names that the types use."""
        used = {item.name for item in self.types()}
        for item in self.types():
            if item.kind in (_STRUCT, _UNION, _ENUM, _ENUM64, _PROTOTYPE):
                size = _EXTRA[item.kind][1]
                used |= {offset for (offset,) in struct.iter_unpack(f"{self._order}I{size - 4}x", item.extra)}
        return used

    def uses_names_of(self, base: TypeData) -> bool:
        """True if each name from the base is one of its types, as the kernel needs it (btf_relocate_rewrite_strs)."""
        return {offset for offset in self._used_names() if offset < self._first_name} <= {
            0,
            *(item.name for item in base.types()),
        }

    def fits_exactly(self) -> bool:
        """True if each use of an own name leads to the begin of a name: so it was built against this base."""
        used = self._used_names()
        begins = {self._first_name + found.end() for found in re.finditer(rb"\0", self._text[:-1])}
        begins |= {self._first_name} if self._text else set()
        return {offset for offset in used if offset >= self._first_name} <= begins


def kernel_type_data(vmlinux: bytes, order: str) -> TypeData | None:
    """Return the type data of a kernel, from its vmlinux or the part of it that its headers have. None without any."""
    with suppress(Malformed, struct.error, IndexError):
        (start,) = struct.unpack_from(f"{order}Q", vmlinux, 40)
        count, names = struct.unpack_from(f"{order}HH", vmlinux, 60)
        headers = [
            struct.unpack_from(f"{order}IIQQQQIIQQ", vmlinux, start + _SECTION_BYTES * number)
            for number in range(count)
        ]
        text = vmlinux[headers[names][4] : headers[names][4] + headers[names][5]]
        for name, _, _, _, offset, size, *_ in headers:
            if text[name : name + 5] == b".BTF\0":
                return TypeData(vmlinux[offset : offset + size], order)
    return None


def missing_types(distilled: TypeData, kernel: TypeData) -> list[str]:
    """Return names of types of a .BTF.base that the kernel does not have, or has with another size.

    The kernel looks up each of them by its name (btf_relocate).
    """
    kinds = {_FORWARD: (_STRUCT, _UNION, _FORWARD), _ENUM: (_ENUM, _ENUM64), _ENUM64: (_ENUM, _ENUM64)}
    missing = []
    for kind, name, size in sorted(distilled.sizes):
        candidates = kinds.get(kind, (kind,))
        any_size = kind == _FORWARD or (kind in (_STRUCT, _UNION) and size == 0)
        known = any(
            (other, name) in kernel.names if any_size else (other, name, size) in kernel.sizes for other in candidates
        )
        missing += [] if known else [name[:60].decode("latin-1")]
    return missing
