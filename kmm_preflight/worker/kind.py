"""Generations of the KMM worker: each brings an image's kmods to modprobe in its own way (docs/reference/kmm.md 11)."""

from __future__ import annotations

from enum import Enum

from kmm_preflight.kmm_version import parse_kmm_version

_UNPACKED, _COPIED = (2, 0), (2, 2)


class Worker(Enum):
    """A generation of the worker. The value is the range of KMM versions."""

    POD = "1.0 to 1.1"
    """A Pod of the image runs the image's own modprobe."""
    UNPACKED = "2.0 to 2.1"
    """KMM's modprobe runs on the image's whole file system, unpacked into a folder."""
    COPIED = "2.2 and later"
    """KMM's modprobe runs on a copy of the kernel's folder. /bin/sh, mkdir and cp of the image make the copy."""

    @classmethod
    def of_version(cls, text: str | None) -> Worker:
        """Return the worker of a KMM version such as 2.3, or the newest worker for None.

        Raise UsageProblem if the text is not a version.
        """
        version = parse_kmm_version(text) if text is not None else _COPIED
        if version >= _COPIED:
            return cls.COPIED
        return cls.UNPACKED if version >= _UNPACKED else cls.POD
