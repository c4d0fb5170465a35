"""What is still green after damage outside its code, before the kernel's own loader."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import judge_kmod, read_kmod
from kmm_preflight.model import Finding, Severity

from .mutants import mutants

SEED = 6
GREENS = 300


@pytest.fixture(scope="module")
def kernel() -> KernelFiles:
    """The newest plain kernel."""
    from .loader_truth import builds, known

    return known(builds()[2])


def is_green(data: bytes, kernel: KernelFiles) -> bool:
    """Whether nothing refutes it and nothing is undecided."""
    try:
        kmod = read_kmod("mutated.ko", data, kernel)
        found = (kmod,) if isinstance(kmod, Finding) else judge_kmod("mutated.ko", kmod, kernel)
    except BoundExceeded:
        return False
    return all(one.severity not in (Severity.REFUTES, Severity.UNDECIDED) for one in found)


def greens(kernel: KernelFiles) -> Iterator[bytes]:
    from .real.drivers import singles

    return (kmod for kmod in mutants(singles(kernel.release), Random(SEED)) if is_green(kmod, kernel))


def test_the_kernel_refuses_no_mutated_kmod_that_is_green(kernel: KernelFiles) -> None:
    from .real.qemu import Trial, answers

    asked = list(islice(greens(kernel), GREENS))
    told = answers(kernel.release, [Trial(kmod) for kmod in asked])
    assert [one for one in told if not one.loaded or one.errno] == []
