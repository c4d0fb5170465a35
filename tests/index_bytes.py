"""Indexes of modules made byte by byte."""

from __future__ import annotations

import struct

PREFIX, VALUES, CHILDREN = 1 << 31, 1 << 30, 1 << 29


def leaf(prefix: bytes, value: bytes) -> bytes:
    """Return a node with a prefix and one value."""
    return prefix + b"\0" + struct.pack(">II", 1, 0) + value + b"\0"


def index_of(*nodes: bytes, root: int) -> bytes:
    """Return an index with these nodes. root: the reference to the first one, with its flags."""
    return struct.pack(">III", 0xB007F457, 2 << 16 | 1, root) + b"".join(nodes)
