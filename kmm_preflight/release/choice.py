"""Which release is asked for, and which of its kernels: by options, and by nodes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kmm_preflight.kernel_version import ARCHITECTURES
from kmm_preflight.model import Flavour, TargetKernel

PUBLIC_RELEASES = "quay.io/openshift-release-dev/ocp-release"
MULTI = "multi"
_VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z._-]+)?")


@dataclass(frozen=True)
class KernelFilter:
    """Kernels that nodes need of a release; what is "" or None here is left to the Choice."""

    stream: str = ""
    arch: str = ""
    flavour: Flavour | None = None

    def takes(self, kernel: TargetKernel) -> bool:
        """Whether this is one of them."""
        return (
            self.stream in ("", kernel.stream)
            and self.arch in ("", kernel.arch)
            and self.flavour in (None, kernel.flavour)
        )

    @property
    def words(self) -> str:
        """Stream, architecture and flavour, for a message."""
        return " ".join(word for word in (self.stream, self.arch, self.flavour.value if self.flavour else "") if word)


EVERY = frozenset({KernelFilter()})
"""The wants where no node says which."""


@dataclass(frozen=True)
class Choice:
    """Which of a release's kernels are asked for; empty means: its own architecture, all streams, standard.

    wants are what nodes need of it; where none says an architecture or a flavour, those chosen here are read.
    """

    arches: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    flavours: tuple[Flavour, ...] = (Flavour.STANDARD,)
    wants: frozenset[KernelFilter] = EVERY

    def wanted_arches(self) -> tuple[str, ...]:
        """The architectures that nodes have."""
        return tuple(sorted({want.arch for want in self.wants if want.arch}))

    def flavours_for(self, stream: str, arch: str) -> tuple[Flavour, ...]:
        """The flavours to be read of a toolkit: those chosen first."""
        wants = [want for want in self.wants if want.stream in ("", stream) and want.arch in ("", arch)]
        chosen = self.flavours if any(want.flavour is None for want in wants) else ()
        named = {want.flavour for want in wants}
        return tuple(dict.fromkeys((*chosen, *(one for one in Flavour if one in named))))


def is_version(text: str) -> bool:
    """Whether the text is a bare version, whose image depends on the architectures of the nodes."""
    return bool(_VERSION.fullmatch(text)) and text.rpartition("-")[2] not in (*ARCHITECTURES.values(), MULTI)


def release_name(text: str, arches: tuple[str, ...]) -> str:
    """The image name of a release: a bare version becomes a tag of the public releases, as oc names them."""
    if not _VERSION.fullmatch(text):
        return text
    suffixes = (*ARCHITECTURES.values(), MULTI)
    if text.rpartition("-")[2] in suffixes:
        return f"{PUBLIC_RELEASES}:{text}"
    if not arches:
        return f"{PUBLIC_RELEASES}:{text}-{ARCHITECTURES['amd64']}"
    one = arches[0] if len(arches) == 1 else MULTI
    return f"{PUBLIC_RELEASES}:{text}-{ARCHITECTURES.get(one, one)}"
