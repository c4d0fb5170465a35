"""Module.symvers, .config and lists of modules: the files that describe a kernel."""

from __future__ import annotations

import gzip
import io
import lzma
import time
from pathlib import Path

import pytest

from kmm_preflight.base.sorted_table import TableDamaged
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.configuration import (
    KernelConfiguration,
    built_in_with_parameters,
    parse_configuration,
    parse_release,
)
from kmm_preflight.kmod.kernel_files import RawFiles, read_kernel_files
from kmm_preflight.kmod.symvers import ExportedSymbol, Symvers, SymversStore, parse_symvers, write_symvers
from kmm_preflight.kmod.vermagic import expected_vermagic, vermagic_matches

DIGEST = f"sha256:{7:064}"
LINES = b"0x0000000a\tbeta\tvmlinux\tEXPORT_SYMBOL_GPL\t\n0xffffffff\talpha\tnet/a\tEXPORT_SYMBOL\tSPACE\n"
ALPHA = ExportedSymbol("alpha", 0xFFFFFFFF, "net/a", gpl=False, namespace="SPACE")
BETA = ExportedSymbol("beta", 10, "vmlinux", gpl=True, namespace=None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"0x1\ts\tvmlinux\tEXPORT_SYMBOL\n", ExportedSymbol("s", 1, "vmlinux", gpl=False, namespace=None)),
        (b"0x1\ts\tvmlinux\tEXPORT_SYMBOL\t\n", ExportedSymbol("s", 1, "vmlinux", gpl=False, namespace=None)),
        (b"0x1\ts\tN\tvmlinux\tEXPORT_SYMBOL_GPL\n", ExportedSymbol("s", 1, "vmlinux", gpl=True, namespace="N")),
        (b"0x1\ts\t\tnet/a\tEXPORT_SYMBOL\n", ExportedSymbol("s", 1, "net/a", gpl=False, namespace=None)),
        (b"0x1\ts\tnet/a\tEXPORT_SYMBOL_GPL_FUTURE\n", ExportedSymbol("s", 1, "net/a", gpl=False, namespace=None)),
        (b"0x1\ts\tnet/a\tEXPORT_UNUSED_SYMBOL_GPL\n", ExportedSymbol("s", 1, "net/a", gpl=True, namespace=None)),
    ],
    ids=["four columns", "five", "namespace third", "no namespace third", "for the future", "unused"],
)
def test_all_orders_of_columns(line: bytes, expected: ExportedSymbol) -> None:
    assert list(parse_symvers([line])) == [expected]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"<html>\n", "line 1 is b'<html>'"),
        (LINES + b"0x1\ts\n", "line 3 is"),
        (b"0x1\ts\tnet/\0a\tEXPORT_SYMBOL\n", "line 1 is"),
        (b"0xzz\ts\tvmlinux\tEXPORT_SYMBOL\n", "expected a CRC"),
        (LINES[:-5], "line 2 is cut short"),
        (gzip.compress(LINES, mtime=0)[:-9], "stream"),
        (bytes(1 << 20), "line 1 has no end"),
    ],
    ids=[
        "not a table",
        "a line cut",
        "a NUL in it",
        "not a number",
        "the end cut",
        "a stream cut",
        "a line without an end",
    ],
)
def test_an_invalid_text_is_malformed(text: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        list(parse_symvers([text]))


@pytest.mark.parametrize("text", [LINES, gzip.compress(LINES), lzma.compress(LINES)], ids=["plain", "gz", "xz"])
def test_a_stored_table_is_found(text: bytes, tmp_path: Path) -> None:
    stored = SymversStore(tmp_path / "store").keep(DIGEST, [text[:9], text[9:]])
    reopened = SymversStore(tmp_path / "store").find(DIGEST)
    assert reopened is not None
    for table in (stored, reopened):
        assert [table.find(name) for name in ("alpha", "beta", "alph", "gamma", "")] == [ALPHA, BETA, None, None, None]
        assert (len(table), table.versioned, sorted(table.providers())) == (2, False, ["net/a", "vmlinux"])
        assert table.has_crcs


def test_vmlinux_counts_if_a_symbol_has_several_providers(tmp_path: Path) -> None:
    text = b"0x1\ts\tnet/a\tEXPORT_SYMBOL\n0x2\ts\tvmlinux\tEXPORT_SYMBOL\n0x3\ts\tnet/b\tEXPORT_SYMBOL\n"
    assert SymversStore(tmp_path).keep(DIGEST, [text]).find("s") == ExportedSymbol(
        "s", 2, "vmlinux", gpl=False, namespace=None
    )


def test_an_empty_table_finds_nothing(tmp_path: Path) -> None:
    assert SymversStore(tmp_path).keep(DIGEST, []).find("alpha") is None


def test_a_damaged_table_is_not_found(tmp_path: Path) -> None:
    store = SymversStore(tmp_path)
    store.keep(DIGEST, [LINES])
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert store.find(DIGEST) is None
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.find(DIGEST) is None
    with pytest.raises(TableDamaged):
        Symvers(path)


def test_only_digests_name_a_table(tmp_path: Path) -> None:
    assert SymversStore(tmp_path).find("../../etc/passwd") is None


def test_a_text_of_more_than_64_mib_is_not_read() -> None:
    with pytest.raises(BoundExceeded):
        write_symvers(io.BytesIO(), parse_symvers([b"\n" * (1 << 20)] * 65))


def test_a_symbol_of_a_real_table_is_found_in_milliseconds(tmp_path: Path) -> None:
    from .real.kernels import upgrade_kernels
    from .real.kmod import headers

    text = (headers(upgrade_kernels()[0]) / "Module.symvers").read_bytes()
    table = SymversStore(tmp_path).keep(DIGEST, [text])
    names = [line.split("\t")[1] for line in text.decode().splitlines()]
    assert len(table) == len(names)
    start = time.perf_counter()
    assert all(table.find(name) for name in names[::100])
    assert (time.perf_counter() - start) / len(names[::100]) < 0.001
    assert table.versioned


def test_a_configuration() -> None:
    text = b'# comment\nCONFIG_MODULES=y\nCONFIG_A=m\n# CONFIG_B is not set\nCONFIG_C="x y"\nCONFIG_MODVERSIONS=y\n'
    configuration = parse_configuration(text)
    assert configuration.options == {"MODULES": "y", "A": "m", "C": "x y", "MODVERSIONS": "y"}
    assert [configuration.on(name) for name in ("MODULES", "A", "B")] == [True, False, False]
    with pytest.raises(Malformed):
        parse_configuration(b"<html>")


def test_a_release() -> None:
    assert parse_release(b'#define UTS_RELEASE "6.1.0-56-amd64"\n') == "6.1.0-56-amd64"
    with pytest.raises(Malformed):
        parse_release(b'#define UTS_RELEASE "a b"\n')


def test_built_in_modules_with_a_folder() -> None:
    tags = ["a.license=GPL", "b-c.parm=x:y", "d.parmtype=x:int", "e.version=1", "f.g.parm=no", ""]
    assert built_in_with_parameters(tags) == {"b_c", "d", "e"}


BASE = ("SMP", "MODULE_UNLOAD", "MODVERSIONS")


@pytest.mark.parametrize(
    ("arch", "options", "expected"),
    [
        ("amd64", (*BASE, "PREEMPT_BUILD", "PREEMPT_DYNAMIC"), "R SMP preempt mod_unload modversions "),
        ("amd64", (*BASE, "PREEMPT_RT", "PREEMPT_BUILD"), "R SMP preempt_rt mod_unload modversions "),
        ("amd64", ("PREEMPT",), "R preempt "),
        ("arm64", BASE, "R SMP mod_unload modversions aarch64"),
        (
            "ppc64le",
            (*BASE, "MPROFILE_KERNEL", "RELOCATABLE"),
            "R SMP mod_unload modversions mprofile-kernel relocatable ",
        ),
        (
            "ppc64le",
            (*BASE, "ARCH_USING_PATCHABLE_FUNCTION_ENTRY", "RELOCATABLE"),
            "R SMP mod_unload modversions patchable-function-entry relocatable ",
        ),
        ("s390x", BASE, "R SMP mod_unload modversions "),
    ],
)
def test_version_magic(arch: str, options: tuple[str, ...], expected: str) -> None:
    assert expected_vermagic("R", arch, KernelConfiguration(dict.fromkeys(options, "y"))) == expected


@pytest.mark.parametrize(
    ("kmod", "kernel", "versioned", "matches"),
    [
        ("A SMP ", "A SMP ", False, True),
        ("B SMP ", "A SMP ", False, False),
        ("B SMP ", "A SMP ", True, True),
        ("B SMP", "A SMP ", True, False),
        ("B", "A", True, True),
        ("", "A SMP ", True, False),
    ],
)
def test_matching_version_magic(kmod: str, kernel: str, versioned: bool, matches: bool) -> None:
    assert vermagic_matches(kmod, kernel, versioned) is matches


def test_without_modules_order_absent_kmods_are_unknown(tmp_path: Path) -> None:
    symvers = SymversStore(tmp_path).keep(DIGEST, [b"0x1\ta\tkernel/lib/a-b\tEXPORT_SYMBOL\t\n"])
    built_in = b"kernel/drivers/loop.ko\n"
    whole = RawFiles(order=b"kernel/lib/a-b.ko\nkernel/c.ko\n", built_in=built_in)
    names = ("a_b", "c", "loop", "d")
    for raw, expected in (whole, (True, True, False, False)), (RawFiles(built_in=built_in), (True, None, False, None)):
        kernel = read_kernel_files("6.1.0-1-amd64", "amd64", symvers, raw)
        assert tuple(map(kernel.has_in_tree, names)) == expected
