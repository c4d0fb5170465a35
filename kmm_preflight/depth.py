"""How deep a run proves: to the kmod's path, to what the node finds, or to what the kernel's loader says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Depth(Enum):
    """How far into an image a run looks; each depth holds those before it."""

    PATH = "path"
    NODE = "node"
    KERNEL = "kernel"

    def reaches(self, other: Depth) -> bool:
        """Whether a proof of this depth proves what the other does."""
        order = list(Depth)
        return order.index(self) >= order.index(other)


# What one depth leaves out and the next one looks at.
_BEYOND = {
    Depth.PATH: (
        "the index (modules.dep.bin) by which modprobe finds the kmod, and which of several copies it takes",
        "dependencies, modulesLoadingOrder and firmware",
        "what the copy of the folder onto the node (cp -R) leaves of links",
        "the shell and tools that KMM needs in the image",
    ),
    Depth.NODE: (
        "the object beyond that it is one: architecture, vermagic, symbols and their versions, type data",
        "names and symbols that the kernel itself has already",
    ),
    Depth.KERNEL: (),
}
_LIBRARIES = "libraries of the image's shell and tools, beyond their loader"
_BY_NO_FILE = (
    "lockdown, and which keys the node's firmware and kernel have enrolled",
    "parameters of kmods, and what their own init does when it starts",
    "which other kmods a node has loaded by then",
    _LIBRARIES,
    "layers below those that had to be read: asked for, not unpacked",
)
_WITH_TRIAL = (
    "lockdown, and which keys the node's firmware and kernel have enrolled",
    "what kmods do where their devices are, and beside the other kmods of a node",
    _LIBRARIES,
    "layers below those that had to be read: asked for, not unpacked",
)
_SIGNATURES = "signatures, where a Module has no sign section (--require-signature)"


@dataclass(frozen=True)
class ProofOptions:
    """What a run asks of each kmod. assume_loaded are in-tree kmods that nodes have, with _ for -.

    kmm_version decides what KMM's worker does on the node, None for the newest. trial is how kmods are tried in a
    virtual machine, in words, "" where they are not.
    """

    depth: Depth = Depth.KERNEL
    assume_loaded: frozenset[str] = frozenset()
    require_signature: bool = False
    kmm_version: str | None = None
    trial: str = ""

    @property
    def not_checked(self) -> tuple[str, ...]:
        """What a green of this run does not say."""
        order = list(Depth)
        beyond = [words for depth in order[order.index(self.depth) :] for words in _BEYOND[depth]]
        signatures = () if self.require_signature else (_SIGNATURES,)
        return (*beyond, *signatures, *(_WITH_TRIAL if self.trial else _BY_NO_FILE))

    @property
    def words(self) -> str:
        """The same in a few words, as the record keeps them."""
        parts = [self.depth.value]
        if self.require_signature:
            parts.append("signature required")
        if self.assume_loaded and self.depth is Depth.KERNEL:
            parts.append(f"assuming {', '.join(sorted(self.assume_loaded))}")
        if self.kmm_version and self.depth.reaches(Depth.NODE):
            parts.append(f"as KMM {self.kmm_version}")
        if self.trial:
            parts.append(self.trial)
        return "; ".join(parts)
