"""Symbols and names that a kmod shares with the kernel and with other kmods."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.resolution import OtherKmods
from kmm_preflight.kmod.symvers import Symvers

from .loader_cases import (
    DEVICE_ADD,
    PROPRIETARY,
    RHEL8,
    SPACED,
    configuration,
    configured,
    exporting,
    ids,
    make_symvers,
    read,
    rhel9,
    using,
)
from .objects import Object


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
