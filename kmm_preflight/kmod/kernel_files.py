"""A target kernel as its own files describe it: the kernel's side of each check of the loader."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from kmm_preflight.kmod.configuration import KernelConfiguration, built_in_with_parameters, parse_configuration
from kmm_preflight.kmod.machine import MACHINES, Architecture
from kmm_preflight.kmod.names import module_key
from kmm_preflight.kmod.object import read_object
from kmm_preflight.kmod.packed import ObjectBytes
from kmm_preflight.kmod.symvers import VMLINUX, Symvers
from kmm_preflight.kmod.type_data import TypeData, kernel_type_data
from kmm_preflight.kmod.vermagic import expected_vermagic

_VERSION = re.compile(r"(\d+)\.(\d+)")
_RHEL = re.compile(r"\.el\d")
_DEBIAN = re.compile(r"-(?:\d+-)?(?:rt-|cloud-)?(?:amd64|arm64|s390x|powerpc64le)\b|\+deb\d|\+bpo")
_MODVERSIONS = "modversions "


@dataclass(frozen=True)
class RawFiles:
    """The bytes of a kernel's files. A file that was not found is None."""

    configuration: bytes | None = None
    """.config."""
    in_tree: ObjectBytes | None = None
    """Any kmod of the kernel's own, unpacked."""
    order: bytes | None = None
    """modules.order, the list of the kernel's own kmods."""
    built_in: bytes | None = None
    """modules.builtin, the list of modules inside vmlinux."""
    built_in_tags: bytes | None = None
    """modules.builtin.modinfo, the tags of modules inside vmlinux."""
    vmlinux: bytes | None = None
    """vmlinux, or the part of it with the kernel's type data."""


class Family(Enum):
    """Source of a kernel. Distributions change the checks of the loader with patches of their own."""

    MAINLINE = "mainline"
    RHEL = "RHEL"
    DEBIAN = "Debian"


def kernel_family(release: str, configuration: KernelConfiguration | None) -> Family:
    """Return the family of a kernel by its release, and by the compiler that its .config names."""
    if _RHEL.search(release):
        return Family.RHEL
    compiler = configuration.options.get("CC_VERSION_TEXT", "") if configuration else "Debian"
    return Family.DEBIAN if _DEBIAN.search(release) and "Debian" in compiler else Family.MAINLINE


def mainline_version(release: str) -> tuple[int, int]:
    """Return the mainline release on which a kernel is based, or (0, 0) if its release does not begin with one."""
    version = _VERSION.match(release)
    return (int(version[1]), int(version[2])) if version else (0, 0)


@dataclass(frozen=True)
class KernelFiles:
    """A target kernel. A value that its files do not contain is None. Names of modules have _ for -."""

    release: str
    """Release of the kernel, as uname -r prints it."""
    arch: str
    """Architecture in Go's spelling."""
    symvers: Symvers | None
    """Symbols that the kernel exports."""
    configuration: KernelConfiguration | None
    """Options of the kernel's build."""
    in_tree_vermagic: str | None = None
    """Version magic of one of the kernel's own kmods."""
    struct_size: int | None = None
    """Size of struct module in one of the kernel's own kmods, in bytes."""
    in_tree: frozenset[str] = frozenset()
    """Names of the kernel's own kmods: all if in_tree_whole is true, otherwise those that export a symbol."""
    built_in: frozenset[str] = frozenset()
    """Names of modules inside vmlinux."""
    with_parameters: frozenset[str] = frozenset()
    """Names of modules inside vmlinux that have a folder in /sys/module."""
    in_tree_whole: bool = False
    """True if in_tree has all of the kernel's own kmods."""
    entry_offsets: Mapping[str, int] = field(default_factory=dict)
    """Byte offsets of init_module and cleanup_module in struct module, from one of the kernel's own kmods."""
    type_data: TypeData | None = None
    """Type data (BTF) of the kernel."""
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the kernel's own kmods that need a kmod, by its name. Empty if modules.dep was not read."""

    def has_in_tree(self, name: str) -> bool | None:
        """True if the kernel has a kmod of its own with this name as a file, None if this is unknown.

        name: with _ for -.
        """
        if name in self.in_tree or self.in_tree_whole or name in self.built_in:
            return name in self.in_tree
        return None

    @property
    def machine(self) -> Architecture:
        """The architecture as its loader recognises it in an object's header."""
        return MACHINES[self.arch]

    @property
    def family(self) -> Family:
        """The kernel's family, which decides on some checks."""
        return kernel_family(self.release, self.configuration)

    @property
    def version(self) -> tuple[int, int]:
        """The mainline release that the kernel is based on, or (0, 0) if the release does not begin with one."""
        return mainline_version(self.release)

    @property
    def vermagic(self) -> str | None:
        """The version magic: that of the kernel's own kmods, otherwise the one that its .config implies."""
        if self.in_tree_vermagic is not None or self.configuration is None:
            return self.in_tree_vermagic
        return expected_vermagic(self.release, self.arch, self.configuration)

    @property
    def versioned(self) -> bool | None:
        """True if the kernel compares symbol versions, None if this is unknown."""
        if self.configuration is not None:
            return self.configuration.on("MODVERSIONS")
        if self.symvers is not None:
            return self.symvers.versioned
        return None if self.in_tree_vermagic is None else _MODVERSIONS in self.in_tree_vermagic

    @property
    def takes_unversioned(self) -> bool | None:
        """True if the kernel loads a kmod without symbol versions or version magic, with a taint. None if unknown."""
        return self.configuration.on("MODULE_FORCE_LOAD") if self.configuration else None

    @property
    def refuses_incomplete_versions(self) -> bool:
        """True if the kernel refuses a symbol that the kmod's versions do not name.

        Debian's kernels do, by a patch of Debian's. Other kernels warn.
        """
        return self.family is Family.DEBIAN


def read_kernel_files(release: str, arch: str, symvers: Symvers | None, raw: RawFiles) -> KernelFiles:
    """Return the kernel of a release. Raise Malformed if one of its files is damaged.

    arch: Go's spelling.
    """
    own = read_object(raw.in_tree, MACHINES[arch]) if raw.in_tree is not None else None
    listed_kmods = _names(raw.order)
    return KernelFiles(
        release=release,
        arch=arch,
        symvers=symvers,
        configuration=parse_configuration(raw.configuration) if raw.configuration is not None else None,
        in_tree_vermagic=own.modinfo.vermagic if own else None,
        struct_size=own.struct_size if own else None,
        in_tree=listed_kmods or _exporting(symvers),
        built_in=_names(raw.built_in),
        with_parameters=built_in_with_parameters(_text(raw.built_in_tags).split("\0")),
        in_tree_whole=bool(listed_kmods),
        entry_offsets=own.entry_offsets if own else {},
        type_data=kernel_type_data(raw.vmlinux, MACHINES[arch].order) if raw.vmlinux is not None else None,
    )


def _exporting(symvers: Symvers | None) -> frozenset[str]:
    return _keys(symvers.providers() - {VMLINUX}) if symvers else frozenset()


def _names(lines: bytes | None) -> frozenset[str]:
    return _keys(_text(lines).split())


def _keys(paths: Iterable[str]) -> frozenset[str]:
    return frozenset(module_key(path.rpartition("/")[2]) for path in paths)


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", "replace")


def parse_users(dependencies: bytes | None) -> Mapping[str, tuple[str, ...]]:
    """Return the kmods that need a kmod, by its name, from the text of modules.dep."""
    users: dict[str, list[str]] = {}
    for line in _text(dependencies).splitlines():
        path, _, needed = line.partition(":")
        for other in needed.split():
            users.setdefault(_key(other), []).append(_key(path))
    return {name: tuple(sorted(of_name)) for name, of_name in users.items()}


def _key(path: str) -> str:
    return module_key(path.strip().rpartition("/")[2])
