"""Symbols and names that a kmod shares with the kernel and with other kmods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.machine import MACHINES
from kmm_preflight.kmod.resolution import OtherKmods, is_reserved_for
from kmm_preflight.kmod.symvers import Symvers, SymversStore

from .loader_cases import (
    DEVICE_ADD,
    PROPRIETARY,
    RHEL8,
    SPACED,
    SYMVERS,
    configuration,
    configured,
    exporting,
    ids,
    make_symvers,
    read,
    rhel9,
    using,
)
from .objects import Object, Symbol


@pytest.fixture(scope="module")
def symvers(tmp_path_factory: pytest.TempPathFactory) -> Symvers:
    return make_symvers(tmp_path_factory.mktemp("symvers"))


@pytest.fixture
def rhel(symvers: Symvers) -> KernelFiles:
    return rhel9(symvers)


def test_a_missing_namespace_is_allowed_by_some_kernels(rhel: KernelFiles, symvers: Symvers) -> None:
    kmod = using("spaced", versions=[SPACED])
    assert ids(configured(rhel, "MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS"), kmod) == []
    assert ids(KernelFiles(RHEL8, "amd64", symvers, configuration()), kmod) == []


def test_a_name_that_the_kernel_has_already(rhel: KernelFiles) -> None:
    kernel = replace(rhel, in_tree=frozenset({"in_tree"}), with_parameters=frozenset({"work_queue"}))
    assert ids(kernel, Object(name="in_tree")) == ["kmod-name-in-tree"]
    assert ids(kernel, Object(name="in_tree"), OtherKmods(removed=frozenset({"in_tree"}))) == []
    assert ids(kernel, Object(name="work-queue")) == ["kmod-name-built-in"]


def test_a_loaded_in_tree_kmod_provides_its_symbols(rhel: KernelFiles) -> None:
    loaded = OtherKmods(in_tree=frozenset({"ib_core"}))
    assert ids(rhel, using("ib_open", versions=[("ib_open", 0x5555)]), loaded) == []
    assert ids(rhel, exporting("ib_open"), loaded) == ["kmod-exports-clash"]


def test_a_kmod_of_the_image_provides_its_symbols(rhel: KernelFiles) -> None:
    gives = read(replace(exporting("mine"), name="gives"))
    uses = using("mine", versions=[("mine", 0x7777)])
    assert ids(rhel, uses, OtherKmods(before=(gives,))) == []
    assert ids(rhel, uses, OtherKmods(not_loaded=(gives,))) == ["kmod-order"]
    assert ids(rhel, using("mine", versions=[("mine", 1)]), OtherKmods(before=(gives,))) == ["kmod-symbols-differ"]
    assert ids(rhel, exporting("mine"), OtherKmods(before=(gives,))) == ["kmod-exports-clash"]


def test_a_kmod_of_the_image_replaces_the_in_tree_kmod(rhel: KernelFiles) -> None:
    gives = read(replace(exporting("ib_open"), name="ib_core"))
    assert ids(rhel, using("ib_open", versions=[("ib_open", 0x7777)]), OtherKmods(before=(gives,))) == []


def test_a_proprietary_owner_makes_its_users_proprietary(rhel: KernelFiles, symvers: Symvers) -> None:
    owner = OtherKmods(before=(read(exporting("mine", name="owner", modinfo=PROPRIETARY)),))
    versions = [("mine", 0x7777), DEVICE_ADD]
    assert ids(rhel, using("mine", "device_add", versions=versions), owner) == ["kmod-symbols-gpl"]
    assert ids(rhel, using("device_add", "mine", versions=versions), owner) == ["kmod-proprietary-owner"]
    itself = OtherKmods(before=(read(exporting("mine", table="__ksymtab_gpl", modinfo=PROPRIETARY)),))
    assert ids(rhel, using("mine", versions=versions), itself) == ["kmod-proprietary-owner"], (
        "the symbol is GPL-only and its owner is proprietary"
    )
    assert (
        ids(
            KernelFiles(RHEL8, "amd64", symvers, configuration()), using("mine", "device_add", versions=versions), owner
        )
        == []
    )


def newer(kernel: KernelFiles, release: str = "7.1.0-1.el11.x86_64", arch: str = "amd64") -> KernelFiles:
    """Return the kernel under the name of a release that reads flags of exports."""
    return replace(kernel, release=release, arch=arch)


def flagged(arch: str, flags: bytes) -> Object:
    """Return a kmod with two exports, mine and yours, and the flags of both."""
    size = 12 if arch in ("amd64", "arm64") else 24
    symbols = [Symbol("__ksymtab_mine", "__ksymtab", 0), Symbol("__ksymtab_yours", "__ksymtab", size)]
    sections = {"__ksymtab": bytes(2 * size), "__kcrctab": bytes(8), "__kflagstab": flags}
    return Object(arch, name="gives", symbols=symbols, sections=sections)


@pytest.mark.parametrize("arch", MACHINES)
@pytest.mark.parametrize(
    ("flags", "refused"),
    [(b"\0\0", []), (b"\1\0", ["mine"]), (b"\0\1", ["yours"]), (b"\2\3", ["yours"]), (b"", [])],
)
def test_flags_of_exports_say_which_are_for_gpl_only(
    rhel: KernelFiles, arch: str, flags: bytes, refused: list[str]
) -> None:
    kernel = newer(rhel, arch=arch)
    given = read(flagged(arch, flags)).as_read_by(kernel.version)
    assert [name for name, export in given.exports.items() if export.gpl] == refused
    older = read(flagged(arch, flags)).as_read_by((6, 12))
    assert not any(export.gpl for export in older.exports.values())  # older kernels have a table of its own for that


def test_newer_kernels_ignore_the_table_for_gpl_only(rhel: KernelFiles) -> None:
    obsolete = read(exporting("mine", table="__ksymtab_gpl", name="gives"))
    assert not obsolete.as_read_by((7, 1)).exports
    assert obsolete.as_read_by((7, 0)).exports["mine"].gpl


def test_newer_kernels_refuse_exports_without_flags(rhel: KernelFiles) -> None:
    without = exporting("mine")
    assert ids(newer(rhel), without) == ["kmod-sections"]
    assert ids(newer(rhel, "7.0.9-1.el11.x86_64"), without) == []
    assert ids(newer(rhel), replace(without, sections={**without.sections, "__kflagstab": b"\0"})) == []


@pytest.mark.parametrize(
    ("namespace", "kmod", "allowed"),
    [
        ("module:made", "made", True),
        ("module:other,made", "made", True),
        ("module:ma*", "made", True),
        ("module:*", "made", True),
        ("module:made*", "made", True),
        ("module:ma-de", "ma_de", True),
        ("module:ma_de", "ma-de", True),
        ("module:mad", "made", False),
        ("module:maden", "made", False),
        ("module:made ", "made", False),
        ("module:", "made", False),
        ("module:,", "made", False),
        ("MODULE:made", "made", False),
        ("made", "made", False),
    ],
)
def test_a_namespace_names_the_kmods_that_may_use_it(namespace: str, kmod: str, allowed: bool) -> None:
    assert is_reserved_for(namespace, kmod) is allowed


def test_a_symbol_for_kmods_of_other_names_is_refused_since_6_16(tmp_path: Path, rhel: KernelFiles) -> None:
    line = b"0x00004444\tspaced\tvmlinux\tEXPORT_SYMBOL_GPL\tmodule:some,other*\n"
    symvers = SymversStore(tmp_path).keep(f"sha256:{1:064}", [SYMVERS.encode(), line.replace(b"spaced", b"kept_back")])
    kernel = replace(newer(rhel, "6.16.0-1.el10.x86_64"), symvers=symvers)
    user = using("kept_back", versions=[("kept_back", 0x4444)])
    assert ids(kernel, user) == ["kmod-namespace-reserved"]
    assert ids(kernel, replace(user, name="other_one")) == []
    importing = replace(user, modinfo=(*user.modinfo, "import_ns=module:some,other*"))
    assert ids(kernel, importing) == ["kmod-namespace-import"]
    older = replace(kernel, release="6.12.0-1.el10.x86_64")
    assert ids(older, user) == ["kmod-namespace"]
    assert ids(older, importing) == []
