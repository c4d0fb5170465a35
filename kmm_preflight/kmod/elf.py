"""What a file that is named like a kmod really is."""

from __future__ import annotations

from pathlib import Path

from kmm_preflight.errors import Malformed
from kmm_preflight.oci.compression import GZIP, XZ, ZSTD, decompressed

MAGIC = b"\x7fELF"
HEADER_BYTES = 64
_PIECE = 1 << 16


def why_not_elf(path: Path) -> str:
    """Words for what the file holds instead of an ELF object; "" when it is one, compressed or not.

    Compression is told by content, as the loader does it. Looks at the header alone: sections, symbols and
    architecture are not checked here. BoundExceeded when decompression wants too much memory.
    """
    with path.open("rb") as file:
        head = file.read(_PIECE)
        if not head:
            return "an empty file"
        packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), "")
        if not packed:
            return _why_not(head, "")
        try:
            return _why_not(_start(path), f"{packed} of ")
        except Malformed as exc:
            return f"damaged {packed} data ({exc.message})"


_PACKED = {GZIP: "gzip", XZ: "xz", ZSTD: "zstd"}


def _start(path: Path) -> bytes:
    start = b""
    with path.open("rb") as file:
        for piece in decompressed(iter(lambda: file.read(_PIECE), b""), "kmod"):
            start += piece
            if len(start) >= HEADER_BYTES:
                break
    return start


def _why_not(head: bytes, packed: str) -> str:
    if not head.startswith(MAGIC):
        kind = "text" if head[:64].isascii() and b"\0" not in head[:64] else "other data"
        return f"{packed}{kind} that starts {head[:16]!r}"
    if len(head) < HEADER_BYTES:
        return f"{packed}an ELF header cut short after {len(head)} bytes"
    return ""
