"""Real kernel modules, compiled against Debian's kernel headers. The headers are unpacked, not installed."""

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
    """Return the 6.1 releases whose headers Debian's mirror has, oldest first. They change with the mirror."""
    search = [need_tool("apt-cache", "a Debian 12 machine"), "search", "--names-only"]
    packages = run([*search, r"^linux-headers-6\.1\.0-[0-9]+-amd64$"], Path("/")).stdout
    return tuple(release for release, _ in sorted(_PACKAGE.findall(packages), key=lambda match: int(match[1])))


def oldest_and_newest() -> tuple[str, str]:
    """Return two different kernels, as before and after an upgrade."""
    releases = debian_headers()
    need("a choice of Debian's kernel headers", len(releases) > 1, "apt-get update, on Debian 12 for amd64")
    return releases[0], releases[-1]


def headers(kernel: str) -> Path:
    """Return the unpacked headers of a kernel, with Module.symvers, .config, scripts/sign-file and files for make."""
    return kept(f"headers-{kernel}", lambda scratch: _unpack(kernel, scratch)) / f"usr/src/linux-headers-{kernel}"


def compile_kmod(kernel: str, name: str = "preflight_probe") -> bytes:
    """Return the bytes of NAME.ko for this kernel. It is compiled once and cached."""
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    return kept(f"kmods/{kernel}/{version}/{name}.ko", lambda scratch: _make(kernel, name, scratch)).read_bytes()


def _unpack(kernel: str, scratch: Path) -> Path:
    """Download the three packages and make them work in any folder."""
    for tool, enable in _TOOLS.items():
        need_tool(tool, enable)
    packages = [f"linux-headers-{kernel}", *_depends(f"linux-headers-{kernel}")]
    common = next((package for package in packages if "-common" in package), "")
    download = run(["apt-get", "download", *packages], scratch)
    need(f"the package {packages[0]}", download.returncode == 0, f"apt-get update ({download.stderr.strip()[-300:]})")
    tree = scratch / "tree"
    for package in scratch.glob("*.deb"):
        run_checked(["dpkg-deb", "-x", str(package), str(tree)], scratch)
    # The package's Makefile includes /usr/src/…-common/Makefile. Its links are relative and work in any folder.
    (tree / f"usr/src/linux-headers-{kernel}/Makefile").write_text(f"include ../{common}/Makefile\n")
    return tree


def _depends(package: str) -> list[str]:
    """Return the packages that the headers depend on: those common to all flavours, and the build tools."""
    output = run([need_tool("apt-cache", "a Debian 12 machine"), "depends", package], Path("/")).stdout
    return re.findall(r"Depends: (linux-(?:headers|kbuild)-\S+)", output)


def _make(kernel: str, name: str, scratch: Path) -> Path:
    """Compile in the scratch folder, where make leaves about twenty other files."""
    build = headers(kernel)
    for tool, enable in _TOOLS.items():
        need_tool(tool, enable)
    (scratch / f"{name}.c").write_bytes(SOURCE.read_bytes())
    (scratch / "Kbuild").write_text(f"obj-m := {name}.o\n")
    run_checked(["make", "-C", str(build), f"M={scratch}", "modules"], scratch)
    return scratch / f"{name}.ko"


def run_checked(command: list[str], folder: Path) -> None:
    """Run the command in the folder. If it fails, raise RuntimeError with its output."""
    done = run(command, folder)
    if done.returncode:
        raise RuntimeError(f"{command[0]} exited with {done.returncode}:\n{done.stdout}{done.stderr}")


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in the folder, for five minutes at most."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
