"""Kmods with damage outside their code: if the suite accepts one, the kernel's own loader accepts it too."""

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
ACCEPTED = 300


@pytest.fixture(scope="module", params=["6.1", "unstable"])
def kernel(request: pytest.FixtureRequest) -> KernelFiles:
    """Return the newest plain kernel, and the newest of Debian unstable, which checks type data too."""
    from .debian_kernels import build_kernels, kernel_files
    from .real.unstable import release

    return kernel_files(build_kernels()[2] if request.param == "6.1" else release())


def is_accepted(data: bytes, kernel: KernelFiles) -> bool:
    """True if no finding refutes the kmod and no finding is undecided."""
    try:
        kmod = read_kmod("mutated.ko", data, kernel)
        results = (kmod,) if isinstance(kmod, Finding) else judge_kmod("mutated.ko", kmod, kernel)
    except BoundExceeded:
        return False
    return all(finding.severity not in (Severity.REFUTES, Severity.UNDECIDED) for finding in results)


def accepted_mutants(kernel: KernelFiles) -> Iterator[bytes]:
    from .real.drivers import small_kmods

    return (kmod for kmod in mutants(small_kmods(kernel.release), Random(SEED)) if is_accepted(kmod, kernel))


def test_the_kernel_loads_every_damaged_kmod_that_the_suite_accepts(kernel: KernelFiles) -> None:
    from .real.qemu import LoadTrial, answers

    trials = [LoadTrial(kmod) for kmod in islice(accepted_mutants(kernel), ACCEPTED)]
    results = answers(kernel.release, trials)
    assert [answer for answer in results if not answer.loaded or answer.errno] == []
