"""A kmod as the loader reads it: real ones of four architectures, packed ones, and bytes that are none."""

from __future__ import annotations

import gzip
import lzma
import random
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod import findings
from kmm_preflight.kmod.configuration import parse_configuration, parse_release
from kmm_preflight.kmod.exports import KmodExport
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import judge_kmod, read_kmod
from kmm_preflight.kmod.machine import MACHINES
from kmm_preflight.kmod.modinfo import Modinfo
from kmm_preflight.kmod.names import module_key
from kmm_preflight.kmod.object import KernelObject, read_object
from kmm_preflight.kmod.packed import unpacked
from kmm_preflight.kmod.resolution import OtherKmods
from kmm_preflight.kmod.sections import read_sections
from kmm_preflight.kmod.symbols import NeededSymbol
from kmm_preflight.kmod.symvers import SymversStore
from kmm_preflight.model import Finding

from .objects import ABSOLUTE, COMMON, Object, Symbol
from .real.defects import at, section_field

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

AMD64 = MACHINES["amd64"]
SEED = 6


@pytest.fixture(scope="module")
def built() -> Mapping[str, bytes]:
    """The small kmods for the newest plain kernel, by name."""
    from .loader_truth import build_kernels
    from .real.drivers import small_kmods

    return small_kmods(build_kernels()[2])


@pytest.fixture(scope="module")
def kernel() -> KernelFiles:
    """The newest plain kernel."""
    from .loader_truth import build_kernels, kernel_files

    return kernel_files(build_kernels()[2])


def test_what_a_kmod_says(built: Mapping[str, bytes]) -> None:
    kmod = read_object(built["pf_takes_namespace"], AMD64)
    assert kmod.name == "pf_takes_namespace"
    assert NeededSymbol("pf_given_in_namespace", weak=False) in kmod.needed
    assert kmod.modinfo.namespaces == {"PF_SPACE"}
    assert kmod.modinfo.license == "GPL"
    assert kmod.versions.basic is not None
    assert set(kmod.versions.basic) == {"module_layout", *(one.name for one in kmod.needed)}
    assert (*kmod.flaws, *kmod.unrelocatable, *kmod.common, *kmod.writable_code) == ()
    assert NeededSymbol("pf_nobody_has_this_either", weak=True) in read_object(built["pf_weak"], AMD64).needed


def test_exports_are_the_same_with_and_without_the_symbols_that_name_them(built: Mapping[str, bytes]) -> None:
    from .real.defects import objcopy

    named = read_object(built["pf_gives"], AMD64).exports
    assert {name: (one.gpl, one.namespace) for name, one in named.items()} == {
        "pf_given": (False, None),
        "pf_given_gpl": (True, None),
        "pf_given_in_namespace": (False, "PF_SPACE"),
    }
    assert read_object(objcopy("--strip-unneeded")(built["pf_gives"]), AMD64).exports == named
    wanted = read_object(built["pf_takes"], AMD64).versions.basic
    assert wanted is not None
    assert wanted["pf_given"] == named["pf_given"].crc


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "not": bytes,
    "gz": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "zst": zstd.compress,
}


@pytest.mark.parametrize("packer", PACKERS)
def test_packed_kmods_are_told_by_content(packer: str, built: Mapping[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "pf_gives.ko"
    path.write_bytes(PACKERS[packer](built["pf_gives"]))
    with unpacked(path) as data:
        assert data[:] == built["pf_gives"]
        assert read_object(data, AMD64).name == "pf_gives"


@pytest.mark.parametrize("packer", ["gz", "xz", "zst"])
def test_a_packed_kmod_that_is_cut_is_none(packer: str, built: Mapping[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "pf_gives.ko"
    path.write_bytes(PACKERS[packer](built["pf_gives"])[:-20])
    with pytest.raises(Malformed, match="stream"), unpacked(path):
        pass


def test_an_empty_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.ko").touch()
    with pytest.raises(Malformed, match="an empty file"), unpacked(tmp_path / "empty.ko"):
        pass


def test_what_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "large.ko"
    path.write_bytes(zstd.compress(bytes(1 << 20)) * 513)
    with pytest.raises(BoundExceeded, match="more than 512 MiB"), unpacked(path):
        pass


def test_the_first_of_a_tag_counts_and_all_of_a_namespace() -> None:
    modinfo = Modinfo(b"\0\0license=GPL\0license=other\0import_ns=A\0\0\0import_ns=B\0xlicense=no\0empty=\0")
    assert (modinfo.license, sorted(modinfo.namespaces)) == ("GPL", ["A", "B"])
    assert (modinfo.first("empty"), modinfo.first("nothing"), modinfo.vermagic) == ("", None, None)
    with pytest.raises(BoundExceeded):
        Modinfo(bytes(5 << 20))


@pytest.mark.parametrize("arch", MACHINES)
def test_a_kernel_takes_all_of_its_own_kmods(arch: str, tmp_path: Path) -> None:
    """Each in-tree kmod fits its kernel, and exports just what Module.symvers says that it does."""
    from .loader_truth import build_kernels
    from .real import foreign, kernels
    from .real.kmod import headers

    folder = headers(build_kernels()[2]) if arch == "amd64" else foreign.headers(arch)
    modules = kernels.in_tree(build_kernels()[2]) if arch == "amd64" else foreign.in_tree(arch)
    symvers = SymversStore(tmp_path).keep(f"sha256:{0:064}", [(folder / "Module.symvers").read_bytes()])
    release = parse_release((folder / "include/generated/utsrelease.h").read_bytes())
    kernel = KernelFiles(release, arch, symvers, parse_configuration((folder / ".config").read_bytes()))
    everything = frozenset(module_key(provider.rpartition("/")[2]) for provider in symvers.providers())
    judged = 0
    for path in sorted(modules.rglob("*.ko*")):
        with unpacked(path) as data:
            kmod = read_kmod(path.name, data, kernel)
        assert isinstance(kmod, KernelObject), kmod
        around = OtherKmods(in_tree=everything - {module_key(path.name)})
        assert judge_kmod(path.name, kmod, kernel, around) == own_names(kmod, path, kernel)
        assert kmod.modinfo.vermagic == kernel.vermagic
        for name, export in kmod.exports.items():
            there = symvers.find(name)
            assert there is not None
            assert export == KmodExport(there.crc, there.gpl, there.namespace)
        judged += 1
    assert judged > 400


def own_names(kmod: KernelObject, path: Path, kernel: KernelFiles) -> tuple[Finding, ...]:
    """The only thing to say of an in-tree kmod: its exports are those of an in-tree kmod, itself."""
    alone = judge_kmod(path.name, kmod, kernel, OtherKmods())
    return tuple(finding for finding in alone if finding.id == "kmod-exports-in-tree")


def mutated(kmod: bytes, chance: random.Random) -> bytes:
    """Bytes changed in headers, tables or anywhere; cut, or grown."""
    changed = bytearray(kmod)
    start = int.from_bytes(kmod[40:48], "little")
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = chance.choice((chance.randrange(64), chance.randrange(start, len(kmod)), chance.randrange(len(kmod))))
        changed[place] = chance.choice((0, 1, 2, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    match chance.randrange(8):
        case 0:
            return bytes(changed[: chance.randrange(len(changed))])
        case 1:
            place = chance.randrange(len(changed))
            return bytes(changed[:place] + chance.randbytes(chance.randrange(1, 200)) + changed[place:])
    return bytes(changed)


def test_mutated_kmods_end_in_findings(built: Mapping[str, bytes], kernel: KernelFiles) -> None:
    chance, came = random.Random(SEED), Counter[str]()
    kmods = [built[name] for name in ("pf_gives", "pf_takes", "pf_gpl", "pf_namespace")]
    before, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    for _ in range(10_000):
        data = mutated(chance.choice(kmods), chance)
        begun = time.perf_counter()
        try:
            kmod = read_kmod("mutated.ko", data, kernel)
            found = (kmod,) if isinstance(kmod, Finding) else judge_kmod("mutated.ko", kmod, kernel)
            came.update(one.id for one in found)
            came["loads"] += not found
        except BoundExceeded:
            came["bound"] += 1
        slowest = max(slowest, time.perf_counter() - begun)
    assert slowest < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10, "KiB"
    assert came["kmod-not-loadable"] > 1000
    assert came["loads"] > 100


def test_headers_that_claim_much_cost_little(kernel: KernelFiles) -> None:
    chance = random.Random(SEED)
    for _ in range(200):
        data = b"\x7fELF" + bytes(12) + b"\1\0\x3e\0" + chance.randbytes(38) + b"\x40\0\xff\xff\1\0" + bytes(1 << 16)
        assert isinstance(read_kmod("claims.ko", data, kernel), Finding)


HOSTILE: dict[str, Object] = {
    "names that all begin alike": Object(
        symbols=[Symbol("__crc_" * (1 << 20), ABSOLUTE)], sections={"__ksymtab": bytes(12), "__kcrctab": bytes(4)}
    ),
    "a million tags": Object(modinfo=["a"] * (1 << 20)),
    "a million tags of a kind": Object(modinfo=["import_ns="] * (1 << 18)),
    "a million versions": Object(versions=[("a", 1)] * (1 << 19)),
    "many needed": Object(symbols=[Symbol("a" * 200)] * 150_000),
    "many tentative": Object(symbols=[Symbol("a" * 200, COMMON)] * 100_000),
    "many exports of one large section": Object(
        symbols=[Symbol(f"__{kind}_{number}", ".large" if kind != "ksymtab" else "__ksymtab", number)
                 for number in range(20_000) for kind in ("ksymtab", "crc", "kstrtabns")],
        sections={"__ksymtab": bytes(12 * 20_000), "__kcrctab": bytes(4), ".large": b"x" * (16 << 20)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("label", HOSTILE)
def test_an_object_that_asks_for_much_costs_little(label: str, kernel: KernelFiles) -> None:
    data = HOSTILE[label].packed()
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with suppress(BoundExceeded):
        kmod = read_kmod("hostile.ko", data, kernel)
        if isinstance(kmod, KernelObject):
            judge_kmod("hostile.ko", kmod, kernel)
    assert time.perf_counter() - begun < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 << 10, "KiB"


def related(kmod: bytes, table: str, field: int, change: Callable[[int], int], entry: int = 0) -> bytes:
    """With another number in an entry of a table of relocations: 0 its place, 1 its symbol and type, 2 its addend."""
    section = read_sections(kmod, AMD64).anywhere(table)
    assert section is not None
    fields = list(struct.unpack_from("<QQq", kmod, at := section.offset + 24 * entry))
    fields[field] = change(fields[field])
    return kmod[:at] + struct.pack("<QQq", *fields) + kmod[at + 24 :]


THIS_RELATED = ".rela.gnu.linkonce.this_module"
RELATED: Mapping[str, tuple[str, int, Callable[[int], int], str]] = {
    "four bytes into the next": (".rela.orc_unwind_ip", 0, lambda place: place + 1, "two relocations of one place"),
    "eight bytes where there are four": (".rela.orc_unwind_ip", 1, lambda what: what - 1, "two relocations of one"),
    "eight bytes, four the next's": (".rela__mcount_loc", 0, lambda place: place + 4, "two relocations of one"),
    "an address cut to four bytes": (THIS_RELATED, 1, lambda what: what + 9, "that does not fit into four bytes"),
    "behind the end": (THIS_RELATED, 0, lambda _: 0x380 - 4, "beyond the end of .gnu.linkonce.this_module"),
    "an init behind its section": (THIS_RELATED, 2, lambda addend: addend + 0x1000, "not point to code of the kmod"),
    "an init before its section": (THIS_RELATED, 2, lambda addend: addend - 0x1000, "not point to code of the kmod"),
    "an init that begins in the middle": (THIS_RELATED, 2, lambda addend: addend + 2, "not point to code of the kmod"),
    "an init that nobody has": (THIS_RELATED, 1, lambda what: what & 0xFFFFFFFF, "not point to code of the kmod"),
    "an init that is relative": (THIS_RELATED, 1, lambda what: what + 1, "point to code of the kmod"),
    "a return that is none": (".rela.return_sites", 2, lambda addend: addend + 0x1000, "point to code of the kmod"),
    "an export without a name": (".rela__ksymtab", 2, lambda addend: addend + 0x1000, "point to a place in the kmod"),
}  # fmt: skip


@pytest.mark.parametrize("label", RELATED)
def test_relocations_that_lead_astray_are_told(label: str, built: Mapping[str, bytes]) -> None:
    table, field, change, words = RELATED[label]
    (first, *_) = read_object(related(built["pf_gives"], table, field, change), AMD64).unrelocatable
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
def test_what_is_not_loaded_is_no_place_to_lead_to(
    section: str, field: int, value: int, words: str, built: Mapping[str, bytes]
) -> None:
    """The loader takes such kmods, and the kernel dies of them (tried)."""
    changed = section_field(section, field, value)(built["pf_gives"])
    (first, *_) = read_object(changed, AMD64).unrelocatable
    assert words in first.words


def test_tags_may_be_taken_out_of_modinfo(built: Mapping[str, bytes]) -> None:
    """What objcopy --update-section leaves: symbols of tags that are no more (tried: the kernel takes it)."""
    shorter = read_object(section_field(".modinfo", 5, 0)(built["pf_gives"]), AMD64)
    assert (shorter.flaws, shorter.unrelocatable, shorter.modinfo.vermagic) == ((), (), None)
    flaws = read_object(section_field(".note.Linux", 5, 0)(built["pf_gives"]), AMD64).flaws
    assert "a symbol beyond the end of its section" in [flaw.words for flaw in flaws]


def test_a_struct_module_that_cannot_be_written_is_told(built: Mapping[str, bytes]) -> None:
    """The loader takes it, and the kernel dies when it writes into it (tried)."""
    (flaw,) = read_object(section_field(".gnu.linkonce.this_module", 2, 2)(built["pf_plain"]), AMD64).flaws
    assert flaw.words == "a struct module that cannot be written"


def test_relocations_of_a_live_patch_are_named_so(built: Mapping[str, bytes]) -> None:
    flagged = section_field(".rela.init.data", 2, 0x100040)(built["pf_plain"])
    (flaw,) = read_object(flagged, AMD64).unrelocatable
    assert flaw.words == "relocations of a live patch in .rela.init.data, expected .klp.rela.…"


def test_even_the_first_symbol_has_a_name_in_the_table(built: Mapping[str, bytes]) -> None:
    kmod = built["pf_plain"]
    table = read_sections(kmod, AMD64).anywhere(".symtab")
    assert table is not None
    (flaw,) = read_object(at(table.offset + 2, b"\x10")(kmod), AMD64).flaws
    assert flaw.words == "a symbol whose name lies outside the string table"


def test_even_the_first_section_has_a_name_in_the_table(built: Mapping[str, bytes]) -> None:
    kmod = built["pf_plain"]
    start = int.from_bytes(kmod[40:48], "little")
    (flaw,) = read_object(at(start + 2, b"\x80")(kmod), AMD64).flaws
    assert flaw.words == "no name for section 0"


def test_an_init_that_is_written_over_something_else_is_told(built: Mapping[str, bytes], kernel: KernelFiles) -> None:
    kmod = read_object(related(built["pf_plain"], THIS_RELATED, 0, lambda place: place + 0x80), AMD64)
    (finding,) = judge_kmod("pf_plain.ko", kmod, kernel)
    place = kernel.entry_offsets["init_module"]
    got = f"init_module at byte {place + 0x80} of struct module, expected {place}"
    assert finding == findings.KMOD_NOT_LOADABLE(kmod="pf_plain.ko", got=got, kernel=kernel.release)


def test_headers_that_share_their_relocations_are_not_followed(built: Mapping[str, bytes]) -> None:
    kmod, order = built["pf_plain"], "<IIQQQQIIQQ"
    start = int.from_bytes(kmod[40:48], "little")
    count = int.from_bytes(kmod[60:62], "little")
    large = kmod[:start] + bytes(8 << 20)
    headers = kmod[start : start + 64 * count]
    shared = struct.pack(order, 0, 4, 0, 0, start, 8 << 20, 0, 1, 8, 24)
    data = bytearray(large + headers + shared * (60_000 - count))
    data[40:48], data[60:62] = len(large).to_bytes(8, "little"), (60_000).to_bytes(2, "little")
    with pytest.raises(BoundExceeded, match="relocations"):
        read_object(bytes(data), AMD64)


def test_judging_takes_milliseconds(kernel: KernelFiles) -> None:
    from .real.drivers import drivers

    kmods = list(drivers(kernel.release).values())
    begun = time.perf_counter()
    for data in kmods:
        kmod = read_kmod("driver.ko", data, kernel)
        assert isinstance(kmod, KernelObject)
        judge_kmod("driver.ko", kmod, kernel)
    assert (time.perf_counter() - begun) / len(kmods) < 0.05
