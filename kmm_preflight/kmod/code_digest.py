"""Digest of a kmod's code: equal for two files of one build. Packing and signatures do not count."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kmm_preflight.kmod.packed import ObjectBytes, unpacked
from kmm_preflight.kmod.signed_file import MAGIC

_HEADER_BYTES, _SIZE_BYTES = 12, 4
_PIECE = 1 << 20


def code_digest(path: Path) -> str:
    """Return the SHA-256 of the unpacked object without its signature, in hexadecimal.

    Raise Malformed if the file cannot be unpacked, and BoundExceeded if it is too large.
    """
    with unpacked(path) as data:
        digest, end = hashlib.sha256(), _signed_end(data)
        for start in range(0, end, _PIECE):
            digest.update(data[start : min(start + _PIECE, end)])
        return digest.hexdigest()


def _signed_end(data: ObjectBytes) -> int:
    end = len(data)
    head = end - len(MAGIC)
    if head < _HEADER_BYTES or data[head:end] != MAGIC:
        return end
    size = int.from_bytes(data[head - _SIZE_BYTES : head], "big")
    return max(head - _HEADER_BYTES - size, 0) or end
