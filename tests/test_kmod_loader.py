"""What the loader says, case by case: rules of RHEL and of machines that no test here boots, on kmods made for them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kmm_preflight.kmod import findings
from kmm_preflight.kmod.configuration import KernelConfiguration
from kmm_preflight.kmod.kernel_files import Family, KernelFiles, kernel_family
from kmm_preflight.kmod.loader import judge_chain, judge_kmod, read_kmod, read_kmod_file
from kmm_preflight.kmod.object import KernelObject, read_object
from kmm_preflight.kmod.resolution import NO_OTHERS, OtherKmods
from kmm_preflight.kmod.symvers import Symvers, SymversStore
from kmm_preflight.model import Finding

from .objects import ABSOLUTE, COMMON, Object, Symbol
from .real.defects import section_field

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


@pytest.fixture(scope="module")
def symvers(tmp_path_factory: pytest.TempPathFactory) -> Symvers:
    return SymversStore(tmp_path_factory.mktemp("symvers")).keep(f"sha256:{0:064}", [SYMVERS.encode()])


def configuration(*more: str, without: Sequence[str] = ()) -> KernelConfiguration:
    return KernelConfiguration(dict.fromkeys((ON | {*more}) - {*without}, "y"))


@pytest.fixture
def rhel(symvers: Symvers) -> KernelFiles:
    return KernelFiles(RHEL9, "amd64", symvers, configuration())


def read(made: Object) -> KernelObject:
    kernel = KernelFiles(RHEL9, made.arch, None, None)
    return read_object(made.packed(), kernel.machine)


def ids(kernel: KernelFiles, made: Object, around: OtherKmods = NO_OTHERS) -> list[str]:
    return [finding.id for finding in judge_kmod("made.ko", read(made), kernel, around)]


def using(*names: str, versions: Sequence[tuple[str, int]] = (), **more: object) -> Object:
    made = Object(symbols=[Symbol(name) for name in names], versions=(LAYOUT, *versions))
    return replace(made, **more)  # type: ignore[arg-type]


def exporting(*names: str, table: str = "__ksymtab", **more: object) -> Object:
    """Exports with CRC 0x7777, as modules of RHEL 8 have it: an absolute symbol."""
    symbols = [
        symbol
        for number, name in enumerate(names)
        for symbol in (Symbol(f"__ksymtab_{name}", table, 12 * number), Symbol(f"__crc_{name}", ABSOLUTE, 0x7777))
    ]
    size = len(names)
    crcs = table.replace("ksymtab", "kcrctab")
    return replace(Object(symbols=symbols, sections={table: bytes(12 * size), crcs: bytes(4 * size)}), **more)  # type: ignore[arg-type]


def test_the_least_kmod_loads(rhel: KernelFiles) -> None:
    assert ids(rhel, Object()) == []


PRINTK, DEVICE_ADD, SPACED = ("printk", 0x2222), ("device_add", 0x80003333), ("spaced", 0x4444)
PROPRIETARY = ("license=Proprietary", Object().modinfo[1])

ON_RHEL9: list[tuple[str, Object, list[str]]] = [
    ("a symbol that fits", using("printk", versions=[PRINTK]), []),
    ("a CRC beyond 2^31", using("device_add", versions=[DEVICE_ADD]), []),
    ("another CRC", using("printk", versions=[("printk", 1)]), ["kmod-symbols-differ"]),
    ("a CRC of more than 32 bits", using("printk", versions=[("printk", 0x2222 | 1 << 32)]), ["kmod-symbols-differ"]),
    ("the first entry decides", using("printk", versions=[PRINTK, ("printk", 1)]), []),
    ("no entry: RHEL warns", using("printk"), ["kmod-symbols-unversioned"]),
    ("no entry for module_layout", Object(versions=()), ["kmod-symbols-unversioned"]),
    ("an exporter without CRC", using("uncounted"), []),
    ("nobody exports it", using("nobody"), ["kmod-symbols-absent"]),
    ("nobody exports it, but it is weak", Object(symbols=[Symbol("nobody", weak=True)]), []),
    (
        "weak, there, and another",
        Object(symbols=[Symbol("printk", weak=True)], versions=(LAYOUT, ("printk", 1))),
        ["kmod-symbols-differ"],
    ),
    ("the offset table of x86", using("_GLOBAL_OFFSET_TABLE_"), []),
    ("a table of contents is none on x86", using(".TOC."), ["kmod-symbols-absent"]),
    ("GPL only", using("device_add", versions=[DEVICE_ADD], modinfo=PROPRIETARY), ["kmod-symbols-gpl"]),
    (
        "GPLv2 is no licence",
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
    ("a name that is never free", using("device_add", versions=[DEVICE_ADD], name="lve"), ["kmod-symbols-gpl"]),
    ("a namespace", using("spaced", versions=[SPACED]), ["kmod-namespace"]),
    ("a namespace imported", using("spaced", versions=[SPACED], modinfo=(*Object().modinfo, "import_ns=SPACE")), []),
    ("in a kmod that is not loaded", using("ib_open", versions=[("ib_open", 0x5555)]), ["kmod-needs-in-tree"]),
    (
        "in a kmod that is not loaded, and another",
        using("ib_open", versions=[("ib_open", 5)]),
        ["kmod-needs-in-tree", "kmod-symbols-differ"],
    ),
    (
        "in a kmod that is not loaded, for the GPL",
        using("ib_open", versions=[("ib_open", 0x5555)], modinfo=PROPRIETARY),
        ["kmod-symbols-gpl"],
    ),
    ("another kernel build", Object(versions=(("module_layout", 2),)), ["kmod-other-kernel"]),
    (
        "another kernel build, told once",
        Object(
            symbols=[Symbol("printk")],
            versions=(("module_layout", 2), ("printk", 1)),
            modinfo=("vermagic=x", "license=GPL"),
        ),
        ["kmod-other-kernel"],
    ),
    (
        "no versions: taints",
        Object(versions=None, modinfo=("license=GPL", f"vermagic={RHEL9} SMP preempt mod_unload modversions ")),
        ["kmod-unversioned"],
    ),
    ("no versions, and the release counts", Object(versions=None), ["kmod-unversioned", "kmod-vermagic"]),
    ("no vermagic: taints", Object(modinfo=("license=GPL",)), ["kmod-unversioned"]),
    ("another release", Object(modinfo=("license=GPL", "vermagic=9 SMP preempt mod_unload modversions ")), []),
    ("no preemption", Object(modinfo=("license=GPL", "vermagic=9 SMP mod_unload modversions ")), ["kmod-vermagic"]),
    ("no livepatching", Object(modinfo=(*Object().modinfo, "livepatch=Y")), ["kmod-livepatch"]),
    ("tentative", Object(symbols=[Symbol("some", COMMON, 8)]), ["kmod-common"]),
    ("tentative of the compiler", Object(symbols=[Symbol("__gnu_lto_v1", COMMON, 1)]), []),
    ("exports", exporting("mine"), []),
    ("exports what vmlinux has", exporting("printk"), ["kmod-exports-clash"]),
    ("exports what an in-tree kmod has", exporting("ib_open"), ["kmod-exports-in-tree"]),
    ("exports without CRCs", exporting("mine", sections={"__ksymtab": bytes(12)}), ["kmod-unversioned"]),
    ("struct module is not compared before 6.4", Object(struct_size=960), []),
    (
        "extended versions are not read before 6.14",
        Object(sections={"__version_ext_crcs": bytes(4), "__version_ext_names": b"module_layout\0"}),
        [],
    ),
    ("a symbol in a section that there is not", Object(symbols=[Symbol("odd", 99)]), ["kmod-not-loadable"]),
    ("no name", Object(name=""), ["kmod-not-loadable"]),
    ("a name that is too long", Object(name="a" * 56), ["kmod-not-loadable"]),
]


@pytest.mark.parametrize(("made", "expected"), [row[1:] for row in ON_RHEL9], ids=[row[0] for row in ON_RHEL9])
def test_on_rhel_9(made: Object, expected: list[str], rhel: KernelFiles) -> None:
    assert ids(rhel, made) == expected


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
def test_whose_loader_it_is(release: str, compiler: str, family: Family) -> None:
    assert kernel_family(release, KernelConfiguration({"CC_VERSION_TEXT": compiler})) is family


def on(kernel: KernelFiles, *more: str, without: Sequence[str] = ()) -> KernelFiles:
    return replace(kernel, configuration=configuration(*more, without=without))


def test_without_force_load_nothing_is_guessed(rhel: KernelFiles) -> None:
    strict = on(rhel, without=["MODULE_FORCE_LOAD"])
    assert ids(strict, Object(modinfo=("license=GPL",))) == ["kmod-unversioned-refused"]
    assert "kmod-unversioned-refused" in ids(strict, Object(versions=None))


def test_a_kernel_without_versions_compares_the_whole_magic(rhel: KernelFiles) -> None:
    plain = on(rhel, without=["MODVERSIONS"])
    assert ids(plain, Object()) == ["kmod-vermagic"]
    same = Object(
        versions=None, modinfo=("license=GPL", f"vermagic={RHEL9} SMP preempt mod_unload "), symbols=[Symbol("printk")]
    )
    assert ids(plain, same) == []


def test_namespaces_are_a_warning_where_the_kernel_is_built_so(rhel: KernelFiles, symvers: Symvers) -> None:
    made = using("spaced", versions=[SPACED])
    assert ids(on(rhel, "MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS"), made) == []
    assert ids(KernelFiles(RHEL8, "amd64", symvers, configuration()), made) == []


def test_livepatches_load_where_the_kernel_can(rhel: KernelFiles) -> None:
    assert ids(on(rhel, "LIVEPATCH"), Object(modinfo=(*Object().modinfo, "livepatch=Y"))) == []


def test_type_data_of_another_build(rhel: KernelFiles) -> None:
    made = Object(sections={".BTF": b"data"})
    assert ids(rhel, made) == []
    strict = on(rhel, "DEBUG_INFO_BTF_MODULES")
    assert ids(strict, made) == ["kmod-btf"]
    assert ids(on(rhel, "DEBUG_INFO_BTF_MODULES", "MODULE_ALLOW_BTF_MISMATCH"), made) == []
    assert (
        ids(strict, replace(made, modinfo=("license=GPL", f"vermagic={RHEL9} SMP preempt mod_unload modversions ")))
        == []
    )


def test_struct_module_since_6_4(symvers: Symvers) -> None:
    kernel = KernelFiles("6.12.0-55.el10.x86_64", "amd64", symvers, configuration(), struct_size=1024)
    (finding,) = judge_kmod("made.ko", read(Object()), kernel)
    assert finding == findings.KMOD_OTHER_KERNEL(
        kmod="made.ko", kernel=kernel.release, got="a struct module of 896 bytes", expected="1024"
    )
    assert ids(kernel, Object(struct_size=1024)) == []


def test_modinfo_that_is_not_loaded_is_read_since_6_4(rhel: KernelFiles, symvers: Symvers) -> None:
    """Debian's 6.1 takes such a kmod, with a taint, and its 6.12 reads the version magic and refuses it (tried)."""
    other = Object(modinfo=("license=GPL", "vermagic=5.14.0 SMP mod_unload modversions "))
    newer = KernelFiles("6.12.0-55.el10.x86_64", "amd64", symvers, configuration())
    made = read_object(section_field(".modinfo", 2, 0)(other.packed()), rhel.machine)
    assert [one.id for one in judge_kmod("made.ko", made, rhel)] == ["kmod-unversioned"]
    assert [one.id for one in judge_kmod("made.ko", made, newer)] == ["kmod-vermagic"]
    assert [one.id for one in judge_chain([("made.ko", made)], newer)] == ["kmod-vermagic"]


def test_extended_versions_since_6_14(symvers: Symvers) -> None:
    kernel = KernelFiles("6.15.0-1.el10.x86_64", "amd64", symvers, configuration())
    long = "printk" * 20
    extended = {
        "__version_ext_crcs": struct.pack("<3I", 0x1111, 0x2222, 7),
        "__version_ext_names": b"module_layout\0printk\0" + long.encode() + b"\0",
    }
    made = Object(symbols=[Symbol("printk")], versions=(("module_layout", 1),), sections=extended)
    assert ids(kernel, made) == []
    assert read(made).versions.extended == {"module_layout": 0x1111, "printk": 0x2222, long: 7}
    assert ids(kernel, replace(made, versions=None)) == ["kmod-vermagic"], "without the old form the release counts"


def test_names_of_code_that_is_there_already(rhel: KernelFiles) -> None:
    kernel = replace(rhel, in_tree=frozenset({"in_tree"}), with_parameters=frozenset({"work_queue"}))
    assert ids(kernel, Object(name="in_tree")) == ["kmod-name-in-tree"]
    assert ids(kernel, Object(name="in_tree"), OtherKmods(removed=frozenset({"in_tree"}))) == []
    assert ids(kernel, Object(name="work-queue")) == ["kmod-name-built-in"]


def test_an_in_tree_kmod_that_is_loaded_provides(rhel: KernelFiles) -> None:
    loaded = OtherKmods(in_tree=frozenset({"ib_core"}))
    assert ids(rhel, using("ib_open", versions=[("ib_open", 0x5555)]), loaded) == []
    assert ids(rhel, exporting("ib_open"), loaded) == ["kmod-exports-clash"]


def test_a_kmod_of_the_image_provides(rhel: KernelFiles) -> None:
    gives = read(replace(exporting("mine"), name="gives"))
    uses = using("mine", versions=[("mine", 0x7777)])
    assert ids(rhel, uses, OtherKmods(before=(gives,))) == []
    assert ids(rhel, uses, OtherKmods(not_loaded=(gives,))) == ["kmod-order"]
    assert ids(rhel, using("mine", versions=[("mine", 1)]), OtherKmods(before=(gives,))) == ["kmod-symbols-differ"]
    assert ids(rhel, exporting("mine"), OtherKmods(before=(gives,))) == ["kmod-exports-clash"]


def test_a_kmod_of_the_image_stands_for_the_in_tree_one(rhel: KernelFiles) -> None:
    gives = read(replace(exporting("ib_open"), name="ib_core"))
    assert ids(rhel, using("ib_open", versions=[("ib_open", 0x7777)]), OtherKmods(before=(gives,))) == []


def test_a_proprietary_owner_makes_its_users_proprietary(rhel: KernelFiles, symvers: Symvers) -> None:
    owner = OtherKmods(before=(read(exporting("mine", name="owner", modinfo=PROPRIETARY)),))
    versions = [("mine", 0x7777), DEVICE_ADD]
    assert ids(rhel, using("mine", "device_add", versions=versions), owner) == ["kmod-symbols-gpl"]
    assert ids(rhel, using("device_add", "mine", versions=versions), owner) == ["kmod-proprietary-owner"]
    itself = OtherKmods(before=(read(exporting("mine", table="__ksymtab_gpl", modinfo=PROPRIETARY)),))
    assert ids(rhel, using("mine", versions=versions), itself) == ["kmod-proprietary-owner"], (
        "GPL-only, and proprietary"
    )
    assert (
        ids(
            KernelFiles(RHEL8, "amd64", symvers, configuration()), using("mine", "device_add", versions=versions), owner
        )
        == []
    )


def test_a_chain_is_as_good_as_its_worst_link(rhel: KernelFiles) -> None:
    first = ("first.ko", read(exporting("mine", name="first", versions=(("module_layout", 3),))))
    second = ("second.ko", read(using("mine", versions=[("mine", 0x7777)])))
    got = judge_chain([first, second], rhel)
    assert [(finding.id, finding.sentence.split()[0]) for finding in got] == [("kmod-other-kernel", "first.ko")]


def test_missing_inputs_are_told_in_one_finding(rhel: KernelFiles) -> None:
    bare = KernelFiles(RHEL9, "amd64", None, None)
    (told,) = judge_kmod("made.ko", read(Object()), bare)
    assert (told.id, "got no .config and no Module.symvers of that kernel" in told.sentence) == (
        "kernel-input-missing",
        True,
    )
    assert ids(replace(bare, configuration=configuration()), Object()) == ["kernel-input-missing"]
    assert ids(replace(rhel, configuration=None), Object()) == ["kernel-input-missing"]
    magic = "5.14.0-570.el9.x86_64 SMP preempt mod_unload modversions "
    assert ids(replace(rhel, configuration=None, in_tree_vermagic=magic), Object()) == []


def test_five_symbols_are_named_and_the_rest_is_counted(rhel: KernelFiles) -> None:
    (finding,) = judge_kmod("made.ko", read(using(*(f"nobody_{number}" for number in range(9)))), rhel)
    assert finding.sentence == (
        "made.ko needs what nobody exports: got nobody_0, nobody_1, nobody_2, nobody_3, nobody_4 and 4 more, "
        f"expected them in {RHEL9} or another kmod of the image"
    )


@pytest.mark.parametrize(
    ("arch", "magic", "options", "sections"),
    [
        (
            "arm64",
            "SMP preempt mod_unload modversions aarch64",
            ("ARM64_MODULE_PLTS",),
            {".plt": b"1", ".init.plt": b"1"},
        ),
        (
            "ppc64le",
            "SMP preempt mod_unload modversions mprofile-kernel relocatable ",
            ("MPROFILE_KERNEL", "RELOCATABLE"),
            {".stubs": b"1"},
        ),
        ("s390x", "SMP preempt mod_unload modversions ", (), {}),
    ],
)
def test_other_machines(
    arch: str, magic: str, options: tuple[str, ...], sections: dict[str, bytes], symvers: Symvers
) -> None:
    kernel = KernelFiles(f"5.14.0-570.el9.{arch}", arch, symvers, configuration(*options))
    made = Object(
        arch=arch,
        modinfo=("license=GPL", f"vermagic=5.14.0-1.el9 {magic}"),
        symbols=[Symbol("printk"), Symbol(".TOC.")] if arch == "ppc64le" else [Symbol("printk")],
        versions=(LAYOUT, (".printk" if arch == "ppc64le" else "printk", 0x2222)),
        sections=sections,
    )
    assert ids(kernel, made) == []
    assert ids(kernel, replace(made, sections={})) == (["kmod-sections"] if sections else [])
    assert ids(kernel, replace(made, versions=(LAYOUT, ("printk", 0x2222 << 32)))) == ["kmod-symbols-differ"]
    wrong = read_kmod("made.ko", made.packed(), KernelFiles(RHEL9, "amd64", symvers, None))
    assert isinstance(wrong, Finding)
    assert wrong.sentence == f"made.ko is built for another architecture: got {kernel.machine.word}, expected x86_64"


def test_the_abi_of_ppc64_since_6_12(symvers: Symvers) -> None:
    kernel = KernelFiles("6.12.0-55.el10.ppc64le", "ppc64le", symvers, configuration())
    magic = "vermagic=6.12.0-55.el10.ppc64le SMP preempt mod_unload modversions "
    made = Object(arch="ppc64le", flags=2, sections={".stubs": b"1"}, modinfo=("license=GPL", magic))
    assert ids(kernel, made) == []
    assert ids(kernel, replace(made, flags=1)) == ["kmod-architecture"]


def test_a_file_is_read_packed_or_not(rhel: KernelFiles, tmp_path: Path) -> None:
    path = tmp_path / "made.ko.gz"
    path.write_bytes(gzip.compress(Object().packed()))
    kmod = read_kmod_file("made.ko", path, rhel)
    assert isinstance(kmod, KernelObject)
    assert kmod.name == "made"
    path.write_bytes(b"")
    got = "an empty file"
    assert read_kmod_file("made.ko", path, rhel) == findings.KMOD_NOT_LOADABLE(kmod="made.ko", got=got, kernel=RHEL9)
