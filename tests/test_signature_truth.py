"""The suite and kernels in QEMU agree on signatures where none is required: forms, methods and certificates inside."""

from __future__ import annotations

import pytest

from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.signature import judge_unenforced_signature
from kmm_preflight.kmod.signature_rules import signature_rules

from .signing_desk import PATH

KERNELS = ("6.1", "6.12", "unstable")
# A hash that a kernel has as a kmod of its own. Without a modprobe, as in these virtual machines, it is not found.
OF_KMODS = {"sha384": "CRYPTO_SHA512", "sha512": "CRYPTO_SHA512", "sha3": "CRYPTO_SHA3"}


def kernel_of(name: str) -> KernelFiles:
    from .debian_kernels import build_kernels, kernel_files
    from .real.unstable import release

    return kernel_files(release() if name == "unstable" else build_kernels()[2 if name == "6.1" else -1])


def is_found(label: str, kernel: KernelFiles) -> bool:
    """True if the kernel has all methods built in."""
    assert kernel.configuration is not None
    options = [option for word, option in OF_KMODS.items() if word in label]
    return not any(kernel.configuration.options.get(option) == "m" for option in options)


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernel_agrees(name: str) -> None:
    from .real.qemu import LoadTrial, answers
    from .signature_forms import signature_forms

    kernel = kernel_of(name)
    rules = signature_rules(kernel.version, kernel.configuration)
    forms = signature_forms(kernel.release)
    results = dict(zip(forms, answers(kernel.release, [LoadTrial(kmod) for kmod in forms.values()]), strict=True))
    found = {label: judge_unenforced_signature(PATH, kmod, rules) for label, kmod in forms.items()}
    differing = {
        label: (finding and finding.sentence, results[label])
        for label, finding in found.items()
        if results[label].loaded is (finding is not None) and is_found(label, kernel)
    }
    assert differing == {}
    refused = [label for label in forms if not results[label].loaded]
    assert len(refused) >= 10
    assert len(forms) - len(refused) >= 40
