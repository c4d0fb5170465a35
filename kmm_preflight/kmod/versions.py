"""CRCs that a kmod expects of the symbols it uses, in both formats of modversions (docs/reference/loader.md 1.3)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from kmm_preflight.kmod.sections import Sections

_ENTRY_BYTES = 64
_ENTRIES = 1 << 18


@dataclass(frozen=True)
class SymbolVersions:
    """CRCs by symbol, in each format. If a format names a symbol twice, the first CRC counts."""

    basic: Mapping[str, int] | None
    """CRCs of __versions, or None without that section.

    A CRC has eight bytes here. A number above 32 bits equals no CRC of a kernel.
    """
    extended: Mapping[str, int] | None
    """CRCs of the extended format, or None without it. Kernels that know this format ignore the basic one."""


def read_versions(sections: Sections, dotted: bool) -> SymbolVersions:
    """Read the sections __versions, __version_ext_crcs and __version_ext_names.

    dotted: names in the basic format may have a leading dot, which is dropped.
    """
    basic = sections.named("__versions")
    return SymbolVersions(
        _basic(sections.bounded(basic, _ENTRIES * _ENTRY_BYTES), sections.machine.order, dotted) if basic else None,
        _extended(sections),
    )


def _basic(section: bytes, order: str, dotted: bool) -> Mapping[str, int]:
    versions: dict[str, int] = {}
    whole = section[: len(section) // _ENTRY_BYTES * _ENTRY_BYTES]
    for crc, padded in struct.iter_unpack(f"{order}Q56s", whole):
        name = padded.partition(b"\0")[0].decode("utf-8", "replace")
        versions.setdefault(name.removeprefix(".") if dotted else name, crc)
    return versions


def _extended(sections: Sections) -> Mapping[str, int] | None:
    crcs, names = sections.named("__version_ext_crcs"), sections.named("__version_ext_names")
    if crcs is None or names is None:
        return None
    numbers = sections.bounded(crcs, _ENTRIES * 4)
    values = struct.unpack(f"{sections.machine.order}{len(numbers) // 4}I", numbers[: len(numbers) // 4 * 4])
    versions: dict[str, int] = {}
    texts = sections.bounded(names, _ENTRIES * _ENTRY_BYTES).split(b"\0", len(values))
    for crc, name in zip(values, texts, strict=False):
        versions.setdefault(name.decode("utf-8", "replace"), crc)
    return versions
