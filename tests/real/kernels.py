"""Debian's kernels: the releases on its mirror, their images and some of their in-tree kmods."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from .cache import kept
from .kmod import run, run_checked
from .requirement import need, need_tool
from .unstable import download, is_unstable

ENABLE = "apt-get update, on Debian 12 for amd64"
_HEADERS = re.compile(r"^linux-headers-(6\.\d+(?:\.\d+)*(?:-\d+|\+deb12)(?:-rt|-cloud)?-amd64) ", re.MULTILINE)
# In-tree kmods that the drivers of the tests use, and some others as examples.
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
    """Return the releases whose headers the mirror has, oldest first. They change with the mirror."""
    command = [need_tool("apt-cache", "a Debian 12 machine"), "search", "--names-only", "^linux-headers-6"]
    return tuple(sorted(_HEADERS.findall(run(command, Path("/")).stdout), key=_numbers))


def _numbers(release: str) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", release.partition("-amd64")[0])], release


@cache
def upgrade_kernels() -> tuple[str, ...]:
    """Return kernels before and after typical upgrades.

    They are the oldest 6.1, the newest four, the newest rt and cloud kernel, and the newest 6.12.
    """
    old = [release for release in releases() if re.fullmatch(r"6\.1\.0-\d+-amd64", release)]
    need("a choice of Debian's kernels", len(old) > 1, ENABLE)
    newest = old[-1].removesuffix("-amd64")
    new = [release for release in releases() if re.fullmatch(r"6\.12\.\d+\+deb12-amd64", release)]
    plain = [old[0], *old[1:][-4:]]
    flavours = [f"{newest}-rt-amd64", f"{newest}-cloud-amd64"]
    return (*plain, *(flavour for flavour in flavours if flavour in releases()), *new[-1:])


def image(release: str) -> Path:
    """Return the unpacked image of a kernel: boot/vmlinuz-RELEASE, and lib/modules/RELEASE with some in-tree kmods."""
    return kept(f"kernel-image-{release}", lambda scratch: _unpack_image(release, scratch))


def vmlinuz(release: str) -> Path:
    """Return the kernel as a boot loader starts it."""
    return image(release) / f"boot/vmlinuz-{release}"


def in_tree(release: str) -> Path:
    """Return the folder of the in-tree kmods, without an index."""
    return image(release) / f"lib/modules/{release}"


def _unpack_image(release: str, scratch: Path) -> Path:
    if is_unstable(release):
        return _unpack_unstable(release, scratch)
    package = f"linux-image-{release}-unsigned"
    download = run(["apt-get", "download", package], scratch)
    need(f"the package {package}", download.returncode == 0, f"{ENABLE} ({download.stderr.strip()[-300:]})")
    (archive,) = scratch.glob("*.deb")
    unpack_image_parts(archive, scratch / "tree")
    return scratch / "tree"


def _unpack_unstable(release: str, scratch: Path) -> Path:
    """Unpack the packages into which Debian unstable divides a kernel. Its vmlinuz is beside its kmods."""
    download([f"linux-{part}-{release}" for part in ("base", "binary", "modules")], scratch)
    tree = scratch / "tree"
    for archive in sorted(scratch.glob("*.deb")):
        unpack_image_parts(archive, tree)
    (tree / "boot").mkdir()
    (tree / f"lib/modules/{release}/vmlinuz").rename(tree / f"boot/vmlinuz-{release}")
    return tree


def unpack_image_parts(archive: Path, tree: Path) -> None:
    """Unpack the parts of a kernel's package that tests need: the kernel, its lists of modules, some in-tree kmods."""
    tree.mkdir(exist_ok=True)
    lists = ["./boot/*", "./lib/modules/*/modules.*", "./usr/lib/modules/*/modules.*", "./usr/lib/modules/*/vmlinuz"]
    kmods = [f"./{root}lib/modules/*/kernel/{pattern}" for root in ("", "usr/") for pattern in _IN_TREE]
    patterns = " ".join(f"'{pattern}'" for pattern in [*lists, *kmods])
    unpack = f"dpkg-deb --fsys-tarfile {archive} | tar -x -C {tree} --wildcards {patterns} 2>/dev/null"
    run(["sh", "-c", unpack], tree)  # tar exits with 2 if a pattern matches no file
    if (tree / "usr/lib/modules").is_dir():
        run_checked(["sh", "-c", "mkdir -p lib && cp -R usr/lib/modules lib/ && rm -r usr/lib/modules"], tree)


@cache
def in_tree_dependencies(release: str) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Map names of in-tree kmods to the file and to the kmods that are loaded before, in the order of depmod."""
    dependencies = {}
    for line in (indexed_root(release) / "lib/modules" / release / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        before = tuple(_key(file) for file in reversed(needed.split()))
        dependencies[_key(path)] = (in_tree(release) / path, before)
    return dependencies


def indexed_root(release: str) -> Path:
    """Return a root folder with lib/modules/RELEASE: links to the in-tree kmods, and depmod's indexes."""
    return kept(f"kernel-index-{release}", lambda scratch: _index(release, scratch))


def _key(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")


def _index(release: str, scratch: Path) -> Path:
    depmod = need_tool("depmod", "apt-get install kmod")
    folder = scratch / "out/lib/modules" / release
    folder.mkdir(parents=True)
    for path in in_tree(release).iterdir():
        (folder / path.name).symlink_to(path)
    run_checked([depmod, "-b", str(scratch / "out"), release], scratch)
    return scratch / "out"
