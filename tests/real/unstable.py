"""The newest kernel of Debian unstable, its parts and small kmods for it. Nothing is installed on this machine.

Its kmods are compiled by unstable's own compiler, in a folder with unstable's packages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from .cache import kept
from .kmod import run, run_checked
from .python_base import _NO_DOCUMENTS, _REACH, _mirror
from .requirement import need, need_tool

_ENABLE = "a Debian 12 machine, whose mirror has Debian unstable too"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_RELEASE = re.compile(r"^linux-headers-(([7-9])\.[\w.+~-]+-cloud-amd64) ", re.MULTILINE)
# Namespaces are strings since 6.13. The sources of the small kmods name them as before.
_NAMESPACES = """ccflags-y := '-DPF_SPACE="PF_SPACE"' '-DCRYPTO_INTERNAL="CRYPTO_INTERNAL"'\n"""
_MAKE = 'mount --bind /proc "$0/proc" && exec chroot "$0" make -k -j2 -C "$1" M=/kmods KBUILD_MODPOST_WARN=1 modules'


@cache
def release() -> str:
    """Return the newest release for cloud machines, whose packages are small. It changes with the mirror."""
    output = _apt("apt-cache", "search", "--names-only", r"^linux-headers-[7-9].*-cloud-amd64$")
    releases = [found for found, _ in _RELEASE.findall(output)]
    need("a kernel of Debian unstable", bool(releases), _ENABLE)
    return str(max(releases, key=lambda name: [int(number) for number in re.findall(r"\d+", name)]))


def is_unstable(name: str) -> bool:
    """True if the release of a kernel is one of Debian unstable. Debian 12 has none that begins with 7."""
    return name[0] in "789"


def download(packages: list[str], folder: Path) -> None:
    """Download packages of Debian unstable into the folder."""
    output = _apt("apt-get", "download", *packages, folder=folder)
    need(f"the packages {packages}", len(list(folder.glob("*.deb"))) >= len(packages), f"{_ENABLE} ({output[-300:]})")


def headers(name: str) -> Path:
    """Return the unpacked headers of the release, with Module.symvers, .config, and a vmlinux that has type data."""
    return kept(f"headers-{name}", lambda scratch: _unpack_headers(name, scratch)) / f"usr/src/linux-headers-{name}"


def _unpack_headers(name: str, scratch: Path) -> Path:
    download([f"linux-headers-{name}"], scratch)
    (archive,) = scratch.glob("*.deb")
    run_checked(["dpkg-deb", "-x", str(archive), str(scratch / "tree")], scratch)
    return scratch / "tree"


def compile_kmods(sources: list[Path], kbuild: str, name: str, scratch: Path) -> Path:
    """Compile kmods for the release. Return the folder with them and their .ko files.

    kbuild: text of their Kbuild.
    """
    need("the right to change the root folder", os.geteuid() == 0, "a run as root")
    root, archive = scratch / "root", scratch / "root.tar"
    run_checked(_bootstrap(name, archive, scratch), scratch)
    root.mkdir()
    run_checked(["tar", "-x", "-f", str(archive), "-C", str(root)], scratch)
    archive.unlink()
    (root / "kmods").mkdir()
    for path in sources:
        shutil.copy(path, root / "kmods")
    (root / "kmods/Kbuild").write_text(kbuild + _NAMESPACES)
    headers = f"/usr/src/linux-headers-{name}"
    # The mount ends with its own name space, so nothing is left to remove.
    command = [need_tool("unshare", "apt-get install util-linux"), "--mount", "sh", "-c", _MAKE, str(root), headers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    kmods = list((root / "kmods").glob("*.ko"))
    assert kmods, f"no kmod compiled: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    result = scratch / "made"
    result.mkdir()
    for path in kmods:
        path.rename(result / path.name)
    shutil.rmtree(root)
    return result


def _bootstrap(name: str, archive: Path, scratch: Path) -> list[str]:
    """Return the command that packs a folder with the kernel's headers and the compiler that they need."""
    (scratch / "reach").write_text(
        "".join(f"{line[0]}\n" for line in _REACH.finditer(run(["apt-config", "dump"], scratch).stdout))
    )
    tool = need_tool("mmdebstrap", "apt-get install mmdebstrap")
    include = f"--include=linux-headers-{name},make"
    options = ["--quiet", "--variant=essential", include, f"--aptopt={scratch / 'reach'}", *_NO_DOCUMENTS]
    return [tool, *options, f"--keyring={_KEYS}", "sid", str(archive), _mirror_of_unstable()]


@cache
def _mirror_of_unstable() -> str:
    """Return the mirror of this machine's own Debian, which has unstable too."""
    text = Path("/etc/os-release").read_text()
    codename = re.search(r"^VERSION_CODENAME=(\w+)", text, re.MULTILINE)
    need("a mirror of Debian", codename is not None, _ENABLE)
    return _mirror(codename[1] if codename else "")


def _apt(tool: str, *words: str, folder: Path = Path("/")) -> str:
    """Return the output of an apt tool that knows Debian unstable alone."""
    state = kept("apt-unstable", _lists)
    return run([need_tool(tool, _ENABLE), *_options(state), *words], folder).stdout


def _options(state: Path) -> list[str]:
    options = {
        "Dir::Etc::sourcelist": state / "unstable.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "Dir::State::status": state / "status",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::Languages": "none",
    }
    return [f"-o{name}={value}" for name, value in options.items()]


def _lists(scratch: Path) -> Path:
    state = scratch / "state"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    mirror = _mirror_of_unstable()
    source = f"Types: deb\nURIs: {mirror}\nSuites: sid\nComponents: main\nSigned-By: {_KEYS}\n"
    (state / "unstable.sources").write_text(source)
    run([need_tool("apt-get", _ENABLE), *_options(state), "update"], scratch)
    need("lists of packages of Debian unstable", any(state.glob("lists/*_Packages*")), _ENABLE)
    return state
