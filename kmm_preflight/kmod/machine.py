"""The architectures that kernels are judged for, as their loaders tell them from an object's header."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """One architecture: the kernel's word for it, its numbers in e_machine, and its byte order for struct."""

    word: str
    numbers: tuple[int, ...]
    order: str


MACHINES = {
    "amd64": Architecture("x86_64", (62,), "<"),
    "arm64": Architecture("aarch64", (183,), "<"),
    "ppc64le": Architecture("ppc64le", (21,), "<"),
    "s390x": Architecture("s390x", (22, 0xA390), ">"),
}
"""By Go's spelling."""

_OTHERS = {3: "i386", 8: "mips", 40: "arm", 243: "riscv64", 258: "loongarch64"}


def machine_word(head: bytes) -> str:
    """What an object's header says that it was built for, in the byte order that it claims itself."""
    order = ">" if head[5:6] == b"\x02" else "<"
    (number,) = struct.unpack_from(f"{order}H", head, 18)
    known = {one: machine for machine in MACHINES.values() for one in machine.numbers}
    machine = known.get(number)
    if machine is None:
        return _OTHERS.get(number, f"machine number {number}")
    return machine.word if machine.order == order else f"{machine.word} of the other byte order"
