"""How the parts of KMM that run on a node bring an image's kmods to modprobe (docs/reference/kmm.md 11)."""

from __future__ import annotations

from enum import Enum

from kmm_preflight.kmm_version import parse_kmm_version

_UNPACKED, _COPIED = (2, 0), (2, 2)


class Worker(Enum):
    """The three ways."""

    POD = "1.0 to 1.1"
    """modprobe of the image, in a Pod of the image."""
    UNPACKED = "2.0 to 2.1"
    """modprobe of KMM, on the image's whole file system below some folder."""
    COPIED = "2.2 and later"
    """modprobe of KMM, on a copy of the kernel's folder that /bin/sh, mkdir and cp of the image have made."""

    @classmethod
    def of_version(cls, text: str | None) -> Worker:
        """That of a KMM version such as 2.3; without one the newest. UsageProblem for what is no version."""
        version = parse_kmm_version(text) if text is not None else _COPIED
        if version >= _COPIED:
            return cls.COPIED
        return cls.UNPACKED if version >= _UNPACKED else cls.POD
