"""What is known of a target kernel from its own files: the side of the loader that a kmod is judged against."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from kmm_preflight.kmod.configuration import KernelConfiguration, built_in_with_parameters, parse_configuration
from kmm_preflight.kmod.machine import MACHINES, Architecture
from kmm_preflight.kmod.names import module_key
from kmm_preflight.kmod.object import read_object
from kmm_preflight.kmod.packed import Bytes
from kmm_preflight.kmod.symvers import VMLINUX, Symvers
from kmm_preflight.kmod.vermagic import expected_vermagic

_VERSION = re.compile(r"(\d+)\.(\d+)")
_RHEL = re.compile(r"\.el\d")
_DEBIAN = re.compile(r"-(?:\d+-)?(?:rt-|cloud-)?(?:amd64|arm64|s390x|powerpc64le)\b|\+deb\d|\+bpo")
_MODVERSIONS = "modversions "


@dataclass(frozen=True)
class RawFiles:
    """The bytes of a kernel's files, None for what was not to be had.

    configuration is .config; in_tree any of its own kmods, unpacked; order, built_in and built_in_tags are
    modules.order, modules.builtin and modules.builtin.modinfo.
    """

    configuration: bytes | None = None
    in_tree: Bytes | None = None
    order: bytes | None = None
    built_in: bytes | None = None
    built_in_tags: bytes | None = None


class Family(Enum):
    """Whose loader it is: distributions patch what is refused."""

    MAINLINE = "mainline"
    RHEL = "RHEL"
    DEBIAN = "Debian"


def kernel_family(release: str, configuration: KernelConfiguration | None) -> Family:
    """Told by the kernel at hand: its release, and the compiler that its .config names."""
    if _RHEL.search(release):
        return Family.RHEL
    compiler = configuration.options.get("CC_VERSION_TEXT", "") if configuration else "Debian"
    return Family.DEBIAN if _DEBIAN.search(release) and "Debian" in compiler else Family.MAINLINE


@dataclass(frozen=True)
class KernelFiles:
    """A target kernel as its files tell it; None is what was not to be had. arch is Go's spelling.

    in_tree_vermagic, struct_size and starts come from any in-tree kmod. in_tree holds the names of all, or where
    in_tree_whole is not set only of those that export something; built_in those of what is in vmlinux, with_parameters
    of these the ones that have a folder in /sys/module. - is spelled _ in names.
    """

    release: str
    arch: str
    symvers: Symvers | None
    configuration: KernelConfiguration | None
    in_tree_vermagic: str | None = None
    struct_size: int | None = None
    in_tree: frozenset[str] = frozenset()
    built_in: frozenset[str] = frozenset()
    with_parameters: frozenset[str] = frozenset()
    in_tree_whole: bool = False
    starts: Mapping[str, int] = field(default_factory=dict)

    def has_in_tree(self, name: str) -> bool | None:
        """Whether it has a kmod of the name (with _ for -) as a file; None where that is not known."""
        if name in self.in_tree or self.in_tree_whole or name in self.built_in:
            return name in self.in_tree
        return None

    @property
    def machine(self) -> Architecture:
        """The architecture as its loader tells it from an object's header."""
        return MACHINES[self.arch]

    @property
    def family(self) -> Family:
        """Whose loader it is."""
        return kernel_family(self.release, self.configuration)

    @property
    def version(self) -> tuple[int, int]:
        """The mainline release that the kernel is based on; (0, 0) when its name does not say."""
        found = _VERSION.match(self.release)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def vermagic(self) -> str | None:
        """The kernel's version magic: an in-tree kmod's, else what its .config makes of it."""
        if self.in_tree_vermagic is not None or self.configuration is None:
            return self.in_tree_vermagic
        return expected_vermagic(self.release, self.arch, self.configuration)

    @property
    def versioned(self) -> bool | None:
        """Whether the kernel compares symbol versions."""
        if self.configuration is not None:
            return self.configuration.on("MODVERSIONS")
        if self.symvers is not None:
            return self.symvers.versioned
        return None if self.in_tree_vermagic is None else _MODVERSIONS in self.in_tree_vermagic

    @property
    def takes_unversioned(self) -> bool | None:
        """Whether a kmod without versions or version magic is taken, with a taint."""
        return self.configuration.on("MODULE_FORCE_LOAD") if self.configuration else None

    @property
    def refuses_incomplete_versions(self) -> bool:
        """Whether a symbol that the kmod's versions do not name is refused: Debian's own patch does, others warn."""
        return self.family is Family.DEBIAN


def read_kernel_files(release: str, arch: str, symvers: Symvers | None, raw: RawFiles) -> KernelFiles:
    """What the files tell of the kernel of this release; arch is Go's spelling.

    Malformed when one of them is not what it should be.
    """
    own = read_object(raw.in_tree, MACHINES[arch]) if raw.in_tree is not None else None
    order = _names(raw.order) or (_keys(symvers.providers() - {VMLINUX}) if symvers else frozenset())
    return KernelFiles(
        release=release,
        arch=arch,
        symvers=symvers,
        configuration=parse_configuration(raw.configuration) if raw.configuration is not None else None,
        in_tree_vermagic=own.modinfo.vermagic if own else None,
        struct_size=own.struct_size if own else None,
        in_tree=order,
        built_in=_names(raw.built_in),
        with_parameters=built_in_with_parameters(_text(raw.built_in_tags).split("\0")),
        in_tree_whole=bool(_names(raw.order)),
        starts=own.starts if own else {},
    )


def _names(lines: bytes | None) -> frozenset[str]:
    return _keys(_text(lines).split())


def _keys(paths: Iterable[str]) -> frozenset[str]:
    return frozenset(module_key(path.rpartition("/")[2]) for path in paths)


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", "replace")
