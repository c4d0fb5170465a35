"""Kmods made for tests of the loader's checks, and kernels that judge them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kmm_preflight.kmod.configuration import KernelConfiguration
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import judge_kmod
from kmm_preflight.kmod.object import KernelObject, read_object
from kmm_preflight.kmod.resolution import NO_OTHERS, OtherKmods
from kmm_preflight.kmod.symvers import Symvers, SymversStore

from .objects import ABSOLUTE, Object, Symbol

SYMVERS = """\
0x00001111\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t
0x00002222\tprintk\tvmlinux\tEXPORT_SYMBOL\t
0x80003333\tdevice_add\tvmlinux\tEXPORT_SYMBOL_GPL\t
0x00004444\tspaced\tvmlinux\tEXPORT_SYMBOL\tSPACE
0x00000000\tuncounted\tvmlinux\tEXPORT_SYMBOL\t
0x00005555\tib_open\tdrivers/infiniband/core/ib_core\tEXPORT_SYMBOL_GPL\t
0x00006666\tib-plain\tdrivers/infiniband/core/ib_core\tEXPORT_SYMBOL\t
"""
RHEL9, RHEL8 = "5.14.0-570.el9.x86_64", "4.18.0-553.el8.x86_64"
ON = {"MODULES", "MODVERSIONS", "MODULE_UNLOAD", "SMP", "PREEMPT_BUILD", "MODULE_FORCE_LOAD", "STRICT_MODULE_RWX"}
LAYOUT = ("module_layout", 0x1111)
PRINTK, DEVICE_ADD, SPACED = ("printk", 0x2222), ("device_add", 0x80003333), ("spaced", 0x4444)
PROPRIETARY = ("license=Proprietary", Object().modinfo[1])


def make_symvers(folder: Path) -> Symvers:
    """Return the symbols that the kernels of these tests export, as a table in the folder."""
    return SymversStore(folder).keep(f"sha256:{0:064}", [SYMVERS.encode()])


def configuration(*more: str, without: Sequence[str] = ()) -> KernelConfiguration:
    """Return the options of a RHEL 9 kernel, with more options and without others."""
    return KernelConfiguration(dict.fromkeys((ON | {*more}) - {*without}, "y"))


def rhel9(symvers: Symvers) -> KernelFiles:
    """Return a kernel of RHEL 9."""
    return KernelFiles(RHEL9, "amd64", symvers, configuration())


def configured(kernel: KernelFiles, *more: str, without: Sequence[str] = ()) -> KernelFiles:
    """Return the kernel with more options and without others."""
    return replace(kernel, configuration=configuration(*more, without=without))


def read(kmod: Object) -> KernelObject:
    """Return the kmod as a kernel of its architecture reads it."""
    kernel = KernelFiles(RHEL9, kmod.arch, None, None)
    return read_object(kmod.packed(), kernel.machine)


def ids(kernel: KernelFiles, kmod: Object, others: OtherKmods = NO_OTHERS) -> list[str]:
    """Return the ids of the findings about the kmod on the kernel."""
    return [finding.id for finding in judge_kmod("made.ko", read(kmod), kernel, others)]


def using(*names: str, versions: Sequence[tuple[str, int]] = (), **more: Any) -> Object:
    """Return a kmod that needs symbols.

    versions: CRCs of its __versions besides that of module_layout. more: other fields of the object.
    """
    kmod = Object(symbols=[Symbol(name) for name in names], versions=(LAYOUT, *versions))
    return replace(kmod, **more)


def exporting(*names: str, table: str = "__ksymtab", **more: Any) -> Object:
    """Return a kmod that exports symbols with the CRC 0x7777, as absolute symbols like kmods of RHEL 8."""
    symbols = [
        symbol
        for number, name in enumerate(names)
        for symbol in (Symbol(f"__ksymtab_{name}", table, 12 * number), Symbol(f"__crc_{name}", ABSOLUTE, 0x7777))
    ]
    count = len(names)
    crcs = table.replace("ksymtab", "kcrctab")
    return replace(Object(symbols=symbols, sections={table: bytes(12 * count), crcs: bytes(4 * count)}), **more)
