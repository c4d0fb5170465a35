"""Bytes of a kmod file: its compression, whether it holds an ELF object, and the object as the loader gets it."""

from __future__ import annotations

import mmap
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from kmm_preflight.base.decompression import GZIP, XZ, ZSTD, NextMember, decompress, next_member, read_pieces
from kmm_preflight.errors import BoundExceeded, Malformed

MAGIC = b"\x7fELF"
HEADER_BYTES = 64
UNPACKED_BYTES = 512 << 20
_PACKED = {GZIP: "gzip", XZ: "xz", ZSTD: "zstd"}
_RELOCATABLE = 1
_BIG_ENDIAN = 2
# Flags of a gzip header that nobody has given a meaning: zlib takes none with one of them, other readers do.
_RESERVED = 0xE0
_PADDING = 4

Bytes = bytes | mmap.mmap


def plain_pieces(chunks: Iterable[bytes], subject: str) -> Iterator[bytes]:
    """The object in a compressed kmod, in pieces; the first chunk has the whole magic.

    Raises what `decompress` raises. kmod reads xz with its padding, and gzip as gzread does (tried with both).
    """
    stream = iter(chunks)
    head = next(stream, b"")
    after: NextMember = next_member
    if head.startswith(GZIP):
        after = _member_of_gzip
        if len(head) > len(GZIP) + 1 and head[len(GZIP) + 1] & _RESERVED:
            raise Malformed(f"{subject}: the compressed stream is damaged (unknown flags)")
    elif head.startswith(XZ):
        after = _stream_of_xz
    return decompress(chain([head], stream), subject, after)


def _member_of_gzip(unused: bytes, rest: Iterator[bytes]) -> bytes:
    """What is no member is passed over, with all that follows."""
    while len(unused) < len(GZIP) and (more := next(rest, b"")):
        unused += more
    return unused if unused.startswith(GZIP) else b""


def _stream_of_xz(unused: bytes, rest: Iterator[bytes]) -> bytes:
    """Between streams and at the end zero bytes may stand, four or a multiple of it."""
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
    for piece in plain_pieces(read_pieces(path), "kmod"):
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


@contextmanager
def unpacked(path: Path) -> Iterator[Bytes]:
    """The object in a kmod file, told by content; of what is not compressed, the file itself.

    Malformed for a damaged stream, BoundExceeded for more than 512 MiB. The bytes are gone when the context ends.
    """
    with path.open("rb") as file:
        if file.read(len(XZ)).startswith((GZIP, XZ, ZSTD)):
            with tempfile.TemporaryFile() as out:
                size = 0
                for piece in plain_pieces(read_pieces(path), "kmod"):
                    size += len(piece)
                    _check(size, path)
                    out.write(piece)
                out.flush()
                with _mapped(out.fileno(), size) as data:
                    yield data
            return
        size = path.stat().st_size
        _check(size, path)
        with _mapped(file.fileno(), size) as data:
            yield data


@contextmanager
def _mapped(descriptor: int, size: int) -> Iterator[Bytes]:
    if not size:
        raise Malformed("an empty file")
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as data:
        yield data


def _check(size: int, path: Path) -> None:
    if size > UNPACKED_BYTES:
        raise BoundExceeded(f"kmod {path.name}: more than {UNPACKED_BYTES >> 20} MiB when unpacked")
