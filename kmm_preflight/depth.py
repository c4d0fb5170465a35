"""Depth of proof: to the kmod's path, to what the node does, or to what the kernel's loader says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Depth(Enum):
    """Depth of proof. Each depth includes the depths before it."""

    PATH = "path"
    NODE = "node"
    KERNEL = "kernel"

    def reaches(self, other: Depth) -> bool:
        """True if a proof of this depth includes a proof of the other depth."""
        order = list(Depth)
        return order.index(self) >= order.index(other)


# Checks that a depth leaves out and the next depth includes.
_BEYOND = {
    Depth.PATH: (
        "the index (modules.dep.bin) in which modprobe finds the kmod, and which of several copies modprobe takes",
        "dependencies, modulesLoadingOrder and firmware",
        "links that the copy of the folder to the node (cp -R) breaks",
        "the shell and tools that KMM needs in the image",
    ),
    Depth.NODE: (
        "the kmod beyond its ELF header: architecture, vermagic, symbols and their versions, type data",
        "names and symbols that the kernel itself already has",
    ),
    Depth.KERNEL: (),
}
_LIBRARIES = "libraries of the image's shell and tools, except their loader"
_KEYS = "lockdown, and the keys that the node's firmware and kernel have enrolled"
_LAYERS = "lower image layers: confirmed to exist in the registry, contents not read"
_FROM_FILES = (
    _KEYS,
    "parameters of kmods, and what a kmod's own init does when it starts",
    "kmods that nodes load for somebody else than the Modules of the run",
    _LIBRARIES,
    _LAYERS,
)
_WITH_TRIAL = (
    _KEYS,
    "what kmods do on a node with their devices, next to its other kmods",
    _LIBRARIES,
    _LAYERS,
)
_SIGNATURES = "signatures of Modules without a sign section (--require-signature)"


@dataclass(frozen=True)
class ProofOptions:
    """Requirements of a run for each kmod."""

    depth: Depth = Depth.KERNEL
    """The depth of proof."""
    assume_loaded: frozenset[str] = frozenset()
    """In-tree kmods that nodes have loaded, with _ instead of -."""
    require_signature: bool = False
    """True if each kmod must be signed, with or without a sign section."""
    kmm_version: str | None = None
    """Version of KMM, which decides what its worker does on the node. None for the newest."""
    trial: str | None = None
    """The trial in a virtual machine, in words. None for a run without trials."""

    @property
    def not_checked(self) -> tuple[str, ...]:
        """Checks that this run leaves out, for the reader of a green report."""
        order = list(Depth)
        beyond = [words for depth in order[order.index(self.depth) :] for words in _BEYOND[depth]]
        signatures = () if self.require_signature else (_SIGNATURES,)
        return (*beyond, *signatures, *(_WITH_TRIAL if self.trial else _FROM_FILES))

    @property
    def words(self) -> str:
        """The options in a few words, for reports and for the record of a PreflightValidationOCP."""
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
