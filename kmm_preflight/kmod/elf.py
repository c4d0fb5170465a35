"""What a file that is named like a kmod really is."""

from __future__ import annotations

import struct
from pathlib import Path

from kmm_preflight.base.decompression import GZIP, XZ, ZSTD, pieces_of
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.packed import plain_pieces

MAGIC = b"\x7fELF"
HEADER_BYTES = 64
UNPACKED_BYTES = 512 << 20
_PACKED = {GZIP: "gzip", XZ: "xz", ZSTD: "zstd"}
_RELOCATABLE = 1
_BIG_ENDIAN = 2


def why_not_elf(path: Path) -> str:
    """Words for what the file holds instead of a whole ELF object; "" when it is one, compressed or not.

    Compression is told by content, as the loader does it. Looks at the header alone, and whether the file ends before
    the section headers: sections, symbols and architecture are not checked here. BoundExceeded for what unpacks to
    more than 512 MiB, or wants too much memory for it.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if not head:
        return "an empty file"
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), "")
    if not packed:
        return _why_not(head, path.stat().st_size)
    try:
        words = _why_not(*_unpacked(path))
    except Malformed as exc:
        return f"damaged {packed} data ({exc.message})"
    return words and f"{packed} of {words}"


def _unpacked(path: Path) -> tuple[bytes, int]:
    """The first bytes of what is compressed, and how many there are: a stream that is cut shows only at its end."""
    head, size = b"", 0
    for piece in plain_pieces(pieces_of(path), "kmod"):
        head += piece[: HEADER_BYTES - len(head)]
        size += len(piece)
        if size > UNPACKED_BYTES:
            raise BoundExceeded(f"kmod {path.name}: more than {UNPACKED_BYTES >> 20} MiB when unpacked")
    return head, size


def _why_not(head: bytes, size: int) -> str:
    if not head.startswith(MAGIC):
        kind = "text" if head[:64].isascii() and b"\0" not in head[:64] else "other data"
        return f"{kind} that starts {head[:16]!r}"
    if size < HEADER_BYTES:
        return f"an ELF header cut short after {size} bytes"
    end = _end_of_sections(head)
    return f"an ELF object cut short after {size} of {end} bytes" if size < end else ""


def _end_of_sections(head: bytes) -> int:
    """Where the section headers of a relocatable object end: they are the last of its parts."""
    order = ">" if head[5] == _BIG_ENDIAN else "<"
    (kind,) = struct.unpack_from(f"{order}H", head, 16)
    (start,) = struct.unpack_from(f"{order}Q", head, 40)
    size, count = struct.unpack_from(f"{order}HH", head, 58)
    return int(start) + int(size) * int(count) if kind == _RELOCATABLE else 0
