"""Debian's kernels for other architectures than this machine's. Their packages are unpacked, not installed."""

from __future__ import annotations

import hashlib
import re
import shutil
from functools import cache
from pathlib import Path

from .cache import kept
from .drivers import SMALL
from .kernels import unpack_image_parts
from .kmod import headers as amd64_headers
from .kmod import run, run_checked
from .requirement import need, need_tool

# Architectures by Go's spelling: Debian's spelling, and the end of a kernel's name.
ARCHITECTURES = {"arm64": ("arm64", "arm64"), "ppc64le": ("ppc64el", "powerpc64le"), "s390x": ("s390x", "s390x")}
_ENABLE = "a Debian 12 machine with its own sources of packages"


@cache
def release(arch: str) -> str:
    """Return the newest 6.1 release of the architecture on the mirror."""
    kernel = ARCHITECTURES[arch][1]
    output = _apt(arch, "apt-cache", "search", "--names-only", rf"^linux-headers-6\.1\.0-[0-9]+-{kernel}$")
    releases = re.findall(rf"^linux-headers-(6\.1\.0-\d+-{kernel}) ", output, re.MULTILINE)
    need(f"a kernel of Debian for {arch}", bool(releases), _ENABLE)
    return str(max(releases, key=lambda name: int(name.split("-")[1])))


def headers(arch: str) -> Path:
    """Return the folder with Module.symvers, .config and utsrelease.h of the architecture's kernel."""
    return _packages(arch) / f"usr/src/linux-headers-{release(arch)}"


def in_tree(arch: str) -> Path:
    """Return the folder with some in-tree kmods of the architecture's kernel."""
    return _packages(arch) / "lib/modules" / release(arch)


def vmlinuz(arch: str) -> Path:
    """Return the architecture's kernel as a boot loader starts it."""
    return _packages(arch) / f"boot/vmlinuz-{release(arch)}"


def small_kmods() -> dict[str, bytes]:
    """Return the small kmods for arm64, from a cross compiler. The one with x86 assembler code is left out."""
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SMALL.iterdir()))).hexdigest()[:12]
    folder = kept(f"singles/{release('arm64')}/{version}", _cross_compile)
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.ko"))}


def _cross_compile(scratch: Path) -> Path:
    """Compile with this machine's build tools.

    Debian's header packages share all files except the generated ones.
    """
    compiler = need_tool("aarch64-linux-gnu-gcc-12", "apt-get install gcc-12-aarch64-linux-gnu")
    kernel = release("arm64")
    host = amd64_headers(kernel.replace("-arm64", "-amd64")).parent.parent
    tree = scratch / "tree/usr"
    shutil.copytree(headers("arm64"), tree / "src" / headers("arm64").name, symlinks=True)
    (common,) = (host / "src").glob("*-common")
    (tree / "src" / common.name).symlink_to(common)
    (tree / "lib").symlink_to(host / "lib")
    (tree / "src" / headers("arm64").name / "Makefile").write_text(f"include ../{common.name}/Makefile\n")
    work = scratch / "work"
    shutil.copytree(SMALL, work)
    (work / "pf_writable_code.c").unlink()
    objects = " ".join(f"{path.stem}.o" for path in sorted(work.glob("*.c")))
    (work / "Kbuild").write_text(f"obj-m := {objects}\nCFLAGS_pf_common.o := -fcommon\n")
    arguments = ["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", f"CC={compiler}", "KBUILD_MODPOST_WARN=1"]
    build = str(tree / "src" / headers("arm64").name)
    run_checked(["make", "-j2", "-C", build, f"M={work}", *arguments, "modules"], work)
    result = scratch / "made"
    result.mkdir()
    for path in work.glob("*.ko"):
        path.rename(result / path.name)
    return result


def _packages(arch: str) -> Path:
    return kept(f"foreign-{release(arch)}", lambda scratch: _unpack(arch, scratch))


def _unpack(arch: str, scratch: Path) -> Path:
    names = [f"linux-headers-{release(arch)}", f"linux-image-{release(arch)}"]
    if arch == "arm64":
        names[1] += "-unsigned"
    output = _apt(arch, "apt-get", "download", *names, folder=scratch)
    archives = sorted(scratch.glob("*.deb"))
    need(f"the packages {names}", len(archives) == len(names), f"{_ENABLE} ({output[-300:]})")
    tree = scratch / "tree"
    run_checked(["dpkg-deb", "-x", str(archives[0]), str(tree)], scratch)
    unpack_image_parts(archives[1], tree)
    return tree


def _apt(arch: str, tool: str, *words: str, folder: Path = Path("/")) -> str:
    """Return the output of an apt tool that uses package lists of its own, not those of the machine."""
    state = kept(f"apt-{ARCHITECTURES[arch][0]}", lambda scratch: _lists(arch, scratch))
    return run([need_tool(tool, _ENABLE), *_options(arch, state), *words], folder).stdout


def _options(arch: str, state: Path) -> list[str]:
    debian = ARCHITECTURES[arch][0]
    options = {
        "APT::Architecture": debian,
        "APT::Architectures": debian,
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "Dir::State::status": state / "status",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::Languages": "none",
    }
    return [f"-o{name}={value}" for name, value in options.items()]


def _lists(arch: str, scratch: Path) -> Path:
    state = scratch / "state"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    run([need_tool("apt-get", _ENABLE), *_options(arch, state), "update"], scratch)
    need(f"lists of packages for {arch}", any(state.glob("lists/*_Packages*")), _ENABLE)
    return state
