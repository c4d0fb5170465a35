"""The loader's verdict case by case, with rules of RHEL and Debian that no kernel of the tests has."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from kmm_preflight.kmod import findings
from kmm_preflight.kmod.configuration import KernelConfiguration
from kmm_preflight.kmod.kernel_files import Family, KernelFiles, kernel_family
from kmm_preflight.kmod.loader import judge_chain, judge_kmod, read_kmod_file
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.kmod.symvers import Symvers

from .loader_cases import (
    DEVICE_ADD,
    LAYOUT,
    PRINTK,
    PROPRIETARY,
    RHEL9,
    SPACED,
    configuration,
    exporting,
    ids,
    make_symvers,
    read,
    rhel9,
    using,
)
from .objects import COMMON, Object, Symbol


@pytest.fixture(scope="module")
def symvers(tmp_path_factory: pytest.TempPathFactory) -> Symvers:
    return make_symvers(tmp_path_factory.mktemp("symvers"))


@pytest.fixture
def rhel(symvers: Symvers) -> KernelFiles:
    return rhel9(symvers)


def test_a_minimal_kmod_loads(rhel: KernelFiles) -> None:
    assert ids(rhel, Object()) == []


ON_RHEL9: list[tuple[str, Object, list[str]]] = [
    ("a symbol that fits", using("printk", versions=[PRINTK]), []),
    ("a CRC beyond 2^31", using("device_add", versions=[DEVICE_ADD]), []),
    ("another CRC", using("printk", versions=[("printk", 1)]), ["kmod-symbols-differ"]),
    ("a CRC of more than 32 bits", using("printk", versions=[("printk", 0x2222 | 1 << 32)]), ["kmod-symbols-differ"]),
    ("the first entry decides", using("printk", versions=[PRINTK, ("printk", 1)]), []),
    ("no version of a symbol: RHEL warns", using("printk"), ["kmod-symbols-unversioned"]),
    ("no version of module_layout", Object(versions=()), ["kmod-symbols-unversioned"]),
    ("an exporter without CRC", using("uncounted"), []),
    ("a symbol that nothing exports", using("missing"), ["kmod-symbols-absent"]),
    ("a weak symbol that nothing exports", Object(symbols=[Symbol("missing", weak=True)]), []),
    (
        "a weak symbol with another CRC",
        Object(symbols=[Symbol("printk", weak=True)], versions=(LAYOUT, ("printk", 1))),
        ["kmod-symbols-differ"],
    ),
    ("the offset table of x86", using("_GLOBAL_OFFSET_TABLE_"), []),
    ("the table of contents of ppc64 on x86", using(".TOC."), ["kmod-symbols-absent"]),
    ("a GPL-only symbol", using("device_add", versions=[DEVICE_ADD], modinfo=PROPRIETARY), ["kmod-symbols-gpl"]),
    (
        "GPLv2 is not a GPL licence",
        using("device_add", versions=[DEVICE_ADD], modinfo=("license=GPLv2", Object().modinfo[1])),
        ["kmod-symbols-gpl"],
    ),
    (
        "the first licence counts",
        using(
            "device_add",
            versions=[DEVICE_ADD],
            modinfo=("license=Dual MIT/GPL", "license=Proprietary", Object().modinfo[1]),
        ),
        [],
    ),
    ("a name that is always proprietary", using("device_add", versions=[DEVICE_ADD], name="lve"), ["kmod-symbols-gpl"]),
    ("a namespace that is not imported", using("spaced", versions=[SPACED]), ["kmod-namespace"]),
    (
        "a namespace that is imported",
        using("spaced", versions=[SPACED], modinfo=(*Object().modinfo, "import_ns=SPACE")),
        [],
    ),
    ("a symbol of an in-tree kmod", using("ib_open", versions=[("ib_open", 0x5555)]), ["kmod-needs-in-tree"]),
    (
        "a symbol of an in-tree kmod, with another CRC",
        using("ib_open", versions=[("ib_open", 5)]),
        ["kmod-needs-in-tree", "kmod-symbols-differ"],
    ),
    (
        "a GPL-only symbol of an in-tree kmod",
        using("ib_open", versions=[("ib_open", 0x5555)], modinfo=PROPRIETARY),
        ["kmod-symbols-gpl"],
    ),
    ("another kernel build", Object(versions=(("module_layout", 2),)), ["kmod-other-kernel"]),
    (
        "another kernel build, reported once",
        Object(
            symbols=[Symbol("printk")],
            versions=(("module_layout", 2), ("printk", 1)),
            modinfo=("vermagic=x", "license=GPL"),
        ),
        ["kmod-other-kernel"],
    ),
    (
        "no versions: a taint",
        Object(versions=None, modinfo=("license=GPL", f"vermagic={RHEL9} SMP preempt mod_unload modversions ")),
        ["kmod-unversioned"],
    ),
    ("no versions, so the release must match", Object(versions=None), ["kmod-unversioned", "kmod-vermagic"]),
    ("no vermagic: a taint", Object(modinfo=("license=GPL",)), ["kmod-unversioned"]),
    ("another release", Object(modinfo=("license=GPL", "vermagic=9 SMP preempt mod_unload modversions ")), []),
    ("no preemption", Object(modinfo=("license=GPL", "vermagic=9 SMP mod_unload modversions ")), ["kmod-vermagic"]),
    ("a livepatch", Object(modinfo=(*Object().modinfo, "livepatch=Y")), ["kmod-livepatch"]),
    ("a tentative definition", Object(symbols=[Symbol("some", COMMON, 8)]), ["kmod-common"]),
    ("a tentative definition of the compiler", Object(symbols=[Symbol("__gnu_lto_v1", COMMON, 1)]), []),
    ("an export", exporting("mine"), []),
    ("an export that vmlinux has", exporting("printk"), ["kmod-exports-clash"]),
    ("an export that an in-tree kmod has", exporting("ib_open"), ["kmod-exports-in-tree"]),
    ("an export without a CRC", exporting("mine", sections={"__ksymtab": bytes(12)}), ["kmod-unversioned"]),
    ("struct module is not compared before 6.4", Object(struct_size=960), []),
    (
        "extended versions are not read before 6.14",
        Object(sections={"__version_ext_crcs": bytes(4), "__version_ext_names": b"module_layout\0"}),
        [],
    ),
    ("a symbol in a missing section", Object(symbols=[Symbol("odd", 99)]), ["kmod-not-loadable"]),
    ("no name", Object(name=""), ["kmod-not-loadable"]),
    ("a name that is too long", Object(name="a" * 56), ["kmod-not-loadable"]),
]


@pytest.mark.parametrize(("kmod", "expected"), [row[1:] for row in ON_RHEL9], ids=[row[0] for row in ON_RHEL9])
def test_on_rhel_9(kmod: Object, expected: list[str], rhel: KernelFiles) -> None:
    assert ids(rhel, kmod) == expected


def test_debian_refuses_incomplete_versions(symvers: Symvers) -> None:
    debian = KernelFiles(
        "6.1.0-56-amd64",
        "amd64",
        symvers,
        KernelConfiguration({**configuration().options, "CC_VERSION_TEXT": "gcc-12 (Debian 12.2.0-14) 12.2.0"}),
    )
    assert ids(debian, using("printk")) == ["kmod-symbols-unversioned-refused"]
    assert ids(debian, Object(versions=())) == ["kmod-symbols-unversioned-refused"]


@pytest.mark.parametrize(
    ("release", "compiler", "family"),
    [
        ("5.14.0-570.19.1.el9_6.x86_64+rt", "gcc (GCC) 11.4.1 (Red Hat 11.4.1-3)", Family.RHEL),
        ("4.18.0-553.el8.aarch64", "", Family.RHEL),
        ("6.12.0-55.el10_0.x86_64", "", Family.RHEL),
        ("6.1.0-56-rt-amd64", "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", Family.DEBIAN),
        ("6.12.117+deb12-amd64", "x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", Family.DEBIAN),
        ("6.1.0-56-amd64", "gcc (GCC) 14", Family.MAINLINE),
        ("6.14.3", "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", Family.MAINLINE),
        ("6.8.0-40-generic", "x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0) 13.2.0", Family.MAINLINE),
    ],
)
def test_the_family_of_a_kernel(release: str, compiler: str, family: Family) -> None:
    assert kernel_family(release, KernelConfiguration({"CC_VERSION_TEXT": compiler})) is family


def test_a_chain_has_the_findings_of_each_kmod(rhel: KernelFiles) -> None:
    first = ("first.ko", read(exporting("mine", name="first", versions=(("module_layout", 3),))))
    second = ("second.ko", read(using("mine", versions=[("mine", 0x7777)])))
    results = judge_chain([first, second], rhel)
    assert [(finding.id, finding.sentence.split()[0]) for finding in results] == [("kmod-other-kernel", "first.ko")]


def test_missing_files_are_one_finding(rhel: KernelFiles) -> None:
    bare = KernelFiles(RHEL9, "amd64", None, None)
    what = ".config and no Module.symvers"
    missing = findings.KERNEL_INPUT_MISSING(kmod="made.ko", kernel=RHEL9, what=what)
    assert judge_kmod("made.ko", read(Object()), bare) == (missing,)
    assert ids(replace(bare, configuration=configuration()), Object()) == ["kernel-input-missing"]
    assert ids(replace(rhel, configuration=None), Object()) == ["kernel-input-missing"]
    magic = "5.14.0-570.el9.x86_64 SMP preempt mod_unload modversions "
    assert ids(replace(rhel, configuration=None, in_tree_vermagic=magic), Object()) == []


def test_five_symbols_are_named_and_the_others_are_counted(rhel: KernelFiles) -> None:
    kmod = read(using(*(f"missing_{number}" for number in range(9))))
    symbols = "missing_0, missing_1, missing_2, missing_3, missing_4 and 4 more"
    finding = findings.KMOD_SYMBOLS_ABSENT(kmod="made.ko", symbols=symbols, kernel=RHEL9)
    assert judge_kmod("made.ko", kmod, rhel) == (finding,)


def test_a_compressed_file_is_read(rhel: KernelFiles, tmp_path: Path) -> None:
    path = tmp_path / "made.ko.gz"
    path.write_bytes(gzip.compress(Object().packed()))
    kmod = read_kmod_file("made.ko", path, rhel)
    assert isinstance(kmod, KernelObject)
    assert kmod.name == "made"
    path.write_bytes(b"")
    got = "an empty file"
    assert read_kmod_file("made.ko", path, rhel) == findings.KMOD_NOT_LOADABLE(kmod="made.ko", got=got, kernel=RHEL9)
