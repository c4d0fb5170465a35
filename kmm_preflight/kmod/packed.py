"""Files of kmods: their compression, and the ELF object inside."""

from __future__ import annotations

import mmap
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from kmm_preflight.base.decompression import GZIP, XZ, ZSTD, CutShort, NextMember, decompress, next_member, read_pieces
from kmm_preflight.errors import BoundExceeded, Malformed

MAGIC = b"\x7fELF"
HEADER_BYTES = 64
UNPACKED_BYTES = 512 << 20
_FORMATS = {GZIP: "gzip", XZ: "xz", ZSTD: "zstd"}
_RELOCATABLE = 1
_BIG_ENDIAN = 2
# Flags of a gzip header that have no meaning. zlib refuses a header with one of them; other readers accept it.
_RESERVED = 0xE0
_PADDING = 4

ObjectBytes = bytes | mmap.mmap
"""The bytes of an ELF object: in memory, or mapped from a file."""


def compression(data: bytes) -> str | None:
    """Return gzip, xz or zstd by the first bytes of the data, or None if the data is not compressed."""
    return next((name for magic, name in _FORMATS.items() if data.startswith(magic)), None)


def plain_pieces(chunks: Iterable[bytes], subject: str) -> Iterator[bytes]:
    """Yield the object of a compressed kmod in pieces. The first chunk must have the whole magic.

    As kmod's tools accept them (tested with each): xz may have padding, gzip may have other bytes behind it, and gzip
    and zstd may be cut short behind the end of the object, in their checksum. Raise Malformed and BoundExceeded as
    `decompress` does.
    """
    stream = iter(chunks)
    head = next(stream, b"")
    after: NextMember = next_member
    if head.startswith(GZIP):
        after = _next_gzip_member
        if len(head) > len(GZIP) + 1 and head[len(GZIP) + 1] & _RESERVED:
            raise Malformed(f"{subject}: the compressed stream is damaged (unknown flags)")
    elif head.startswith(XZ):
        after = _next_xz_stream
    begin, size = b"", 0
    try:
        for piece in decompress(chain([head], stream), subject, after):
            begin += piece[: HEADER_BYTES - len(begin)]
            size += len(piece)
            yield piece
    except CutShort:
        if head.startswith(XZ) or _header_problem(begin, size):
            raise


def _next_gzip_member(unused: bytes, rest: Iterator[bytes]) -> bytes:
    """Return the first bytes of the next member. If other bytes follow, ignore all the rest and return b""."""
    while len(unused) < len(GZIP) and (more := next(rest, b"")):
        unused += more
    return unused if unused.startswith(GZIP) else b""


def _next_xz_stream(unused: bytes, rest: Iterator[bytes]) -> bytes:
    """Return the first bytes of the next stream. Zero bytes in multiples of four may be before it."""
    zeros, data = 0, unused
    while data or (data := next(rest, b"")):
        left = data.lstrip(b"\0")
        zeros += len(data) - len(left)
        data = left
        if left:
            break
    if zeros % _PADDING:
        raise Malformed(f"the compressed stream is damaged ({zeros} zero bytes behind it)")
    return data


def elf_problem(path: Path) -> str | None:
    """Return words for the content of a file that is not a whole ELF object, or None for a whole ELF object.

    The object may be compressed; the first bytes decide, as they do for the loader. Only the ELF header is read, and
    the file must reach the end of the section headers. Sections, symbols and architecture are not checked. Raise
    BoundExceeded if the unpacked object has more than 512 MiB, or if unpacking needs too much memory.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if not head:
        return "an empty file"
    packed = compression(head)
    if packed is None:
        return _header_problem(head, path.stat().st_size)
    try:
        problem = _header_problem(*_unpacked_header(path))
    except Malformed as exc:
        return f"damaged {packed} data ({exc.message})"
    return f"{packed} of {problem}" if problem else None


def _unpacked_header(path: Path) -> tuple[bytes, int]:
    """Return the first bytes of the unpacked object, and its size.

    Read to the end: only the end shows that a stream is cut short.
    """
    head, size = b"", 0
    for piece in plain_pieces(read_pieces(path), "kmod"):
        head += piece[: HEADER_BYTES - len(head)]
        size += len(piece)
        _check_size(size, path)
    return head, size


def _header_problem(head: bytes, size: int) -> str | None:
    if not head.startswith(MAGIC):
        kind = "text" if head[:64].isascii() and b"\0" not in head[:64] else "other data"
        return f"{kind} that starts {head[:16]!r}"
    if size < HEADER_BYTES:
        return f"an ELF header cut short after {size} bytes"
    end = _end_of_headers(head)
    return f"an ELF object cut short after {size} of {end} bytes" if size < end else None


def _end_of_headers(head: bytes) -> int:
    """Return the end of the section headers, which are the last part of a relocatable object."""
    order = ">" if head[5] == _BIG_ENDIAN else "<"
    (kind,) = struct.unpack_from(f"{order}H", head, 16)
    (start,) = struct.unpack_from(f"{order}Q", head, 40)
    size, count = struct.unpack_from(f"{order}HH", head, 58)
    return int(start) + int(size) * int(count) if kind == _RELOCATABLE else 0


@contextmanager
def unpacked(path: Path) -> Iterator[ObjectBytes]:
    """Map the object of a kmod file into memory until the context ends.

    A compressed object is unpacked into a temporary file first; the first bytes decide. Raise Malformed if the stream
    is damaged, and BoundExceeded if the object has more than 512 MiB.
    """
    with path.open("rb") as file:
        if compression(file.read(len(XZ))):
            with tempfile.TemporaryFile() as out:
                size = 0
                for piece in plain_pieces(read_pieces(path), "kmod"):
                    size += len(piece)
                    _check_size(size, path)
                    out.write(piece)
                out.flush()
                with _mapped(out.fileno(), size) as data:
                    yield data
            return
        size = path.stat().st_size
        _check_size(size, path)
        with _mapped(file.fileno(), size) as data:
            yield data


@contextmanager
def _mapped(descriptor: int, size: int) -> Iterator[ObjectBytes]:
    if not size:
        raise Malformed("an empty file")
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as data:
        yield data


def _check_size(size: int, path: Path) -> None:
    if size > UNPACKED_BYTES:
        raise BoundExceeded(f"kmod {path.name}: more than {UNPACKED_BYTES >> 20} MiB when unpacked")
