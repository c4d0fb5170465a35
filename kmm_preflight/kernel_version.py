"""What a kernel's version tells: whether it is one, its architecture, its flavour."""

from __future__ import annotations

import re

from kmm_preflight.model import Flavour

# uname -r holds at most 64 characters. RHEL: 5.14.0-570.el9_6.x86_64+rt; Debian: 6.1.0-28-rt-amd64, 6.12.9+bpo-amd64.
_KERNEL = re.compile(r"\d{1,3}\.\d{1,4}\.\d{1,5}([-.+~_][0-9A-Za-z._~+-]*)?")
_CHARACTERS = 64
_RT = re.compile(r"\+rt\b|-rt-|\.rt\d")

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "ppc64le", "s390x": "s390x"}
"""Go's spelling, as in image platforms and node info, to the kernel's."""

_SPELLINGS = {kernel: go for go, kernel in ARCHITECTURES.items()} | {"ppc64el": "ppc64le", "powerpc64le": "ppc64le"}


def looks_like_kernel(text: str) -> bool:
    """Whether the text can be a kernel's version: what rpm says of a package that is missing cannot."""
    return len(text) <= _CHARACTERS and bool(_KERNEL.fullmatch(text)) and text.isascii()


def architecture(text: str) -> str | None:
    """Go's spelling of an architecture that is written either way; None for an unknown one."""
    return text if text in ARCHITECTURES else _SPELLINGS.get(text)


def kernel_architecture(version: str) -> str | None:
    """Go's architecture that the end of a kernel's version names, or None."""
    base = version.partition("+rt")[0].partition("+64k")[0]
    return architecture(re.split(r"[.-]", base)[-1].partition("+")[0])


def given_architecture(version: str, arches: tuple[str, ...]) -> str:
    """The architecture of a kernel given by hand: what its name says, else the first one chosen, else amd64."""
    chosen = [arch for arch in arches if arch in ARCHITECTURES]
    return kernel_architecture(version) or (chosen[0] if chosen else "amd64")


def kernel_flavour(version: str) -> Flavour:
    """The flavour that a kernel's version names."""
    if "+64k" in version:
        return Flavour.PAGES_64K
    return Flavour.RT if _RT.search(version) else Flavour.STANDARD
