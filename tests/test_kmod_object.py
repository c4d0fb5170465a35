"""Kmods as the loader reads them: real kmods of four architectures, compressed kmods, and damaged bytes."""

from __future__ import annotations

import gzip
import lzma
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kmm_preflight.errors import BoundExceeded, Malformed
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

from .real.defects import at, section_field

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

AMD64 = MACHINES["amd64"]


@pytest.fixture(scope="module")
def small() -> Mapping[str, bytes]:
    """Return the small kmods for the newest plain kernel, by name."""
    from .debian_kernels import build_kernels
    from .real.drivers import small_kmods

    return small_kmods(build_kernels()[2])


def test_the_parts_of_a_kmod(small: Mapping[str, bytes]) -> None:
    kmod = read_object(small["pf_takes_namespace"], AMD64)
    assert kmod.name == "pf_takes_namespace"
    assert NeededSymbol("pf_given_in_namespace", weak=False) in kmod.needed
    assert kmod.modinfo.namespaces == {"PF_SPACE"}
    assert kmod.modinfo.license == "GPL"
    assert kmod.versions.basic is not None
    assert set(kmod.versions.basic) == {"module_layout", *(symbol.name for symbol in kmod.needed)}
    assert (*kmod.flaws, *kmod.unrelocatable, *kmod.common, *kmod.writable_code) == ()
    assert NeededSymbol("pf_nobody_has_this_either", weak=True) in read_object(small["pf_weak"], AMD64).needed


def test_exports_are_equal_with_and_without_the_symbols_that_name_them(small: Mapping[str, bytes]) -> None:
    from .real.defects import objcopy

    named = read_object(small["pf_gives"], AMD64).exports
    assert {name: (export.gpl, export.namespace) for name, export in named.items()} == {
        "pf_given": (False, None),
        "pf_given_gpl": (True, None),
        "pf_given_in_namespace": (False, "PF_SPACE"),
    }
    assert read_object(objcopy("--strip-unneeded")(small["pf_gives"]), AMD64).exports == named
    versions = read_object(small["pf_takes"], AMD64).versions.basic
    assert versions is not None
    assert versions["pf_given"] == named["pf_given"].crc


def test_flags_are_equal_with_and_without_the_symbols_that_name_them() -> None:
    from .real.defects import objcopy
    from .real.drivers import small_kmods
    from .real.unstable import release

    kmod = small_kmods(release())["pf_gives"]
    named = read_object(kmod, AMD64).as_read_by((7, 1)).exports
    assert {name: (export.gpl, export.namespace) for name, export in named.items()} == {
        "pf_given": (False, None),
        "pf_given_gpl": (True, None),
        "pf_given_in_namespace": (False, "PF_SPACE"),
    }
    assert read_object(objcopy("--strip-unneeded")(kmod), AMD64).as_read_by((7, 1)).exports == named


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "not": bytes,
    "gz": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "zst": zstd.compress,
}


@pytest.mark.parametrize("packer", PACKERS)
def test_a_compressed_kmod_is_unpacked_whatever_its_name_is(
    packer: str, small: Mapping[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "pf_gives.ko"
    path.write_bytes(PACKERS[packer](small["pf_gives"]))
    with unpacked(path) as data:
        assert data[:] == small["pf_gives"]
        assert read_object(data, AMD64).name == "pf_gives"


@pytest.mark.parametrize("packer", ["gz", "xz", "zst"])
def test_a_compressed_kmod_that_is_cut_short_is_malformed(
    packer: str, small: Mapping[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "pf_gives.ko"
    path.write_bytes(PACKERS[packer](small["pf_gives"])[:-20])
    with pytest.raises(Malformed, match="stream"), unpacked(path):
        pass


def test_an_empty_file_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "empty.ko").touch()
    with pytest.raises(Malformed, match="an empty file"), unpacked(tmp_path / "empty.ko"):
        pass


def test_a_kmod_of_more_than_512_mib_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "large.ko"
    path.write_bytes(zstd.compress(bytes(1 << 20)) * 513)
    with pytest.raises(BoundExceeded, match="more than 512 MiB"), unpacked(path):
        pass


def test_the_first_value_of_a_tag_counts_and_all_namespaces() -> None:
    modinfo = Modinfo(b"\0\0license=GPL\0license=other\0import_ns=A\0\0\0import_ns=B\0xlicense=no\0empty=\0")
    assert (modinfo.license, sorted(modinfo.namespaces)) == ("GPL", ["A", "B"])
    assert (modinfo.first("empty"), modinfo.first("nothing"), modinfo.vermagic) == ("", None, None)
    with pytest.raises(BoundExceeded):
        Modinfo(bytes(5 << 20))


@pytest.mark.parametrize("arch", MACHINES)
def test_a_kernel_accepts_all_of_its_own_kmods(arch: str, tmp_path: Path) -> None:
    """Each in-tree kmod fits its kernel, and its exports are those in Module.symvers."""
    from .debian_kernels import build_kernels
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
        others = OtherKmods(in_tree=everything - {module_key(path.name)})
        assert judge_kmod(path.name, kmod, kernel, others) == export_warnings(kmod, path, kernel)
        assert kmod.modinfo.vermagic == kernel.vermagic
        for name, export in kmod.exports.items():
            exported = symvers.find(name)
            assert exported is not None
            assert export == KmodExport(exported.crc, exported.gpl, exported.namespace)
        judged += 1
    assert judged > 400


def export_warnings(kmod: KernelObject, path: Path, kernel: KernelFiles) -> tuple[Finding, ...]:
    """Return the only finding about an in-tree kmod: the kernel has its exports already, in that same kmod."""
    alone = judge_kmod(path.name, kmod, kernel, OtherKmods())
    return tuple(finding for finding in alone if finding.id == "kmod-exports-in-tree")


def test_a_tool_may_remove_tags_from_modinfo(small: Mapping[str, bytes]) -> None:
    """objcopy --update-section leaves the symbols of removed tags. The kernel accepts such a kmod (tested)."""
    shorter = read_object(section_field(".modinfo", 5, 0)(small["pf_gives"]), AMD64)
    assert (shorter.flaws, shorter.unrelocatable, shorter.modinfo.vermagic) == ((), (), None)
    flaws = read_object(section_field(".note.Linux", 5, 0)(small["pf_gives"]), AMD64).flaws
    assert "a symbol beyond the end of its section" in [flaw.words for flaw in flaws]


def test_a_read_only_struct_module_is_a_flaw(small: Mapping[str, bytes]) -> None:
    """The loader accepts it, and the kernel crashes when it writes to it (tested)."""
    (flaw,) = read_object(section_field(".gnu.linkonce.this_module", 2, 2)(small["pf_plain"]), AMD64).flaws
    assert flaw.words == "a struct module that cannot be written"


def test_the_first_symbol_needs_a_name_in_the_table(small: Mapping[str, bytes]) -> None:
    kmod = small["pf_plain"]
    table = read_sections(kmod, AMD64).anywhere(".symtab")
    assert table is not None
    (flaw,) = read_object(at(table.offset + 2, b"\x10")(kmod), AMD64).flaws
    assert flaw.words == "a symbol whose name lies outside the string table"


def test_the_first_section_needs_a_name_in_the_table(small: Mapping[str, bytes]) -> None:
    kmod = small["pf_plain"]
    start = int.from_bytes(kmod[40:48], "little")
    (flaw,) = read_object(at(start + 2, b"\x80")(kmod), AMD64).flaws
    assert flaw.words == "no name for section 0"
