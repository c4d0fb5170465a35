"""Architectures of target kernels, and the header fields of an ELF object that name them."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """An architecture as its loader recognises it in an object's header."""

    word: str
    """The kernel's word, such as x86_64."""
    numbers: tuple[int, ...]
    """Values of e_machine that the loader accepts."""
    order: str
    """Byte order as the struct module spells it: < or >."""


MACHINES = {
    "amd64": Architecture("x86_64", (62,), "<"),
    "arm64": Architecture("aarch64", (183,), "<"),
    "ppc64le": Architecture("ppc64le", (21,), "<"),
    "s390x": Architecture("s390x", (22, 0xA390), ">"),
}
"""Architectures by Go's spelling."""

_OTHERS = {3: "i386", 8: "mips", 40: "arm", 243: "riscv64", 258: "loongarch64"}


def machine_word(head: bytes) -> str:
    """Return the word for the architecture in an ELF header, read in the byte order that the header claims."""
    order = ">" if head[5:6] == b"\x02" else "<"
    (number,) = struct.unpack_from(f"{order}H", head, 18)
    known = {code: machine for machine in MACHINES.values() for code in machine.numbers}
    machine = known.get(number)
    if machine is None:
        return _OTHERS.get(number, f"machine number {number}")
    return machine.word if machine.order == order else f"{machine.word} of the other byte order"
