"""Kmods made byte by byte, for any architecture: the minimum that a loader accepts, and the parts that a test adds."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kmm_preflight.kmod.machine import MACHINES, Architecture

WRITE, ALLOC = 1, 2
THIS_MODULE = ".gnu.linkonce.this_module"
UNDEFINED, ABSOLUTE, COMMON = 0, 0xFFF1, 0xFFF2


@dataclass(frozen=True)
class Symbol:
    """A symbol of a kmod."""

    name: str
    """Name of the symbol."""
    section: str | int = UNDEFINED
    """Name of its section, or one of the special numbers above."""
    value: int = 0
    """Offset in the section, or the number of an absolute symbol."""
    weak: bool = False
    """True if the kmod loads without the symbol."""


@dataclass(frozen=True)
class Object:
    """The parts of a kmod."""

    arch: str = "amd64"
    """Architecture in Go's spelling."""
    name: str = "made"
    """Name in struct module."""
    modinfo: Sequence[str] = ("license=GPL", "vermagic=5.14.0-1.el9.x86_64 SMP preempt mod_unload modversions ")
    """Tags of .modinfo, each as tag=value."""
    versions: Sequence[tuple[str, int]] | None = (("module_layout", 0x1111),)
    """Names and CRCs of __versions, or None for no such section."""
    symbols: Sequence[Symbol] = ()
    """Symbols in the order of the table."""
    sections: Mapping[str, bytes] = field(default_factory=dict)
    """More sections by name."""
    struct_size: int = 896
    """Size of struct module in bytes."""
    flags: int = 0
    """e_flags of the ELF header."""

    def packed(self) -> bytes:
        """Return the bytes of the .ko."""
        machine = MACHINES[self.arch]
        named = {
            THIS_MODULE: (bytes(24) + self.name.encode()).ljust(self.struct_size, b"\0"),
            ".modinfo": b"".join(tag.encode() + b"\0" for tag in self.modinfo),
            **({} if self.versions is None else {"__versions": _versions(self.versions, machine.order)}),
            **self.sections,
        }
        strings, table = _symbols(self.symbols, list(named), machine.order)
        return _linked(machine, named, strings, table, self.flags)


def _versions(versions: Sequence[tuple[str, int]], order: str) -> bytes:
    return b"".join(struct.pack(f"{order}Q56s", crc, name.encode()) for name, crc in versions)


def _symbols(symbols: Sequence[Symbol], sections: list[str], order: str) -> tuple[bytes, bytes]:
    strings, table, numbers = bytearray(1), bytearray(24), {name: at + 1 for at, name in enumerate(sections)}
    for symbol in symbols:
        number = symbol.section if isinstance(symbol.section, int) else numbers[symbol.section]
        table += struct.pack(f"{order}IBBHQQ", len(strings), 0x20 if symbol.weak else 0x10, 0, number, symbol.value, 0)
        strings += symbol.name.encode() + b"\0"
    return bytes(strings), bytes(table)


def _linked(machine: Architecture, named: Mapping[str, bytes], strings: bytes, table: bytes, flags: int) -> bytes:
    order, body, names = machine.order, bytearray(64), b"\0"
    headers = [struct.pack(f"{order}IIQQQQIIQQ", *[0] * 10)]
    count = len(named)
    parts = [(name, 1, ALLOC | (WRITE if name == THIS_MODULE else 0), content, 0) for name, content in named.items()]
    parts += [(".symtab", 2, 0, table, count + 2), (".strtab", 3, 0, strings, 0), (".shstrtab", 3, 0, b"", 0)]
    for name, kind, bits, content, link in parts:
        start = len(names)
        names += name.encode() + b"\0"
        content = names if name == ".shstrtab" else content
        headers.append(struct.pack(f"{order}IIQQQQIIQQ", start, kind, bits, 0, len(body), len(content), link, 0, 1, 0))
        body += content
    body += bytes(-len(body) % 8)
    head = b"\x7fELF" + bytes([2, 1 if order == "<" else 2, 1]) + bytes(9)
    fields = (1, machine.numbers[0], 1, 0, 0, len(body), flags, 64, 0, 0, 64, len(headers), len(headers) - 1)
    body[:64] = head + struct.pack(f"{order}HHIQQQIHHHHHH", *fields)
    return bytes(body) + b"".join(headers)
