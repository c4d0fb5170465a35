"""The choice of a release's kernels: by options, and by the kernels that nodes require."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kmm_preflight.kernel_version import ARCHITECTURES
from kmm_preflight.model import Flavour, TargetKernel

PUBLIC_RELEASES = "quay.io/openshift-release-dev/ocp-release"
MULTI = "multi"
_VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z._-]+)?")
_SUFFIXES = (*ARCHITECTURES.values(), MULTI)


@dataclass(frozen=True)
class KernelFilter:
    """Kernels of a release that nodes require. A field that is None matches every kernel."""

    stream: str | None = None
    """The stream of the nodes."""
    arch: str | None = None
    """The architecture of the nodes, in Go's spelling."""
    flavour: Flavour | None = None
    """The flavour of the nodes."""

    def matches(self, kernel: TargetKernel) -> bool:
        """True if nodes require this kernel."""
        return (
            self.stream in (None, kernel.stream)
            and self.arch in (None, kernel.arch)
            and self.flavour in (None, kernel.flavour)
        )

    @property
    def words(self) -> str:
        """Stream, architecture and flavour, for a message."""
        words = (self.stream, self.arch, self.flavour.value if self.flavour else None)
        return " ".join(word for word in words if word)


ANY_KERNEL = frozenset({KernelFilter()})
"""The filters of a run without nodes."""


@dataclass(frozen=True)
class Choice:
    """The kernels of a release that a run reads."""

    arches: tuple[str, ...] = ()
    """Architectures that options name, in Go's spelling, or "multi". If empty, read the release's own architecture."""
    streams: tuple[str, ...] = ()
    """Streams that options name, by label or by tag of the driver toolkit. If empty, read all streams."""
    flavours: tuple[Flavour, ...] = (Flavour.STANDARD,)
    """Flavours to read if a filter has none."""
    filters: frozenset[KernelFilter] = ANY_KERNEL
    """Kernels that nodes require."""

    def node_arches(self) -> tuple[str, ...]:
        """Return the architectures that the filters name, in alphabetical order."""
        return tuple(sorted({kernels.arch for kernels in self.filters if kernels.arch}))

    def flavours_for(self, stream: str, arch: str) -> tuple[Flavour, ...]:
        """Return the flavours to read from a toolkit: first the flavours of the options, then those of the filters."""
        flavours = {
            kernels.flavour
            for kernels in self.filters
            if kernels.stream in (None, stream) and kernels.arch in (None, arch)
        }
        by_option = self.flavours if None in flavours else ()
        return tuple(dict.fromkeys((*by_option, *(flavour for flavour in Flavour if flavour in flavours))))


def is_version(text: str) -> bool:
    """True if the text is a version without an architecture: the tag of its image depends on the nodes."""
    return bool(_VERSION.fullmatch(text)) and text.rpartition("-")[2] not in _SUFFIXES


def release_name(text: str, arches: tuple[str, ...]) -> str:
    """Return the image name of a release. A version becomes a tag of the public releases, as in oc.

    Any other text is returned unchanged.
    """
    if not _VERSION.fullmatch(text):
        return text
    if text.rpartition("-")[2] in _SUFFIXES:
        return f"{PUBLIC_RELEASES}:{text}"
    if not arches:
        return f"{PUBLIC_RELEASES}:{text}-{ARCHITECTURES['amd64']}"
    arch = arches[0] if len(arches) == 1 else MULTI
    return f"{PUBLIC_RELEASES}:{text}-{ARCHITECTURES.get(arch, arch)}"
