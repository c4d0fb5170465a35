"""Real kernel modules, compiled against Debian's kernel headers, of which nothing is installed."""

from __future__ import annotations

import hashlib
import re
import subprocess
from functools import cache
from pathlib import Path

from .cache import kept
from .requirement import need, need_tool

SOURCE = Path(__file__).with_name("kmod_source") / "probe.c"
_PACKAGE = re.compile(r"^linux-headers-(6\.1\.0-(\d+)-amd64) ", re.MULTILINE)
_TOOLS = {"apt-get": "a Debian 12 machine", "dpkg-deb": "a Debian 12 machine", "make": "apt-get install make",
          "gcc-12": "apt-get install gcc-12"}  # fmt: skip


@cache
def debian_headers() -> tuple[str, ...]:
    """The kernel releases whose headers Debian's mirror has now, oldest first; the names move with the mirror."""
    search = [need_tool("apt-cache", "a Debian 12 machine"), "search", "--names-only"]
    listed = run([*search, r"^linux-headers-6\.1\.0-[0-9]+-amd64$"], Path("/")).stdout
    return tuple(release for release, _ in sorted(_PACKAGE.findall(listed), key=lambda found: int(found[1])))


def oldest_and_newest() -> tuple[str, str]:
    """Two different kernels, as an upgrade has them."""
    several = debian_headers()
    need("a choice of Debian's kernel headers", len(several) > 1, "apt-get update, on Debian 12 for amd64")
    return several[0], several[-1]


def headers(kernel: str) -> Path:
    """The unpacked headers of a kernel: Module.symvers, .config, scripts/sign-file and all that make wants."""
    return kept(f"headers-{kernel}", lambda scratch: _unpack(kernel, scratch)) / f"usr/src/linux-headers-{kernel}"


def compile_kmod(kernel: str, name: str = "preflight_probe") -> bytes:
    """The bytes of NAME.ko for this kernel, from the cache after the first time."""
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    return kept(f"kmods/{kernel}/{version}/{name}.ko", lambda scratch: _make(kernel, name, scratch)).read_bytes()


def _unpack(kernel: str, scratch: Path) -> Path:
    """Download the three packages and make them work at any place."""
    for tool, enable in _TOOLS.items():
        need_tool(tool, enable)
    packages = [f"linux-headers-{kernel}", *_depends(f"linux-headers-{kernel}")]
    common = next((package for package in packages if "-common" in package), "")
    got = run(["apt-get", "download", *packages], scratch)
    need(f"the package {packages[0]}", got.returncode == 0, f"apt-get update ({got.stderr.strip()[-300:]})")
    tree = scratch / "tree"
    for package in scratch.glob("*.deb"):
        checked(["dpkg-deb", "-x", str(package), str(tree)], scratch)
    # The package includes /usr/src/…-common/Makefile; its other links are relative and work anywhere.
    (tree / f"usr/src/linux-headers-{kernel}/Makefile").write_text(f"include ../{common}/Makefile\n")
    return tree


def _depends(package: str) -> list[str]:
    """The packages that headers need to be whole: those of all flavours, and the tools of the build."""
    told = run([need_tool("apt-cache", "a Debian 12 machine"), "depends", package], Path("/")).stdout
    return re.findall(r"Depends: (linux-(?:headers|kbuild)-\S+)", told)


def _make(kernel: str, name: str, scratch: Path) -> Path:
    """Compile in scratch; make leaves some twenty files beside the .ko."""
    build = headers(kernel)
    for tool, enable in _TOOLS.items():
        need_tool(tool, enable)
    (scratch / f"{name}.c").write_bytes(SOURCE.read_bytes())
    (scratch / "Kbuild").write_text(f"obj-m := {name}.o\n")
    checked(["make", "-C", str(build), f"M={scratch}", "modules"], scratch)
    return scratch / f"{name}.ko"


def checked(command: list[str], folder: Path) -> None:
    """Run it in the folder; what it said is in the error when it fails."""
    done = run(command, folder)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended {done.returncode}:\n{done.stdout}{done.stderr}")


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it in the folder, for five minutes at most."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
