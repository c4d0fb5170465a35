"""A kmod of another kernel build: symbol versions, version magic, struct module, live patches, BTF."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from kmm_preflight.kmod import findings
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import judge_chain, judge_kmod
from kmm_preflight.kmod.object import read_object
from kmm_preflight.kmod.symvers import Symvers

from .loader_cases import (
    RHEL9,
    configuration,
    configured,
    ids,
    make_symvers,
    read,
    rhel9,
)
from .objects import Object, Symbol
from .real.defects import section_field


@pytest.fixture(scope="module")
def symvers(tmp_path_factory: pytest.TempPathFactory) -> Symvers:
    return make_symvers(tmp_path_factory.mktemp("symvers"))


@pytest.fixture
def rhel(symvers: Symvers) -> KernelFiles:
    return rhel9(symvers)


def test_a_kernel_without_force_load_refuses_missing_versions(rhel: KernelFiles) -> None:
    strict = configured(rhel, without=["MODULE_FORCE_LOAD"])
    assert ids(strict, Object(modinfo=("license=GPL",))) == ["kmod-unversioned-refused"]
    assert "kmod-unversioned-refused" in ids(strict, Object(versions=None))


def test_a_kernel_without_versions_compares_the_whole_version_magic(rhel: KernelFiles) -> None:
    plain = configured(rhel, without=["MODVERSIONS"])
    assert ids(plain, Object()) == ["kmod-vermagic"]
    same = Object(
        versions=None, modinfo=("license=GPL", f"vermagic={RHEL9} SMP preempt mod_unload "), symbols=[Symbol("printk")]
    )
    assert ids(plain, same) == []


def test_a_livepatch_loads_if_the_kernel_supports_it(rhel: KernelFiles) -> None:
    assert ids(configured(rhel, "LIVEPATCH"), Object(modinfo=(*Object().modinfo, "livepatch=Y"))) == []


def test_struct_module_since_6_4(symvers: Symvers) -> None:
    kernel = KernelFiles("6.12.0-55.el10.x86_64", "amd64", symvers, configuration(), struct_size=1024)
    (finding,) = judge_kmod("made.ko", read(Object()), kernel)
    assert finding == findings.KMOD_OTHER_KERNEL(
        kmod="made.ko", kernel=kernel.release, got="struct module of 896 bytes", expected="1024 bytes"
    )
    assert ids(kernel, Object(struct_size=1024)) == []


def test_modinfo_that_is_not_loaded_is_read_since_6_4(rhel: KernelFiles, symvers: Symvers) -> None:
    """Debian's 6.1 loads such a kmod with a taint. Its 6.12 reads the version magic and refuses the kmod (tested)."""
    other = Object(modinfo=("license=GPL", "vermagic=5.14.0 SMP mod_unload modversions "))
    newer = KernelFiles("6.12.0-55.el10.x86_64", "amd64", symvers, configuration())
    kmod = read_object(section_field(".modinfo", 2, 0)(other.packed()), rhel.machine)
    assert [finding.id for finding in judge_kmod("made.ko", kmod, rhel)] == ["kmod-unversioned"]
    assert [finding.id for finding in judge_kmod("made.ko", kmod, newer)] == ["kmod-vermagic"]
    assert [finding.id for finding in judge_chain([("made.ko", kmod)], newer)] == ["kmod-vermagic"]


def test_extended_versions_since_6_14(symvers: Symvers) -> None:
    kernel = KernelFiles("6.15.0-1.el10.x86_64", "amd64", symvers, configuration())
    long = "printk" * 20
    extended = {
        "__version_ext_crcs": struct.pack("<3I", 0x1111, 0x2222, 7),
        "__version_ext_names": b"module_layout\0printk\0" + long.encode() + b"\0",
    }
    kmod = Object(symbols=[Symbol("printk")], versions=(("module_layout", 1),), sections=extended)
    assert ids(kernel, kmod) == []
    assert read(kmod).versions.extended == {"module_layout": 0x1111, "printk": 0x2222, long: 7}
    assert ids(kernel, replace(kmod, versions=None)) == ["kmod-vermagic"], (
        "without the basic format the release must match"
    )
