"""Sections and ABI on architectures that no machine of the tests has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kmm_preflight.kmod import findings
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import read_kmod
from kmm_preflight.kmod.symvers import Symvers

from .loader_cases import (
    LAYOUT,
    RHEL9,
    configuration,
    ids,
    make_symvers,
    rhel9,
)
from .objects import Object, Symbol


@pytest.fixture(scope="module")
def symvers(tmp_path_factory: pytest.TempPathFactory) -> Symvers:
    return make_symvers(tmp_path_factory.mktemp("symvers"))


@pytest.fixture
def rhel(symvers: Symvers) -> KernelFiles:
    return rhel9(symvers)


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
def test_other_architectures(
    arch: str, magic: str, options: tuple[str, ...], sections: dict[str, bytes], symvers: Symvers
) -> None:
    kernel = KernelFiles(f"5.14.0-570.el9.{arch}", arch, symvers, configuration(*options))
    kmod = Object(
        arch=arch,
        modinfo=("license=GPL", f"vermagic=5.14.0-1.el9 {magic}"),
        symbols=[Symbol("printk"), Symbol(".TOC.")] if arch == "ppc64le" else [Symbol("printk")],
        versions=(LAYOUT, (".printk" if arch == "ppc64le" else "printk", 0x2222)),
        sections=sections,
    )
    assert ids(kernel, kmod) == []
    assert ids(kernel, replace(kmod, sections={})) == (["kmod-sections"] if sections else [])
    assert ids(kernel, replace(kmod, versions=(LAYOUT, ("printk", 0x2222 << 32)))) == ["kmod-symbols-differ"]
    wrong = read_kmod("made.ko", kmod.packed(), KernelFiles(RHEL9, "amd64", symvers, None))
    assert wrong == findings.KMOD_ARCHITECTURE(kmod="made.ko", got=kernel.machine.word, expected="x86_64")


def test_kernels_since_6_12_check_the_abi_of_ppc64(symvers: Symvers) -> None:
    kernel = KernelFiles("6.12.0-55.el10.ppc64le", "ppc64le", symvers, configuration())
    magic = "vermagic=6.12.0-55.el10.ppc64le SMP preempt mod_unload modversions "
    kmod = Object(arch="ppc64le", flags=2, sections={".stubs": b"1"}, modinfo=("license=GPL", magic))
    assert ids(kernel, kmod) == []
    assert ids(kernel, replace(kmod, flags=1)) == ["kmod-architecture"]
