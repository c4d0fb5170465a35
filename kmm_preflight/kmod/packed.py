"""Compressed kmods as the libraries of kmod read them, which pass over some of what may stand behind a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from kmm_preflight.base.decompression import GZIP, XZ, Behind, decompressed, next_member
from kmm_preflight.errors import Malformed

# Flags of a gzip header that nobody has given a meaning: zlib takes none with one of them, other readers do.
_RESERVED = 0xE0
_PADDING = 4


def plain_pieces(chunks: Iterable[bytes], subject: str) -> Iterator[bytes]:
    """The object in a compressed kmod, in pieces; the first chunk has the whole magic.

    Raises what `decompressed` raises. kmod reads xz with its padding, and gzip as gzread does (tried with both).
    """
    stream = iter(chunks)
    head = next(stream, b"")
    behind: Behind = next_member
    if head.startswith(GZIP):
        behind = _member_of_gzip
        if len(head) > len(GZIP) + 1 and head[len(GZIP) + 1] & _RESERVED:
            raise Malformed(f"{subject}: the compressed stream is damaged (unknown flags)")
    elif head.startswith(XZ):
        behind = _stream_of_xz
    return decompressed(chain([head], stream), subject, behind)


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
