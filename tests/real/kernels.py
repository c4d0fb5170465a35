"""Kernels of Debian: which ones its mirror has now, their images and the in-tree kmods that a test wants."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from .cache import kept
from .kmod import checked, run
from .requirement import need, need_tool

ENABLE = "apt-get update, on Debian 12 for amd64"
_HEADERS = re.compile(r"^linux-headers-(6\.\d+(?:\.\d+)*(?:-\d+|\+deb12)(?:-rt|-cloud)?-amd64) ", re.MULTILINE)
# In-tree kmods that the drivers of the tests use, and some that stand for all others.
_IN_TREE = (
    "drivers/media/mc/*",
    "drivers/media/common/videobuf2/*",
    "drivers/media/v4l2-core/*",
    "drivers/md/dm-mod*",
    "drivers/md/dax*",
    "drivers/dax/dax*",
    "drivers/net/dummy*",
    "drivers/block/brd*",
    "fs/nls/*",
    "lib/*",
    "net/netfilter/*.ko*",
    "net/ipv4/netfilter/*",
    "net/ipv6/netfilter/*",
    "net/ipv6/ipv6*",
    "net/bridge/*",
    "crypto/*",
    "arch/x86/crypto/*",
)


@cache
def releases() -> tuple[str, ...]:
    """The releases whose headers the mirror has, oldest first; names move with the mirror."""
    found = run(
        [need_tool("apt-cache", "a Debian 12 machine"), "search", "--names-only", "^linux-headers-6"], Path("/")
    )
    return tuple(sorted(_HEADERS.findall(found.stdout), key=_numbers))


def _numbers(release: str) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", release.partition("-amd64")[0])], release


@cache
def chosen() -> tuple[str, ...]:
    """Kernels as upgrades meet them: the oldest 6.1 and the newest four, the newest rt and cloud, the newest 6.12."""
    old = [release for release in releases() if re.fullmatch(r"6\.1\.0-\d+-amd64", release)]
    need("a choice of Debian's kernels", len(old) > 1, ENABLE)
    newest = old[-1].removesuffix("-amd64")
    new = [release for release in releases() if re.fullmatch(r"6\.12\.\d+\+deb12-amd64", release)]
    plain = [old[0], *old[1:][-4:]]
    flavours = [f"{newest}-rt-amd64", f"{newest}-cloud-amd64"]
    return (*plain, *(flavour for flavour in flavours if flavour in releases()), *new[-1:])


def image(release: str) -> Path:
    """The unpacked image of a kernel: boot/vmlinuz-RELEASE, lib/modules/RELEASE with some of the in-tree kmods."""
    return kept(f"kernel-image-{release}", lambda scratch: _unpack_image(release, scratch))


def vmlinuz(release: str) -> Path:
    """The kernel as a boot loader starts it."""
    return image(release) / f"boot/vmlinuz-{release}"


def in_tree(release: str) -> Path:
    """The folder of the in-tree kmods, without an index."""
    return image(release) / f"lib/modules/{release}"


def _unpack_image(release: str, scratch: Path) -> Path:
    package = f"linux-image-{release}-unsigned"
    got = run(["apt-get", "download", package], scratch)
    need(f"the package {package}", got.returncode == 0, f"{ENABLE} ({got.stderr.strip()[-300:]})")
    (archive,) = scratch.glob("*.deb")
    image_parts(archive, scratch / "tree")
    return scratch / "tree"


def image_parts(archive: Path, tree: Path) -> None:
    """Unpack of a kernel's package what tests want: the kernel, what it says of itself, some of its kmods."""
    tree.mkdir(exist_ok=True)
    wanted = ["./boot/*", "./lib/modules/*/modules.*", "./usr/lib/modules/*/modules.*"]
    folders = [f"./{root}lib/modules/*/kernel/{one}" for root in ("", "usr/") for one in _IN_TREE]
    patterns = " ".join(f"'{one}'" for one in [*wanted, *folders])
    unpack = f"dpkg-deb --fsys-tarfile {archive} | tar -x -C {tree} --wildcards {patterns} 2>/dev/null"
    run(["sh", "-c", unpack], tree)  # tar ends 2 when a pattern matches nothing
    if (tree / "usr/lib/modules").is_dir():
        checked(["sh", "-c", "mkdir -p lib && cp -R usr/lib/modules lib/ && rm -r usr/lib/modules"], tree)


@cache
def in_tree_dependencies(release: str) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """The in-tree kmods at hand by name: the file, and what is loaded before it, in that order, as depmod says."""
    found = {}
    for line in (indexed(release) / "lib/modules" / release / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        before = tuple(_key(one) for one in reversed(needed.split()))
        found[_key(path)] = (in_tree(release) / path, before)
    return found


def indexed(release: str) -> Path:
    """A root whose folder of the kernel has links to its in-tree kmods, and depmod's indexes."""
    return kept(f"kernel-index-{release}", lambda scratch: _index(release, scratch))


def _key(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")


def _index(release: str, scratch: Path) -> Path:
    depmod = need_tool("depmod", "apt-get install kmod")
    folder = scratch / "out/lib/modules" / release
    folder.mkdir(parents=True)
    for path in in_tree(release).iterdir():
        (folder / path.name).symlink_to(path)
    checked([depmod, "-b", str(scratch / "out"), release], scratch)
    return scratch / "out"
