"""Kmods for tests of the loader: real drivers from Debian's -dkms packages, and small kmods of this project."""

from __future__ import annotations

import hashlib
import shutil
from functools import cache
from pathlib import Path

from .cache import kept
from .kernels import ENABLE
from .kmod import headers, run, run_checked
from .requirement import need, need_tool
from .unstable import compile_kmods, is_unstable

SMALL = Path(__file__).with_name("kmod_source") / "single"
# Small kmods that only kernels of Debian unstable know how to compile.
NEWER = Path(__file__).with_name("kmod_source") / "unstable"
# Packages, with the folders in which make runs, in order: later folders use symbols of earlier ones.
PACKAGES: dict[str, tuple[str, ...]] = {
    "acpi-call-dkms": (".",),
    "bbswitch-dkms": (".",),
    "gost-crypto-dkms": (".",),
    "lime-forensics-dkms": (".",),
    "jool-dkms": ("src/mod/common", "src/mod/nat64", "src/mod/siit"),
    "nat-rtsp-dkms": (".",),
    "openrazer-driver-dkms": ("driver",),
    "rapiddisk-dkms": (".",),
    "v4l2loopback-dkms": (".",),
    "vpoll-dkms": (".",),
    "xtables-addons-dkms": ("extensions",),
}
_ARGUMENTS = {
    "xtables-addons-dkms": ["XA_ABSTOPSRCDIR=..", "XA_TOPSRCDIR=.."],
}


def drivers(release: str) -> dict[str, bytes]:
    """Return the drivers that compile for a kernel, by file name without .ko. They are compiled once and cached."""
    version = hashlib.sha256(repr((PACKAGES, _ARGUMENTS)).encode()).hexdigest()[:12]
    folder = kept(f"drivers/{release}/{version}", lambda scratch: _make_drivers(release, scratch))
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.ko"))}


def small_kmods(release: str) -> dict[str, bytes]:
    """Return the small kmods of tests/real/kmod_source for a kernel, by name."""
    version = hashlib.sha256(b"".join(path.read_bytes() for path in _sources(release))).hexdigest()[:12]
    folder = kept(f"singles/{release}/{version}", lambda scratch: _make_small_kmods(release, scratch))
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.ko"))}


def _sources(release: str) -> list[Path]:
    return [*sorted(SMALL.iterdir()), *(sorted(NEWER.iterdir()) if is_unstable(release) else ())]


@cache
def _source(package: str) -> Path:
    return kept(f"dkms/{package}", lambda scratch: _unpack(package, scratch))


def _unpack(package: str, scratch: Path) -> Path:
    download = run(["apt-get", "download", package], scratch)
    need(f"the package {package}", download.returncode == 0, f"{ENABLE} ({download.stderr.strip()[-300:]})")
    (archive,) = scratch.glob("*.deb")
    run_checked(["dpkg-deb", "-x", str(archive), "tree"], scratch)
    (source,) = (scratch / "tree/usr/src").iterdir()
    return source


def _make_drivers(release: str, scratch: Path) -> Path:
    result = scratch / "made"
    result.mkdir()
    for package, folders in PACKAGES.items():
        work = scratch / "work" / package
        shutil.copytree(_source(package), work, symlinks=True)
        arguments = [argument.replace("=..", f"={work}") for argument in _ARGUMENTS.get(package, [])]
        for folder in folders:
            # A driver that does not compile for this kernel is left out.
            _make(release, work / folder, *arguments)
        for path in work.rglob("*.ko"):
            run_checked([need_tool("strip", "apt-get install binutils"), "--strip-debug", str(path)], scratch)
            path.rename(result / path.name)
    shutil.rmtree(scratch / "work")
    return result


def _make_small_kmods(release: str, scratch: Path) -> Path:
    sources = _sources(release)
    objects = " ".join(f"{path.stem}.o" for path in sources if path.suffix == ".c")
    kbuild = f"obj-m := {objects}\nCFLAGS_pf_common.o := -fcommon\n"
    if is_unstable(release):
        return compile_kmods(sources, kbuild, release, scratch)
    for path in sources:
        shutil.copy(path, scratch)
    (scratch / "Kbuild").write_text(kbuild)
    _make(release, scratch, "KBUILD_MODPOST_WARN=1")
    result = scratch / "made"
    result.mkdir()
    for path in scratch.glob("*.ko"):
        path.rename(result / path.name)
    assert len(list(result.iterdir())) == len(list(SMALL.glob("*.c"))), "a small kmod did not compile"
    return result


def _make(release: str, folder: Path, *arguments: str) -> None:
    need_tool("gcc-12", "apt-get install gcc-12")
    make = need_tool("make", "apt-get install make")
    # Without the last option, headers that have a vmlinux need pahole for BTF. No test needs BTF from these kmods.
    command = [
        make,
        "-k",
        "-j2",
        "-C",
        str(headers(release)),
        f"M={folder.resolve()}",
        "CONFIG_DEBUG_INFO_BTF_MODULES=",
    ]
    run([*command, *arguments, "modules"], folder)
