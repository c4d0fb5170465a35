"""Kernel versions of RHEL, Debian and Fedora, and texts that are not kernel versions."""

from __future__ import annotations

import pytest

from kmm_preflight.kernel_version import (
    architecture,
    given_architecture,
    kernel_architecture,
    kernel_flavour,
    looks_like_kernel,
)
from kmm_preflight.model import Flavour

STANDARD, RT, PAGES_64K = Flavour.STANDARD, Flavour.RT, Flavour.PAGES_64K


@pytest.mark.parametrize(
    ("version", "arch", "flavour"),
    [
        ("5.14.0-570.19.1.el9_6.x86_64", "amd64", STANDARD),
        ("5.14.0-570.19.1.el9_6.x86_64+rt", "amd64", RT),
        ("5.14.0-570.19.1.el9_6.x86_64+debug", "amd64", STANDARD),
        ("5.14.0-570.19.1.el9_6.aarch64", "arm64", STANDARD),
        ("5.14.0-570.19.1.el9_6.aarch64+64k", "arm64", PAGES_64K),
        ("5.14.0-570.19.1.el9_6.aarch64+64k-debug", "arm64", PAGES_64K),
        ("6.12.0-55.9.1.el10_0.ppc64le", "ppc64le", STANDARD),
        ("6.12.0-55.9.1.el10_0.s390x", "s390x", STANDARD),
        ("5.14.0-284.11.1.rt14.296.el9_2.x86_64", "amd64", RT),
        ("4.18.0-305.rt7.72.el8.x86_64", "amd64", RT),
        ("4.18.0-305.10.2.el8_4", None, STANDARD),
        ("6.0.15-300.fc37.x86_64", "amd64", STANDARD),
        ("6.1.0-28-amd64", "amd64", STANDARD),
        ("6.1.0-28-rt-amd64", "amd64", RT),
        ("6.1.0-28-cloud-amd64", "amd64", STANDARD),
        ("6.1.0-28-cloud-arm64", "arm64", STANDARD),
        ("6.1.0-28-powerpc64le", "ppc64le", STANDARD),
        ("6.12.9+bpo-amd64", "amd64", STANDARD),
        ("6.12.38+deb13-amd64", "amd64", STANDARD),
        ("6.12.38+deb13-rt-amd64", "amd64", RT),
        ("6.12.38+deb13-cloud-arm64", "arm64", STANDARD),
        ("5.15.0-25-generic", None, STANDARD),
        ("6.1.0-rc3+", None, STANDARD),
        ("6.6.0", None, STANDARD),
    ],
)
def test_kernel_versions(version: str, arch: str | None, flavour: Flavour) -> None:
    assert (looks_like_kernel(version), kernel_architecture(version), kernel_flavour(version)) == (True, arch, flavour)


@pytest.mark.parametrize(
    "text",
    [
        "", "test", "5.14", "package kernel-rt-core is not installed", "kernel-5.14.0", "5.14.0 ", " 5.14.0",
        "5.14.0-1/../../etc", "5.14.0-$(id)", "5.14.0-é", "\u0665.14.0", "5.14.0\n", "5.14.0-" + "x" * 58, "5.14.0x",
        "5.14.0-570.el9.x86_64 5.14.0-571.el9.x86_64", "(none)", "v5.14.0",
    ],
)  # fmt: skip
def test_texts_that_are_not_kernel_versions(text: str) -> None:
    assert not looks_like_kernel(text)


def test_a_version_has_at_most_64_characters() -> None:
    assert looks_like_kernel("5.14.0-" + "x" * 57)


@pytest.mark.parametrize(
    ("text", "arch"),
    [("amd64", "amd64"), ("x86_64", "amd64"), ("aarch64", "arm64"), ("arm64", "arm64"), ("ppc64el", "ppc64le"),
     ("ppc64le", "ppc64le"), ("s390x", "s390x"), ("riscv64", None), ("", None), ("AMD64", None)],
)  # fmt: skip
def test_architecture(text: str, arch: str | None) -> None:
    assert architecture(text) == arch


@pytest.mark.parametrize(
    ("version", "arches", "arch"),
    [
        ("5.14.0-570.el9_6.s390x", (), "s390x"),
        ("5.14.0-570.el9_6.s390x", ("arm64",), "s390x"),
        ("6.6.0", (), "amd64"),
        ("6.6.0", ("multi",), "amd64"),
        ("6.6.0", ("multi", "arm64", "s390x"), "arm64"),
    ],
)
def test_architecture_of_a_kernel_of_an_option(version: str, arches: tuple[str, ...], arch: str) -> None:
    assert given_architecture(version, arches) == arch
