"""A kmod as the loader reads it: everything that a kernel decides on, and nothing of its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.exports import Export, read_exports, unversioned_exports
from kmm_preflight.kmod.machine import Architecture
from kmm_preflight.kmod.modinfo import GPL_COMPATIBLE, MODINFO_BYTES, Modinfo
from kmm_preflight.kmod.packed import Bytes
from kmm_preflight.kmod.patch_sites import read_starts
from kmm_preflight.kmod.relocations import relocation_flaws
from kmm_preflight.kmod.sections import (
    ALLOC,
    ALWAYS,
    EXEC,
    NOBITS,
    NULL,
    SINCE_COUNTED,
    WRITE,
    Flaw,
    Section,
    Sections,
    read_sections,
)
from kmm_preflight.kmod.symbols import NeededSymbol, Symbols, symbol_table
from kmm_preflight.kmod.versions import Versions, read_versions

_THIS_MODULE = ".gnu.linkonce.this_module"
# struct module on all 64-bit kernels: state and list, then the name.
_NAME_AT, _NAME_BYTES = 24, 56
_STRUCT_BYTES = 1 << 20
# What the kernel holds for proprietary whatever it says.
_NEVER_FREE = frozenset(("driverloader", "lve"))


class NoModule(Malformed):
    """A relocatable object that is no kernel module."""


class Stripped(Malformed):
    """A kernel module without a symbol table."""


@dataclass(frozen=True)
class KernelObject:
    """What the loader decides on. name is the module's own, not its file's; flags are the ELF header's.

    flaws are what some or all kernels refuse in the object itself, unrelocatable what they find when they link it.
    struct_size is that of struct module where it was built, starts tells where in it init and exit stand. needed is in
    the loader's order. unloaded_modinfo has the tags of a .modinfo that only some kernels find.
    """

    machine: Architecture
    name: str
    struct_size: int
    starts: Mapping[str, int]
    flags: int
    modinfo: Modinfo
    needed: tuple[NeededSymbol, ...]
    exports: Mapping[str, Export]
    unversioned_exports: bool
    versions: Versions
    common: tuple[str, ...]
    sections: frozenset[str]
    writable_code: tuple[str, ...]
    flaws: tuple[Flaw, ...]
    unrelocatable: tuple[Flaw, ...]
    unloaded_modinfo: Modinfo | None = None

    def seen_by(self, version: tuple[int, int]) -> KernelObject:
        """The kmod as a kernel of that version reads it: since 6.4 .modinfo is found though it is not loaded."""
        if self.unloaded_modinfo is None or version < SINCE_COUNTED:
            return self
        return replace(self, modinfo=self.unloaded_modinfo, unloaded_modinfo=None)

    @property
    def proprietary(self) -> bool:
        """Whether GPL-only symbols are hidden from it."""
        return self.modinfo.license not in GPL_COMPATIBLE or self.name in _NEVER_FREE


def read_object(data: Bytes, machine: Architecture) -> KernelObject:
    """The kmod in these bytes, as a kernel of this machine reads them.

    Malformed tells why every kernel refuses it: WrongMachine, NoModule, Stripped, or bytes that are no object.
    BoundExceeded for one that asks for too much memory here.
    """
    sections = read_sections(data, machine)
    this = sections.named(_THIS_MODULE)
    if this is None or this.kind in (NULL, NOBITS):
        raise NoModule(f"no section {_THIS_MODULE}")
    table = symbol_table(sections)
    if table is None:
        raise Stripped("no symbol table")
    symbols = Symbols(sections, table)
    dotted = machine.word == "ppc64le"
    name, unnamed = _name(sections.bounded(this, _STRUCT_BYTES), machine)
    return KernelObject(
        machine=machine,
        name=name,
        struct_size=this.size,
        starts=read_starts(sections, symbols, this),
        flags=sections.flags,
        modinfo=Modinfo(sections.bounded(sections.named(".modinfo"), MODINFO_BYTES)),
        needed=tuple(_needed(symbols, machine)),
        exports=read_exports(sections, symbols),
        unversioned_exports=unversioned_exports(sections),
        versions=read_versions(sections, dotted),
        common=symbols.common(),
        sections=frozenset(one.name for one in sections.all),
        writable_code=_writable_code(sections),
        flaws=(*sections.flaws, *_unwritable(this), *unnamed, *symbols.flaws()),
        unrelocatable=tuple(relocation_flaws(sections, symbols)),
        unloaded_modinfo=_unloaded_modinfo(sections),
    )


def _unloaded_modinfo(sections: Sections) -> Modinfo | None:
    found = sections.anywhere(".modinfo")
    if found is None or found.loaded:
        return None
    return Modinfo(sections.bounded(found, MODINFO_BYTES))


def _unwritable(this: Section) -> tuple[Flaw, ...]:
    """What lies between code and what can be written is protected before the kernel writes how far it has come."""
    return () if this.flags & WRITE else (Flaw(ALWAYS, "a struct module that cannot be written"),)


def _name(this: bytes, machine: Architecture) -> tuple[str, tuple[Flaw, ...]]:
    name, end, _ = this[_NAME_AT : _NAME_AT + _NAME_BYTES].partition(b"\0")
    words = "" if name and end else "a struct module without a name"
    # Elsewhere relocations write over what stands there; x86_64 refuses to.
    if machine.word == "x86_64" and (any(this[:_NAME_AT]) or any(this[_NAME_AT + _NAME_BYTES :])):
        words = "a struct module that holds more than its name"
    return name.decode("utf-8", "replace"), (Flaw(ALWAYS, words),) if words else ()


def _needed(symbols: Symbols, machine: Architecture) -> list[NeededSymbol]:
    """Without those that the loader has itself: the table of contents of ppc64, the offset table of x86."""
    needed = list(symbols.needed())
    if machine.word == "ppc64le":
        needed = [NeededSymbol(one.name.removeprefix("."), one.weak) for one in needed if one.name != ".TOC."]
    if machine.word == "x86_64":
        needed = [one for one in needed if one.name != "_GLOBAL_OFFSET_TABLE_"]
    return needed


def _writable_code(sections: Sections) -> tuple[str, ...]:
    both = WRITE | EXEC
    return tuple(one.name for one in sections.all if one.flags & both == both and one.flags & ALLOC)
