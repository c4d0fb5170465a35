"""Decompression of gzip, zstd, xz and bzip2 streams in pieces of bounded size, whatever the streams claim."""

from __future__ import annotations

import bz2
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
except ImportError:  # no wheel exists for this machine: the standard library is slower, and correct
    import zlib  # type: ignore[no-redef]  # the same interface, with an error class of its own

PIECE_BYTES = 1 << 18
# Packed input is read in smaller pieces: a decompressor copies its unread input on each call.
_READ_BYTES = 1 << 16
# A window costs memory. zstd -19 --long needs 32 MiB; only --ultra --long=31 needs more.
ZSTD_WINDOW_LOG = 25
# xz -9 reserves 65 MiB, and touches only as much as it uses.
XZ_MEMORY_BYTES = 72 << 20

GZIP, ZSTD, XZ, BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"
# Skippable frames hold no data. The first byte of their magic has 16 possible values (RFC 8878, 3.1.2).
_ZSTD_SKIPPABLE = tuple(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))


class CutShort(Malformed):
    """A compressed stream that ends too early."""


class _Decompressor(Protocol):
    """A decompressor for a member of a compressed stream."""

    @property
    def eof(self) -> bool:
        """True if the member has ended."""

    @property
    def unused_data(self) -> bytes:
        """Input after the end of the member."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield all output for the input, in pieces."""


class _Gzip:
    """A gzip member."""

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


class _ZstdOrXz:
    """A zstd frame, xz stream or bzip2 stream: all have the interface of lzma.LZMADecompressor."""

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
    return _ZstdOrXz(zstd.ZstdDecompressor(options=options))  # type: ignore[arg-type]  # same methods, other class


def _xz() -> _Decompressor:
    return _ZstdOrXz(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES))


class _Bzip2(_ZstdOrXz):
    """A bzip2 stream. Its decompressor raises OSError for damage, like a file that cannot be read."""

    def __init__(self) -> None:
        super().__init__(bz2.BZ2Decompressor())  # type: ignore[arg-type]  # same methods, other class

    def pieces(self, data: bytes) -> Iterator[bytes]:
        try:
            yield from super().pieces(data)
        except OSError as exc:
            raise lzma.LZMAError(str(exc)) from exc


_BY_MAGIC: dict[bytes, Callable[[], _Decompressor]] = {
    GZIP: _Gzip,
    ZSTD: _zstd,
    XZ: _xz,
    BZIP2: _Bzip2,
    **dict.fromkeys(_ZSTD_SKIPPABLE, _zstd),
}


NextMember = Callable[[bytes, Iterator[bytes]], bytes]
"""A rule for the input after a member: takes the unused input and the rest, returns the next member's first bytes.

It returns b"" if no member follows.
"""


def next_member(unused: bytes, rest: Iterator[bytes]) -> bytes:
    """Return the first bytes of the next member. Treat all input after a member as another member."""
    return unused or next(rest, b"")


def read_pieces(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in pieces."""
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            yield piece


def decompress(chunks: Iterable[bytes], subject: str, after: NextMember = next_member) -> Iterator[bytes]:
    """Yield the plain bytes of a stream. Recognise gzip, zstd, xz and bzip2 by their first bytes.

    Yield other streams as they are.
    Consecutive members count as one stream (eStargz writes them so). Raise Malformed if the stream is damaged or cut
    short. Raise BoundExceeded if it needs more memory than a node would give. Both name the subject.
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
        yield from _members(make, after, chain([head], stream), subject)
    except (zlib.error, lzma.LZMAError, zstd.ZstdError, EOFError) as exc:  # type: ignore[misc]  # isal's stub errs
        words = str(exc).lower()
        if "memory" in words or "window" in words:
            raise BoundExceeded(f"{subject}: decompression needs too much memory ({exc})") from exc
        raise Malformed(f"{subject}: the compressed stream is damaged ({exc})") from exc


def _members(
    make: Callable[[], _Decompressor], after: NextMember, stream: Iterator[bytes], subject: str
) -> Iterator[bytes]:
    member, data = make(), next(stream)
    while True:
        yield from member.pieces(data)
        data = b""
        if member.eof:
            data = after(member.unused_data, stream)
            if not data:
                return
            member = make()
        elif not (data := next(stream, b"")):
            raise CutShort(f"{subject}: the compressed stream is cut short")
