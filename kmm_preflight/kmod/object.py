"""A kmod as the loader reads it: all that a kernel decides on, without the code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.exports import KmodExport, by_flags, has_unversioned_exports, lacks_flags, read_exports
from kmm_preflight.kmod.machine import Architecture
from kmm_preflight.kmod.modinfo import GPL_COMPATIBLE, MODINFO_BYTES, Modinfo
from kmm_preflight.kmod.packed import ObjectBytes
from kmm_preflight.kmod.patch_sites import read_entry_offsets
from kmm_preflight.kmod.relocations import relocation_flaws
from kmm_preflight.kmod.sections import (
    ALLOC,
    ALWAYS,
    EXEC,
    NOBITS,
    NULL,
    SINCE_COUNTED,
    SINCE_FLAGS,
    WRITE,
    Flaw,
    Section,
    Sections,
    read_sections,
)
from kmm_preflight.kmod.symbols import NeededSymbol, SymbolTable, find_symbol_table
from kmm_preflight.kmod.versions import SymbolVersions, read_versions

_THIS_MODULE = ".gnu.linkonce.this_module"
# struct module on all 64-bit kernels begins with a state and a list; the name follows.
_NAME_AT, _NAME_BYTES = 24, 56
_STRUCT_BYTES = 1 << 20
# The largest of Debian's kmods have 300 KiB.
_TYPE_DATA_BYTES = 32 << 20
# Modules that the kernel takes for proprietary, whatever licence they state.
_ALWAYS_PROPRIETARY = frozenset(("driverloader", "lve"))


class NotAModule(Malformed):
    """A relocatable object that is not a kernel module."""


class SymbolTableMissing(Malformed):
    """A kernel module without a symbol table."""


@dataclass(frozen=True)
class KernelObject:
    """The parts of a kmod that the loader decides on."""

    machine: Architecture
    """The architecture of the kernel that reads the kmod."""
    name: str
    """The module's own name, which may differ from that of its file."""
    struct_size: int
    """Size of struct module in the kernel that the kmod was built for, in bytes."""
    entry_offsets: Mapping[str, int]
    """Byte offsets of init_module and cleanup_module in struct module."""
    flags: int
    """e_flags of the ELF header."""
    modinfo: Modinfo
    """Tags such as the licence."""
    needed: tuple[NeededSymbol, ...]
    """Symbols that the kmod needs, in the loader's order."""
    exports: Mapping[str, KmodExport]
    """Exports by name."""
    unversioned_exports: bool
    """True if a table of exports has no table of CRCs."""
    versions: SymbolVersions
    """CRCs that the kmod expects of the symbols it uses."""
    common: tuple[str, ...]
    """Tentative definitions."""
    sections: frozenset[str]
    """Names of all sections."""
    writable_code: tuple[str, ...]
    """Names of sections that are both writable and executable."""
    flaws: tuple[Flaw, ...]
    """Damage in the object that some or all kernels refuse before they link it."""
    unrelocatable: tuple[Flaw, ...]
    """Damage that kernels find when they link the object."""
    type_data: bytes = b""
    """The section .BTF, empty without it."""
    type_data_base: bytes = b""
    """The section .BTF.base, empty without it: the kernel's types on which the kmod's types rest."""
    unflagged_exports: bool = False
    """True if the table of exports has no table of flags."""
    unloaded_modinfo: Modinfo | None = None
    """Tags of a .modinfo section that only kernels since 6.4 find, or None."""

    def as_read_by(self, version: tuple[int, int]) -> KernelObject:
        """Return the kmod as a kernel of the version reads it.

        Kernels since 6.4 find .modinfo even if its section is not loaded. Kernels since 7.1 read flags of exports.
        """
        kmod = self
        if self.unloaded_modinfo is not None and version >= SINCE_COUNTED:
            kmod = replace(kmod, modinfo=self.unloaded_modinfo, unloaded_modinfo=None)
        return replace(kmod, exports=by_flags(self.exports)) if version >= SINCE_FLAGS else kmod

    @property
    def proprietary(self) -> bool:
        """True if the kernel hides GPL-only symbols from the kmod."""
        return self.modinfo.license not in GPL_COMPATIBLE or self.name in _ALWAYS_PROPRIETARY


def read_object(data: ObjectBytes, machine: Architecture) -> KernelObject:
    """Return the kmod in these bytes, as a kernel of the architecture reads it.

    Raise WrongArchitecture, NotAModule, SymbolTableMissing or another Malformed if every kernel refuses the bytes.
    Raise BoundExceeded if the kmod needs too much memory here.
    """
    sections = read_sections(data, machine)
    this = sections.named(_THIS_MODULE)
    if this is None or this.kind in (NULL, NOBITS):
        raise NotAModule(f"no section {_THIS_MODULE}")
    table = find_symbol_table(sections)
    if table is None:
        raise SymbolTableMissing("no symbol table")
    symbols = SymbolTable(sections, table)
    dotted = machine.word == "ppc64le"
    name, name_flaws = _name(sections.bounded(this, _STRUCT_BYTES), machine)
    return KernelObject(
        machine=machine,
        name=name,
        struct_size=this.size,
        entry_offsets=read_entry_offsets(sections, symbols, this),
        flags=sections.flags,
        modinfo=Modinfo(sections.bounded(sections.named(".modinfo"), MODINFO_BYTES)),
        needed=tuple(_needed(symbols, machine)),
        exports=read_exports(sections, symbols),
        unversioned_exports=has_unversioned_exports(sections),
        unflagged_exports=lacks_flags(sections),
        type_data=sections.bounded(sections.anywhere(".BTF"), _TYPE_DATA_BYTES),
        type_data_base=sections.bounded(sections.anywhere(".BTF.base"), _TYPE_DATA_BYTES),
        versions=read_versions(sections, dotted),
        common=symbols.common(),
        sections=frozenset(section.name for section in sections.all),
        writable_code=_writable_code(sections),
        flaws=(*sections.flaws, *_struct_flaws(this), *name_flaws, *symbols.flaws()),
        unrelocatable=tuple(relocation_flaws(sections, symbols)),
        unloaded_modinfo=_unloaded_modinfo(sections),
    )


def _unloaded_modinfo(sections: Sections) -> Modinfo | None:
    section = sections.anywhere(".modinfo")
    if section is None or section.loaded:
        return None
    return Modinfo(sections.bounded(section, MODINFO_BYTES))


def _struct_flaws(this: Section) -> tuple[Flaw, ...]:
    """Return a flaw if struct module is read-only: the kernel crashes when it writes the module's state there."""
    return () if this.flags & WRITE else (Flaw(ALWAYS, "a struct module that cannot be written"),)


def _name(this: bytes, machine: Architecture) -> tuple[str, tuple[Flaw, ...]]:
    name, end, _ = this[_NAME_AT : _NAME_AT + _NAME_BYTES].partition(b"\0")
    flaw = None if name and end else "a struct module without a name"
    # Relocations write over the other bytes of struct module. Only x86_64 refuses bytes that are not zero.
    if machine.word == "x86_64" and (any(this[:_NAME_AT]) or any(this[_NAME_AT + _NAME_BYTES :])):
        flaw = "a struct module that holds more than its name"
    return name.decode("utf-8", "replace"), (Flaw(ALWAYS, flaw),) if flaw else ()


def _needed(symbols: SymbolTable, machine: Architecture) -> list[NeededSymbol]:
    """Return the needed symbols without those of the loader itself.

    The loader provides the table of contents on ppc64, and the offset table on x86.
    """
    needed = list(symbols.needed())
    if machine.word == "ppc64le":
        needed = [
            NeededSymbol(symbol.name.removeprefix("."), symbol.weak) for symbol in needed if symbol.name != ".TOC."
        ]
    if machine.word == "x86_64":
        needed = [symbol for symbol in needed if symbol.name != "_GLOBAL_OFFSET_TABLE_"]
    return needed


def _writable_code(sections: Sections) -> tuple[str, ...]:
    both = WRITE | EXEC
    return tuple(section.name for section in sections.all if section.flags & both == both and section.flags & ALLOC)
