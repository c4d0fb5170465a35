"""Damaged and hostile kmods: each ends in a finding or in BoundExceeded, soon and with little memory."""

from __future__ import annotations

import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

import pytest

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import judge_kmod, read_kmod
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.model import Finding

from .objects import ABSOLUTE, COMMON, Object, Symbol

if sys.version_info >= (3, 14):
    pass
else:
    pass

SEED = 6


@pytest.fixture(scope="module")
def small() -> Mapping[str, bytes]:
    """Return the small kmods for the newest plain kernel, by name."""
    from .debian_kernels import build_kernels
    from .real.drivers import small_kmods

    return small_kmods(build_kernels()[2])


@pytest.fixture(scope="module")
def kernel() -> KernelFiles:
    """Return the newest plain kernel."""
    from .debian_kernels import build_kernels, kernel_files

    return kernel_files(build_kernels()[2])


def mutated(kmod: bytes, chance: random.Random) -> bytes:
    """Return the kmod with bytes changed in headers, tables or anywhere, cut short or with more bytes."""
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


def test_a_damaged_kmod_ends_in_findings_soon(small: Mapping[str, bytes], kernel: KernelFiles) -> None:
    chance, counts = random.Random(SEED), Counter[str]()
    kmods = [small[name] for name in ("pf_gives", "pf_takes", "pf_gpl", "pf_namespace")]
    before, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    for _ in range(10_000):
        data = mutated(chance.choice(kmods), chance)
        start = time.perf_counter()
        try:
            kmod = read_kmod("mutated.ko", data, kernel)
            results = (kmod,) if isinstance(kmod, Finding) else judge_kmod("mutated.ko", kmod, kernel)
            counts.update(finding.id for finding in results)
            counts["loads"] += not results
        except BoundExceeded:
            counts["bound"] += 1
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10, "KiB"
    assert counts["kmod-not-loadable"] > 1000
    assert counts["loads"] > 100


def test_a_header_with_large_numbers_costs_little(kernel: KernelFiles) -> None:
    chance = random.Random(SEED)
    for _ in range(200):
        data = b"\x7fELF" + bytes(12) + b"\1\0\x3e\0" + chance.randbytes(38) + b"\x40\0\xff\xff\1\0" + bytes(1 << 16)
        assert isinstance(read_kmod("claims.ko", data, kernel), Finding)


HOSTILE: dict[str, Object] = {
    "names that all start with one prefix": Object(
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
def test_an_object_with_large_tables_costs_little(label: str, kernel: KernelFiles) -> None:
    data = HOSTILE[label].packed()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with suppress(BoundExceeded):
        kmod = read_kmod("hostile.ko", data, kernel)
        if isinstance(kmod, KernelObject):
            judge_kmod("hostile.ko", kmod, kernel)
    assert time.perf_counter() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 << 10, "KiB"


def test_a_driver_is_judged_in_milliseconds(kernel: KernelFiles) -> None:
    from .real.drivers import drivers

    kmods = list(drivers(kernel.release).values())
    start = time.perf_counter()
    for data in kmods:
        kmod = read_kmod("driver.ko", data, kernel)
        assert isinstance(kmod, KernelObject)
        judge_kmod("driver.ko", kmod, kernel)
    assert (time.perf_counter() - start) / len(kmods) < 0.05
