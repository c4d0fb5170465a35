"""Kmods that a loader has something to say about: real drivers from Debian's -dkms packages, and small ones of ours."""

from __future__ import annotations

import hashlib
import shutil
from functools import cache
from pathlib import Path

from .cache import kept
from .kernels import ENABLE
from .kmod import checked, headers, run
from .requirement import need, need_tool

SINGLE = Path(__file__).with_name("kmod_source") / "single"
# Package, and the folders in it that make is called for, in order: later ones use symbols of earlier ones.
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
    """The kmods of the packages that compile for a kernel, by file name; from the cache after the first time."""
    version = hashlib.sha256(repr((PACKAGES, _ARGUMENTS)).encode()).hexdigest()[:12]
    folder = kept(f"drivers/{release}/{version}", lambda scratch: _make_drivers(release, scratch))
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.ko"))}


def singles(release: str) -> dict[str, bytes]:
    """The small kmods of tests/real/kmod_source/single for a kernel, by name."""
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SINGLE.iterdir()))).hexdigest()[:12]
    folder = kept(f"singles/{release}/{version}", lambda scratch: _make_singles(release, scratch))
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.ko"))}


@cache
def _source(package: str) -> Path:
    return kept(f"dkms/{package}", lambda scratch: _unpack(package, scratch))


def _unpack(package: str, scratch: Path) -> Path:
    got = run(["apt-get", "download", package], scratch)
    need(f"the package {package}", got.returncode == 0, f"{ENABLE} ({got.stderr.strip()[-300:]})")
    (archive,) = scratch.glob("*.deb")
    checked(["dpkg-deb", "-x", str(archive), "tree"], scratch)
    (source,) = (scratch / "tree/usr/src").iterdir()
    return source


def _make_drivers(release: str, scratch: Path) -> Path:
    made = scratch / "made"
    made.mkdir()
    for package, folders in PACKAGES.items():
        work = scratch / "work" / package
        shutil.copytree(_source(package), work, symlinks=True)
        arguments = [one.replace("=..", f"={work}") for one in _ARGUMENTS.get(package, [])]
        for folder in folders:
            # A driver that does not compile for this kernel is none of the test's.
            _make(release, work / folder, *arguments)
        for path in work.rglob("*.ko"):
            checked([need_tool("strip", "apt-get install binutils"), "--strip-debug", str(path)], scratch)
            path.rename(made / path.name)
    shutil.rmtree(scratch / "work")
    return made


def _make_singles(release: str, scratch: Path) -> Path:
    for path in SINGLE.iterdir():
        shutil.copy(path, scratch)
    objects = " ".join(f"{path.stem}.o" for path in sorted(SINGLE.glob("*.c")))
    (scratch / "Kbuild").write_text(f"obj-m := {objects}\nCFLAGS_pf_common.o := -fcommon\n")
    _make(release, scratch, "KBUILD_MODPOST_WARN=1")
    made = scratch / "made"
    made.mkdir()
    for path in scratch.glob("*.ko"):
        path.rename(made / path.name)
    assert len(list(made.iterdir())) == len(list(SINGLE.glob("*.c"))), "a small kmod did not compile"
    return made


def _make(release: str, folder: Path, *arguments: str) -> None:
    need_tool("gcc-12", "apt-get install gcc-12")
    make = need_tool("make", "apt-get install make")
    # BTF wants pahole where the headers bring a vmlinux; none of the kmods is about it.
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
