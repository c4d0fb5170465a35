"""Kmods with one defect each, made from good kmods by a change of bytes or by objcopy."""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from .requirement import need_tool

Change = Callable[[bytes], bytes]


def replaced(old: bytes, new: bytes) -> Change:
    """Return a change that replaces all occurrences of bytes, at least one, by bytes of equal length."""
    assert len(old) == len(new)

    def change(kmod: bytes) -> bytes:
        assert old in kmod, f"{old!r} is not in the kmod"
        return kmod.replace(old, new)

    return change


def at(place: int, new: bytes) -> Change:
    """Return a change that writes bytes at an offset of the file."""
    return lambda kmod: kmod[:place] + new + kmod[place + len(new) :]


def objcopy(*arguments: str) -> Change:
    """Return a change that runs objcopy with these arguments."""

    def change(kmod: bytes) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "kmod.ko")
            path.write_bytes(kmod)
            name = "aarch64-linux-gnu-objcopy" if kmod[18] == 183 else "objcopy"
            tool = need_tool(name, "apt-get install binutils gcc-12-aarch64-linux-gnu")
            subprocess.run([tool, *arguments, str(path)], check=True, capture_output=True, timeout=60)
            return path.read_bytes()

    return change


def version_of(symbol: str, crc: bytes) -> Change:
    """Return a change of a symbol's CRC in __versions. The CRC has eight bytes."""

    def change(kmod: bytes) -> bytes:
        place = kmod.index(symbol.encode().ljust(56, b"\0"))
        return kmod[: place - 8] + crc + kmod[place:]

    return change


def section_field(name: str, field: int, value: int) -> Change:
    """Return a change of one of the ten fields in a section's header: 1 type, 2 flags, 4 offset, 5 size."""

    def change(kmod: bytes) -> bytes:
        (start,) = struct.unpack_from("<Q", kmod, 40)
        count, names = struct.unpack_from("<HH", kmod, 60)
        headers = [list(struct.unpack_from("<IIQQQQIIQQ", kmod, start + 64 * number)) for number in range(count)]
        strings = kmod[headers[names][4] : headers[names][4] + headers[names][5]]
        for header in headers:
            if strings[header[0] :].startswith(name.encode() + b"\0"):
                header[field] = value
        packed = b"".join(struct.pack("<IIQQQQIIQQ", *header) for header in headers)
        return kmod[:start] + packed + kmod[start + len(packed) :]

    return change


def renamed(old: str, new: str) -> Change:
    """Return a change of a name in all its places, which no tool can do."""
    return replaced(old.encode(), new.encode())


# Defects by label: the name of a small kmod, and the change.
DEFECTS: Mapping[str, tuple[str, Change]] = {
    "cut in the middle": ("pf_plain", lambda kmod: kmod[: len(kmod) // 2]),
    "cut by one byte": ("pf_plain", lambda kmod: kmod[:-1]),
    "64 zero bytes": ("pf_plain", lambda _: bytes(64)),
    "only a header": ("pf_plain", lambda kmod: kmod[:64]),
    "bytes behind the end": ("pf_plain", lambda kmod: kmod + b"more"),
    "machine of aarch64": ("pf_plain", at(18, struct.pack("<H", 183))),
    "machine of i386": ("pf_plain", at(18, struct.pack("<H", 3))),
    "an executable": ("pf_plain", at(16, struct.pack("<H", 2))),
    "says 32 bits": ("pf_plain", at(4, b"\1")),
    "says big-endian": ("pf_plain", at(5, b"\2")),
    "section headers of 63 bytes": ("pf_plain", at(58, struct.pack("<H", 63))),
    "no section names": ("pf_plain", at(62, struct.pack("<H", 0))),
    "a section beyond the end": ("pf_plain", section_field(".modinfo", 4, 1 << 40)),
    "this_module not loaded": ("pf_plain", section_field(".gnu.linkonce.this_module", 2, 0)),
    "this_module of another name": ("pf_plain", objcopy("--rename-section", ".gnu.linkonce.this_module=.other")),
    "no symbol table": ("pf_plain", objcopy("--strip-all")),
    "unneeded symbols stripped": ("pf_gives", objcopy("--strip-unneeded")),
    "no .modinfo": ("pf_plain", objcopy("--rename-section", ".modinfo=.other")),
    "no versions": ("pf_plain", objcopy("--rename-section", "__versions=.other")),
    "versions not loaded": ("pf_plain", section_field("__versions", 2, 0)),
    "no versions, other release": (
        "pf_plain",
        lambda kmod: objcopy("--rename-section", "__versions=.other")(replaced(b"vermagic=6.1", b"vermagic=6.9")(kmod)),
    ),
    "other release": ("pf_plain", lambda kmod: kmod.replace(b"vermagic=6.", b"vermagic=5.")),
    "no preempt in vermagic": ("pf_plain", replaced(b" SMP preempt", b" SMP prexxxt")),
    "vermagic without its last blank": ("pf_plain", replaced(b"modversions \0", b"modversions\0\0")),
    "licence GPLv2": ("pf_gpl", replaced(b"license=GPL\0", b"license=GPX\0")),
    "licence nobody needs": ("pf_plain", replaced(b"license=GPL\0", b"license=GPX\0")),
    "no import of the namespace": ("pf_namespace", replaced(b"import_ns=", b"import_xx=")),
    "import of another namespace": ("pf_namespace", replaced(b"import_ns=CRYPTO_", b"import_ns=KRYPTO_")),
    "other module_layout": ("pf_plain", version_of("module_layout", bytes(8))),
    "other CRC": ("pf_gpl", version_of("device_add", struct.pack("<Q", 1))),
    "other CRC of a weak one": ("pf_weak_found", version_of("misc_deregister", struct.pack("<Q", 1))),
    "upper half of a CRC": (
        "pf_gpl",
        lambda kmod: at(kmod.index(b"device_add".ljust(56, b"\0")) - 4, b"\1\0\0\0")(kmod),
    ),
    "no version of a symbol": ("pf_gpl", lambda kmod: kmod.replace(b"device_add".ljust(56, b"\0"), bytes(56))),
    "no version of module_layout": (
        "pf_plain",
        lambda kmod: kmod.replace(b"module_layout".ljust(56, b"\0"), bytes(56)),
    ),
    "exports what vmlinux has": ("pf_clash", renamed("misc_registeX", "misc_register")),
    "exports what an in-tree kmod has": ("pf_clash_in_tree", renamed("v4l2_device_registeX", "v4l2_device_register")),
    "no CRCs of its exports": (
        "pf_gives",
        objcopy("--rename-section", "__kcrctab=.crcs", "--rename-section", "__kcrctab_gpl=.more_crcs"),
    ),
    "unknown relocation": (
        "pf_plain",
        lambda kmod: _first_relocation(kmod, ".rela.gnu.linkonce.this_module", struct.pack("<I", 99)),
    ),
    "relocation of what is not zero": (
        "pf_plain",
        lambda kmod: _under_relocation(kmod, ".gnu.linkonce.this_module", b"\1"),
    ),
}


def _section(kmod: bytes, name: str) -> tuple[int, int]:
    """Return the offset and size of a section."""
    (start,) = struct.unpack_from("<Q", kmod, 40)
    count, names = struct.unpack_from("<HH", kmod, 60)
    headers = [struct.unpack_from("<IIQQQQIIQQ", kmod, start + 64 * number) for number in range(count)]
    strings = kmod[headers[names][4] : headers[names][4] + headers[names][5]]
    section = next(header for header in headers if strings[header[0] :].startswith(name.encode() + b"\0"))
    return section[4], section[5]


def _first_relocation(kmod: bytes, table: str, kind: bytes) -> bytes:
    return at(_section(kmod, table)[0] + 8, kind)(kmod)


def _under_relocation(kmod: bytes, section: str, byte: bytes) -> bytes:
    (place,) = struct.unpack_from("<Q", kmod, _section(kmod, f".rela{section}")[0])
    return at(_section(kmod, section)[0] + place, byte)(kmod)


def flag_of(symbol: str, flag: int) -> Change:
    """Return a change of the flags of an export: the byte in __kflagstab at the place of its name in the table."""

    def change(kmod: bytes) -> bytes:
        names = kmod[_section(kmod, "__ksymtab_strings")[0] :]
        exported = sorted(re.findall(rb"pf_given\w*", names[: _section(kmod, "__ksymtab_strings")[1]]))
        return at(_section(kmod, "__kflagstab")[0] + exported.index(symbol.encode()), bytes([flag]))(kmod)

    return change


def _unchanged(kmod: bytes) -> bytes:
    return kmod


_NO_FLAGS = objcopy("--rename-section", "__kflagstab=.flags")
# Defects of kernels since 7.1 by label: the small kmod, the kmod that is loaded before it, and the change.
# If there is a kmod before, that one is changed. A label with OTHER_LICENCE also changes the small kmod's licence.
OTHER_LICENCE = "another licence"
NEWER_DEFECTS: Mapping[str, tuple[str, str, Change]] = {
    "no flags of its exports": ("pf_gives", "", _NO_FLAGS),
    "no flags, no exports": ("pf_plain", "", objcopy("--add-section", ".flags=/dev/null")),
    "an owner without flags": ("pf_takes", "pf_gives", _NO_FLAGS),
    "exports in a table of their own for GPL only": (
        "pf_takes",
        "pf_gives",
        objcopy("--rename-section", "__ksymtab=__ksymtab_gpl"),
    ),
    "a plain export, and another licence": ("pf_takes", "pf_gives", _unchanged),
    "an export with a flag for GPL only, and another licence": ("pf_takes_gpl", "pf_gives", _unchanged),
    "a flag for GPL only by hand, and another licence": ("pf_takes", "pf_gives", flag_of("pf_given", 1)),
    "another flag by hand, and another licence": ("pf_takes", "pf_gives", flag_of("pf_given", 2)),
    "no flag for GPL only, and another licence": ("pf_takes_gpl", "pf_gives", flag_of("pf_given_gpl", 0)),
    "a stripped owner, and another licence": ("pf_takes_gpl", "pf_gives", objcopy("--strip-unneeded")),
    "in a namespace for its name": ("pf_some", "pf_for", _unchanged),
    "in a namespace for names like its own": ("pf_globbed", "pf_for", _unchanged),
    "in a namespace for names like its own, with -": ("pf_globbed", "pf_for", renamed("pf_glob*", "pf-glob*")),
    "in a namespace for another name": ("pf_some", "pf_for", renamed(":pf_some,", ":pf_sane,")),
    "in a namespace for a longer name": ("pf_some", "pf_for", renamed(":pf_some,pf_glob*", ":pf_some2,pf_glo*")),
    "in a namespace for the start of its name": ("pf_globbed", "pf_for", renamed("pf_glob*", "pf_globb")),
    "type data without its base": ("pf_gpl", "", objcopy("--remove-section", ".BTF.base")),
    "no type data": ("pf_gpl", "", objcopy("--remove-section", ".BTF")),
    "type data of no bytes": ("pf_gpl", "", objcopy("--update-section", ".BTF=/dev/null")),
    "import of a namespace for other kmods": ("pf_plain", "", renamed("description=Small", "import_ns=module:")),
}
