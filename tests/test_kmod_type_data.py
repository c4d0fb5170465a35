"""Type data (BTF): what fits a kernel, what does not, and what is left open."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.symvers import Symvers
from kmm_preflight.kmod.type_data import TypeData, kernel_type_data, missing_types

from .loader_cases import RHEL9, configured, ids, make_symvers, rhel9
from .objects import Object

INT, POINTER, STRUCT, TYPEDEF = 1, 2, 4, 8
NUMBER = struct.pack("<I", 32 | 1 << 24)
SAME = ("license=GPL", f"vermagic={RHEL9} SMP preempt mod_unload modversions ")


def type_of(kind: int, name: int, value: int, extra: bytes = b"", parts: int = 0, order: str = "<") -> bytes:
    """Return a type."""
    return struct.pack(f"{order}III", name, kind << 24 | parts, value) + extra


def data_of(types: Sequence[bytes], names: bytes, order: str = "<", head: int = 24) -> bytes:
    """Return type data."""
    body = b"".join(types)
    header = struct.pack(f"{order}HBBIIIII", 0xEB9F, 1, 0, head, 0, len(body), len(body), len(names))
    return header.ljust(head, b"\0") + body + names


KERNEL = data_of([type_of(INT, 1, 4, NUMBER), type_of(STRUCT, 5, 8)], b"\0int\0page\0")
# Number 3 and offset 10 are the first of a kmod.
FITTING = data_of([type_of(POINTER, 0, 2), type_of(TYPEDEF, 10, 3)], b"mine\0")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> KernelFiles:
    """Return a kernel of RHEL that refuses type data that does not fit, with its own type data."""
    symvers: Symvers = make_symvers(tmp_path_factory.mktemp("symvers"))
    return replace(configured(rhel9(symvers), "DEBUG_INFO_BTF_MODULES"), type_data=TypeData(KERNEL, "<"))


def judged(kernel: KernelFiles, data: bytes, base: bytes | None = None) -> list[str]:
    """Return the ids of the findings about a kmod with this type data."""
    sections = {".BTF": data, **({} if base is None else {".BTF.base": base})}
    return ids(kernel, Object(sections=sections, modinfo=SAME))


def test_type_data_that_fits(strict: KernelFiles) -> None:
    assert judged(strict, FITTING) == []
    assert judged(strict, b"") == [], "an empty section counts as none"


UNFIT = {
    "nothing": b"data",
    "a name behind the last name": data_of([type_of(TYPEDEF, 15, 2)], b"mine\0"),
    "a name that is no identifier": data_of([type_of(TYPEDEF, 10, 2)], b"m-ne\0"),
    "a pointer with a name": data_of([type_of(POINTER, 10, 2)], b"mine\0"),
    "a name without an end": data_of([type_of(TYPEDEF, 10, 2)], b"mine"),
    "an unknown kind": data_of([type_of(31, 10, 2)], b"mine\0"),
    "a type that is cut short": data_of([type_of(STRUCT, 10, 8, parts=1)], b"mine\0"),
    "a member beyond its structure": data_of([type_of(STRUCT, 10, 8, struct.pack("<III", 0, 1, 65), 1)], b"mine\0"),
    "a gap": data_of([type_of(POINTER, 0, 2)], b"mine\0") + b"\0",
    "another byte order": data_of([type_of(POINTER, 0, 2, order=">")], b"mine\0", ">"),
}


@pytest.mark.parametrize("label", UNFIT)
def test_type_data_that_does_not_fit(strict: KernelFiles, label: str) -> None:
    assert judged(strict, UNFIT[label]) == ["kmod-btf-unfit"]
    assert judged(configured(strict, "DEBUG_INFO_BTF_MODULES", "MODULE_ALLOW_BTF_MISMATCH"), UNFIT[label]) == []
    assert judged(configured(strict), UNFIT[label]) == []


def test_another_build_of_the_same_release_does_not_fit(strict: KernelFiles) -> None:
    other = data_of([type_of(INT, 1, 4, NUMBER), type_of(STRUCT, 5, 8)], b"\0int\0pages\0")
    assert judged(replace(strict, type_data=TypeData(other, "<")), FITTING) == ["kmod-btf-unfit"]


def test_a_number_behind_the_last_type_leaves_it_open(strict: KernelFiles) -> None:
    assert judged(strict, data_of([type_of(POINTER, 0, 4)], b"mine\0")) == ["kmod-btf"]


def test_names_that_do_not_begin_where_they_are_used_leave_it_open(strict: KernelFiles) -> None:
    assert judged(strict, data_of([type_of(TYPEDEF, 12, 2)], b"mine\0")) == ["kmod-btf"]
    assert judged(strict, data_of([], b"", head=32)[:24] + b"\1" * 8) == ["kmod-btf"], "fields of a newer format"


def test_without_the_type_data_of_the_kernel_it_is_open(strict: KernelFiles) -> None:
    assert judged(replace(strict, type_data=None), FITTING) == ["kmod-btf"]
    assert judged(replace(strict, type_data=None, configuration=None), FITTING)[-1] == "kernel-input-missing"


def test_copies_of_the_types_that_a_kmod_needs(strict: KernelFiles) -> None:
    newer = replace(strict, release="6.12.0-1.el10.x86_64")
    base = data_of([type_of(STRUCT, 1, 8)], b"\0page\0")
    own = data_of([type_of(POINTER, 0, 1), type_of(TYPEDEF, 6, 2)], b"mine\0")
    assert judged(newer, own, base) == []
    assert judged(newer, own, data_of([type_of(STRUCT, 1, 16)], b"\0page\0")) == ["kmod-btf"]
    assert judged(newer, own, data_of([type_of(STRUCT, 1, 8)], b"\0pagf\0")) == ["kmod-btf"]
    assert judged(newer, own, b"damaged") == ["kmod-btf-unfit"]
    assert judged(strict, own, base) == ["kmod-btf"], "only kernels since 6.11 read the copies"


def test_a_kernel_of_the_other_byte_order() -> None:
    kernel = TypeData(data_of([type_of(STRUCT, 1, 8, order=">")], b"\0page\0", ">"), ">")
    own = TypeData(data_of([type_of(POINTER, 0, 1, order=">")], b"", ">"), ">", kernel)
    own.check()
    assert (kernel.end_of_numbers, kernel.end_of_names, own.end_of_numbers) == (2, 6, 3)
    with pytest.raises(Malformed):
        TypeData(data_of([], b"\0"), ">")


def test_the_type_data_of_a_kernel_is_in_its_vmlinux() -> None:
    from .real.unstable import headers, release

    vmlinux = (headers(release()) / "vmlinux").read_bytes()
    data = kernel_type_data(vmlinux, "<")
    assert data is not None
    data.check()
    assert data.end_of_numbers > 50_000
    assert missing_types(data, data) == []
    for damaged in (b"", vmlinux[:60], vmlinux[:5000], vmlinux[:-3000], b"\x7fELF" * 100):
        assert kernel_type_data(damaged, "<") is None


def test_in_tree_kmods_fit_their_kernel() -> None:
    from .debian_kernels import in_tree_bytes, kernel_files
    from .real.kernels import in_tree_dependencies
    from .real.unstable import release

    kernel = kernel_files(release())
    assert kernel.type_data is not None
    from kmm_preflight.kmod.object import read_object

    for name in sorted(in_tree_dependencies(release()))[::20]:
        kmod = read_object(in_tree_bytes(release(), name), kernel.machine)
        own = TypeData(kmod.type_data, "<", kernel.type_data)
        own.check()
        assert own.fits_exactly(), name
