"""The version of a kernel, with the architecture and flavour that are part of it."""

from __future__ import annotations

import re

from kmm_preflight.model import Flavour

# uname -r holds at most 64 characters. RHEL: 5.14.0-570.el9_6.x86_64+rt; Debian: 6.1.0-28-rt-amd64, 6.12.9+bpo-amd64.
_KERNEL = re.compile(r"\d{1,3}\.\d{1,4}\.\d{1,5}([-.+~_][0-9A-Za-z._~+-]*)?")
_CHARACTERS = 64
_RT = re.compile(r"\+rt\b|-rt-|\.rt\d")

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "ppc64le", "s390x": "s390x"}
"""The kernel's spelling of each architecture, by Go's spelling, which image platforms and nodes use."""

_SPELLINGS = {kernel: go for go, kernel in ARCHITECTURES.items()} | {"ppc64el": "ppc64le", "powerpc64le": "ppc64le"}


def looks_like_kernel(text: str) -> bool:
    """True if the text can be a kernel's version. False for rpm's words about a package that is not installed."""
    return len(text) <= _CHARACTERS and bool(_KERNEL.fullmatch(text)) and text.isascii()


def architecture(text: str) -> str | None:
    """Return Go's spelling of an architecture, from Go's or the kernel's spelling. None for an unknown architecture."""
    return text if text in ARCHITECTURES else _SPELLINGS.get(text)


def kernel_architecture(version: str) -> str | None:
    """Return the architecture at the end of a kernel's version, in Go's spelling, or None."""
    base = version.partition("+rt")[0].partition("+64k")[0]
    return architecture(re.split(r"[.-]", base)[-1].partition("+")[0])


def given_architecture(version: str, arches: tuple[str, ...]) -> str:
    """Return the architecture of a kernel of an option: from its version, else the first of arches, else amd64."""
    chosen = [arch for arch in arches if arch in ARCHITECTURES]
    return kernel_architecture(version) or (chosen[0] if chosen else "amd64")


def kernel_flavour(version: str) -> Flavour:
    """Return the flavour of a kernel, from its version."""
    if "+64k" in version:
        return Flavour.PAGES_64K
    return Flavour.RT if _RT.search(version) else Flavour.STANDARD
