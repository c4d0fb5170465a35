"""Relocations that the loader refuses, or that crash the kernel."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping

import pytest

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.kmod import findings
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import judge_kmod
from kmm_preflight.kmod.machine import MACHINES
from kmm_preflight.kmod.object import read_object
from kmm_preflight.kmod.sections import read_sections

from .real.defects import objcopy, section_field

if sys.version_info >= (3, 14):
    pass
else:
    pass

AMD64 = MACHINES["amd64"]


@pytest.fixture(scope="module")
def small() -> Mapping[str, bytes]:
    """Return the small kmods for the newest plain kernel, by name."""
    from .debian_kernels import build_kernels
    from .real.drivers import small_kmods

    return small_kmods(build_kernels()[2])


@pytest.fixture(scope="module")
def kernel() -> KernelFiles:
    """Return the newest plain kernel."""
    from .debian_kernels import build_kernels, kernel_files

    return kernel_files(build_kernels()[2])


def change_relocation(kmod: bytes, table: str, field: int, change: Callable[[int], int], entry: int = 0) -> bytes:
    """Change a field of an entry in a table of relocations: 0 place, 1 symbol and type, 2 addend."""
    section = read_sections(kmod, AMD64).anywhere(table)
    assert section is not None
    fields = list(struct.unpack_from("<QQq", kmod, at := section.offset + 24 * entry))
    fields[field] = change(fields[field])
    return kmod[:at] + struct.pack("<QQq", *fields) + kmod[at + 24 :]


THIS_MODULE = ".rela.gnu.linkonce.this_module"
CHANGES: Mapping[str, tuple[str, int, Callable[[int], int], str]] = {
    "four bytes, some of the next entry": (".rela.orc_unwind_ip", 0, lambda place: place + 1, "two relocations of one"),
    "eight bytes instead of four": (".rela.orc_unwind_ip", 1, lambda what: what - 1, "two relocations of one"),
    "eight bytes, four of the next entry": (".rela__mcount_loc", 0, lambda place: place + 4, "two relocations of one"),
    "an address cut to four bytes": (THIS_MODULE, 1, lambda what: what + 9, "that does not fit into four bytes"),
    "behind the end": (THIS_MODULE, 0, lambda _: 0x380 - 4, "beyond the end of .gnu.linkonce.this_module"),
    "an init behind its section": (THIS_MODULE, 2, lambda addend: addend + 0x1000, "not point to code of the kmod"),
    "an init before its section": (THIS_MODULE, 2, lambda addend: addend - 0x1000, "not point to code of the kmod"),
    "an init that begins in the middle": (THIS_MODULE, 2, lambda addend: addend + 2, "not point to code of the kmod"),
    "an init by an unknown symbol": (THIS_MODULE, 1, lambda what: what & 0xFFFFFFFF, "not point to code of the kmod"),
    "an init that is relative": (THIS_MODULE, 1, lambda what: what + 1, "point to code of the kmod"),
    "a return outside the code": (".rela.return_sites", 2, lambda addend: addend + 0x1000, "point to code of the kmod"),
    "an export without a name": (".rela__ksymtab", 2, lambda addend: addend + 0x1000, "point to a place in the kmod"),
}  # fmt: skip


@pytest.mark.parametrize("label", CHANGES)
def test_an_entry_that_points_to_a_wrong_place_is_a_flaw(label: str, small: Mapping[str, bytes]) -> None:
    table, field, change, words = CHANGES[label]
    (first, *_) = read_object(change_relocation(small["pf_gives"], table, field, change), AMD64).unrelocatable
    assert words in first.words


@pytest.mark.parametrize(
    ("section", "field", "value", "words"),
    [
        (".init.text", 2, 4, "not point to code of the kmod"),
        (".init.text", 1, 8, "not point to code of the kmod"),
        (".exit.text", 2, 4, "not point to code of the kmod"),
        ("__ksymtab_strings", 2, 0, "not point to a place in the kmod"),
    ],
)
def test_an_entry_that_points_to_a_section_that_is_not_loaded_is_a_flaw(
    section: str, field: int, value: int, words: str, small: Mapping[str, bytes]
) -> None:
    """The loader accepts such kmods, and the kernel crashes (tested)."""
    changed = section_field(section, field, value)(small["pf_gives"])
    (first, *_) = read_object(changed, AMD64).unrelocatable
    assert words in first.words


def test_relocations_of_a_live_patch_need_their_name(small: Mapping[str, bytes]) -> None:
    flagged = section_field(".rela.init.data", 2, 0x100040)(small["pf_plain"])
    (flaw,) = read_object(flagged, AMD64).unrelocatable
    assert flaw.words == "relocations of a live patch in .rela.init.data, expected .klp.rela.…"


def test_an_init_at_another_offset_of_struct_module_is_a_finding(
    small: Mapping[str, bytes], kernel: KernelFiles
) -> None:
    kmod = read_object(change_relocation(small["pf_plain"], THIS_MODULE, 0, lambda place: place + 0x80), AMD64)
    (finding,) = judge_kmod("pf_plain.ko", kmod, kernel)
    place = kernel.entry_offsets["init_module"]
    got = f"init_module at byte {place + 0x80} of struct module, expected {place}"
    assert finding == findings.KMOD_NOT_LOADABLE(kmod="pf_plain.ko", got=got, kernel=kernel.release)


def test_relocations_shared_by_many_headers_are_not_read(small: Mapping[str, bytes]) -> None:
    kmod, order = small["pf_plain"], "<IIQQQQIIQQ"
    start = int.from_bytes(kmod[40:48], "little")
    count = int.from_bytes(kmod[60:62], "little")
    large = kmod[:start] + bytes(8 << 20)
    headers = kmod[start : start + 64 * count]
    shared = struct.pack(order, 0, 4, 0, 0, start, 8 << 20, 0, 1, 8, 24)
    data = bytearray(large + headers + shared * (60_000 - count))
    data[40:48], data[60:62] = len(large).to_bytes(8, "little"), (60_000).to_bytes(2, "little")
    with pytest.raises(BoundExceeded, match="relocations"):
        read_object(bytes(data), AMD64)


@pytest.mark.parametrize("section", [".init.text", ".text"])
def test_code_whose_relocations_were_removed(section: str, small: Mapping[str, bytes], kernel: KernelFiles) -> None:
    """A kernel in QEMU loaded the kmod without those of .init.text, and crashed."""
    removed = objcopy("--remove-relocations", section)(small["pf_gives"])
    (finding,) = judge_kmod("m.ko", read_object(removed, AMD64), kernel)
    assert finding.id == "kmod-not-loadable"
    assert f"in {section}, where the code leaves the kmod" in finding.sentence
    assert judge_kmod("m.ko", read_object(small["pf_gives"], AMD64), kernel) == ()


@pytest.mark.parametrize("entry", [0, 1])
def test_one_relocation_that_was_turned_off(small: Mapping[str, bytes], kernel: KernelFiles, entry: int) -> None:
    table = ".rela.init.text"
    none = change_relocation(small["pf_plain"], table, 1, lambda what: what & ~0xFFFFFFFF, entry)
    elsewhere = change_relocation(small["pf_plain"], table, 0, lambda place: place + 2, entry)
    for kmod in (none, elsewhere):
        assert "kmod-not-loadable" in {finding.id for finding in judge_kmod("m.ko", read_object(kmod, AMD64), kernel)}
