"""Kernels of architectures that this machine is not: packages of Debian for them, of which nothing is installed."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from .cache import kept
from .kernels import image_parts
from .kmod import checked, run
from .requirement import need, need_tool

# Go's spelling to Debian's, and to the end of a kernel's name there.
ARCHITECTURES = {"arm64": ("arm64", "arm64"), "ppc64le": ("ppc64el", "powerpc64le"), "s390x": ("s390x", "s390x")}
_ENABLE = "a Debian 12 machine with its own sources of packages"


@cache
def release(arch: str) -> str:
    """The newest 6.1 of the architecture that the mirror has."""
    kernel = ARCHITECTURES[arch][1]
    found = _apt(arch, "apt-cache", "search", "--names-only", rf"^linux-headers-6\.1\.0-[0-9]+-{kernel}$")
    releases = re.findall(rf"^linux-headers-(6\.1\.0-\d+-{kernel}) ", found, re.MULTILINE)
    need(f"a kernel of Debian for {arch}", bool(releases), _ENABLE)
    return str(max(releases, key=lambda one: int(one.split("-")[1])))


def headers(arch: str) -> Path:
    """Module.symvers, .config and utsrelease.h of that kernel."""
    return _packages(arch) / f"usr/src/linux-headers-{release(arch)}"


def in_tree(arch: str) -> Path:
    """The folder of that kernel with some of its in-tree kmods."""
    return _packages(arch) / "lib/modules" / release(arch)


def _packages(arch: str) -> Path:
    return kept(f"foreign-{release(arch)}", lambda scratch: _unpack(arch, scratch))


def _unpack(arch: str, scratch: Path) -> Path:
    names = [f"linux-headers-{release(arch)}", f"linux-image-{release(arch)}"]
    if arch == "arm64":
        names[1] += "-unsigned"
    told = _apt(arch, "apt-get", "download", *names, folder=scratch)
    archives = sorted(scratch.glob("*.deb"))
    need(f"the packages {names}", len(archives) == len(names), f"{_ENABLE} ({told[-300:]})")
    tree = scratch / "tree"
    checked(["dpkg-deb", "-x", str(archives[0]), str(tree)], scratch)
    image_parts(archives[1], tree)
    return tree


def _apt(arch: str, tool: str, *words: str, folder: Path = Path("/")) -> str:
    """What apt says with lists of its own, so that the machine's are as before."""
    state = kept(f"apt-{ARCHITECTURES[arch][0]}", lambda scratch: _lists(arch, scratch))
    return run([need_tool(tool, _ENABLE), *_options(arch, state), *words], folder).stdout


def _options(arch: str, state: Path) -> list[str]:
    debian = ARCHITECTURES[arch][0]
    chosen = {
        "APT::Architecture": debian,
        "APT::Architectures": debian,
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "Dir::State::status": state / "status",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::Languages": "none",
    }
    return [f"-o{name}={value}" for name, value in chosen.items()]


def _lists(arch: str, scratch: Path) -> Path:
    state = scratch / "state"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    run([need_tool("apt-get", _ENABLE), *_options(arch, state), "update"], scratch)
    need(f"lists of packages for {arch}", any(state.glob("lists/*_Packages*")), _ENABLE)
    return state
