"""Debian's kernels as their packages describe them, and the kernels that drivers are built for."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from kmm_preflight.kmod.configuration import parse_release
from kmm_preflight.kmod.kernel_files import KernelFiles, RawFiles, read_kernel_files
from kmm_preflight.kmod.packed import unpacked
from kmm_preflight.kmod.symvers import Symvers, SymversStore

from .real import foreign, kernels, unstable
from .real.cache import cache_folder
from .real.kernels import in_tree, in_tree_dependencies
from .real.kmod import headers


@cache
def kernel_files(release: str) -> KernelFiles:
    """Return a kernel of Debian as its packages describe it."""
    folder = unstable.headers(release) if unstable.is_unstable(release) else headers(release)
    tree = in_tree(release)
    symvers = symvers_of(folder)
    own_release = parse_release((folder / "include/generated/utsrelease.h").read_bytes())
    raw = RawFiles(
        configuration=(folder / ".config").read_bytes(),
        in_tree=in_tree_bytes(release, "dummy"),
        order=(tree / "modules.order").read_bytes(),
        built_in=(tree / "modules.builtin").read_bytes(),
        built_in_tags=(tree / "modules.builtin.modinfo").read_bytes(),
        vmlinux=(folder / "vmlinux").read_bytes() if (folder / "vmlinux").is_file() else None,
    )
    return read_kernel_files(own_release, "amd64", symvers, raw)


@cache
def in_tree_bytes(release: str, key: str) -> bytes:
    """Return the object of an in-tree kmod, unpacked."""
    with unpacked(in_tree_dependencies(release)[key][0]) as data:
        return data[:]


@cache
def arm64_kernel_files() -> KernelFiles:
    """Return the newest kernel for arm64 as its packages describe it."""
    folder, tree = foreign.headers("arm64"), foreign.in_tree("arm64")
    with unpacked(sorted(tree.rglob("*.ko"))[0]) as own:
        raw = RawFiles(
            configuration=(folder / ".config").read_bytes(),
            in_tree=own[:],
            order=(tree / "modules.order").read_bytes(),
            built_in_tags=(tree / "modules.builtin.modinfo").read_bytes(),
        )
    return read_kernel_files(foreign.release("arm64"), "arm64", symvers_of(folder), raw)


def symvers_of(folder: Path) -> Symvers:
    """Return the symbols of the kernel with these headers, parsed once and cached."""
    text = (folder / "Module.symvers").read_bytes()
    store, digest = SymversStore(cache_folder() / "symvers"), f"sha256:{hashlib.sha256(text).hexdigest()}"
    return store.find(digest) or store.keep(digest, [text])


def build_kernels() -> tuple[str, ...]:
    """Return the kernels that the drivers are built for.

    They are the kernels before and after an upgrade, the newest plain 6.1, real-time kernels, and 6.12.
    """
    releases = kernels.upgrade_kernels()
    newest = next(release for release in reversed(releases) if release.startswith("6.1.") and release.count("-") == 2)
    others = [release for release in releases if "-rt-" in release or release.startswith("6.12")]
    return (releases[0], releases[1], newest, *others)
