"""Streams come out of gzip, zstd and xz in pieces of bounded size, whatever they claim to be."""

from __future__ import annotations

import lzma
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

from kmm_preflight.errors import BoundExceeded, Malformed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

try:
    from isal import isal_zlib as zlib
except ImportError:  # no wheel for this machine: the standard library is slower, and right
    import zlib  # type: ignore[no-redef]  # the same interface, with an error class of its own

PIECE_BYTES = 1 << 18
# Of what is packed less at a time, as what a decompressor has not yet taken is copied each time.
_READ_BYTES = 1 << 16
# A window is memory: 32 MiB is what zstd -19 --long wants; more only --ultra --long=31.
ZSTD_WINDOW_LOG = 25
# xz -9 asks for 65 MiB, touched only as far as it is used.
XZ_MEMORY_BYTES = 72 << 20

GZIP, ZSTD, XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00"
# Frames that hold no data: the first byte of their magic may be any of these (RFC 8878, 3.1.2).
_ZSTD_SKIPPABLE = tuple(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))


class _Decompressor(Protocol):
    """One member of a compressed stream."""

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""

    @property
    def unused_data(self) -> bytes:
        """What came after the member's end."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """All output that the input gives, in pieces."""


class _Zlib:
    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._member.decompress(data, PIECE_BYTES)
            if piece:
                yield piece
            data = self._member.unconsumed_tail
            if self._member.eof or (not data and len(piece) < PIECE_BYTES):
                return


class _Bounded:
    """zstd and xz share the interface of lzma.LZMADecompressor."""

    def __init__(self, member: lzma.LZMADecompressor) -> None:
        self._member = member

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._member.decompress(data, PIECE_BYTES)
            if piece:
                yield piece
            data = b""
            if self._member.eof or (self._member.needs_input and not piece):
                return


def _zstd() -> _Decompressor:
    options = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    return _Bounded(zstd.ZstdDecompressor(options=options))  # type: ignore[arg-type]  # same methods, other class


def _xz() -> _Decompressor:
    return _Bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES))


_BY_MAGIC: dict[bytes, Callable[[], _Decompressor]] = {
    GZIP: _Zlib,
    ZSTD: _zstd,
    XZ: _xz,
    **dict.fromkeys(_ZSTD_SKIPPABLE, _zstd),
}


NextMember = Callable[[bytes, Iterator[bytes]], bytes]
"""What the next member of a stream begins with, of what came with a member's end and of the rest; b"" for none."""


def next_member(unused: bytes, rest: Iterator[bytes]) -> bytes:
    """All that stands behind a member is another one."""
    return unused or next(rest, b"")


def read_pieces(path: Path) -> Iterator[bytes]:
    """What is in a file, a piece at a time."""
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            yield piece


def decompress(chunks: Iterable[bytes], subject: str, behind: NextMember = next_member) -> Iterator[bytes]:
    """The plain bytes of a stream, told by its first bytes and not by its name; other streams as they are.

    Members that follow one another count as one stream (eStargz writes them so). Malformed names the subject when the
    stream is damaged or cut; BoundExceeded when it asks for more memory than a node would give.
    """
    stream = iter(chunks)
    head = b""
    for chunk in stream:
        head += chunk
        if len(head) >= len(XZ):
            break
    make = next((make for magic, make in _BY_MAGIC.items() if head.startswith(magic)), None)
    if make is None:
        yield head
        yield from stream
        return
    try:
        yield from _members(make, behind, chain([head], stream), subject)
    except (zlib.error, lzma.LZMAError, zstd.ZstdError, EOFError) as exc:  # type: ignore[misc]  # isal's stub errs
        words = str(exc).lower()
        if "memory" in words or "window" in words:
            raise BoundExceeded(f"{subject}: decompression wants too much memory ({exc})") from exc
        raise Malformed(f"{subject}: the compressed stream is damaged ({exc})") from exc


def _members(
    make: Callable[[], _Decompressor], behind: NextMember, stream: Iterator[bytes], subject: str
) -> Iterator[bytes]:
    member, data = make(), next(stream)
    while True:
        yield from member.pieces(data)
        data = b""
        if member.eof:
            data = behind(member.unused_data, stream)
            if not data:
                return
            member = make()
        elif not (data := next(stream, b"")):
            raise Malformed(f"{subject}: the compressed stream is cut short")
