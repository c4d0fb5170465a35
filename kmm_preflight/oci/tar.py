"""A walk over the headers of a tar stream: ustar, pax and GNU long names; contents pass by in pieces.

The standard library's tarfile reads what a header claims into memory and keeps every member: neither is safe for an
image of unknown origin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from kmm_preflight.errors import BoundExceeded, Malformed

BLOCK = 512
PATH_BYTES = 4096  # PATH_MAX
EXTENSION_BYTES = 1 << 20
STREAM_BYTES = 16 << 30  # an unpacked layer


class Kind(Enum):
    """What a tar entry is; the value is its letter in a layer's index."""

    FILE = "f"
    FOLDER = "d"
    SYMLINK = "l"
    HARDLINK = "h"
    DEVICE = "c"


_KINDS = {b"0": Kind.FILE, b"\0": Kind.FILE, b"7": Kind.FILE, b"S": Kind.FILE, b"1": Kind.HARDLINK,
          b"2": Kind.SYMLINK, b"3": Kind.DEVICE, b"4": Kind.DEVICE, b"5": Kind.FOLDER, b"6": Kind.DEVICE}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A tar entry. path and link are normalised to have no leading ./ or /; size counts the bytes in the stream."""

    path: str
    kind: Kind
    size: int
    mode: int
    link: str


class ByteReader:
    """Reads and skips in a stream of chunks, forward only, up to a bound."""

    def __init__(self, chunks: Iterator[bytes], subject: str, bound: int = STREAM_BYTES) -> None:
        self._chunks = chunks
        self._subject = subject
        self._bound = bound
        self._buffer = b""
        self._at = 0
        self.position = 0

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next size bytes in pieces; Malformed when the stream ends before."""
        while size:
            if self._at == len(self._buffer):
                self._buffer, self._at = next(self._chunks, b""), 0
                if not self._buffer:
                    raise Malformed(f"{self._subject}: the tar stream is cut short")
            piece = self._buffer[self._at : self._at + size]
            self._at += len(piece)
            self.position += len(piece)
            size -= len(piece)
            if self.position > self._bound:
                raise BoundExceeded(f"{self._subject}: more than {self._bound >> 30} GiB when unpacked")
            yield piece

    def read(self, size: int) -> bytes:
        """The next size bytes at once."""
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> None:
        """Passes over size bytes."""
        for _ in self.pieces(size):
            pass

    def at_end(self) -> bool:
        """Whether the stream has ended."""
        while self._at == len(self._buffer):
            self._buffer, self._at = next(self._chunks, b""), 0
            if not self._buffer:
                return True
        return False


def walk(reader: ByteReader, subject: str) -> Iterator[Member]:
    """The members in order. Before the next one, the caller may read member.size bytes of content and no more.

    Malformed for a damaged header or a name that leads out of the image; BoundExceeded for endless names.
    """
    extended: dict[str, str] = {}
    while not reader.at_end():
        header = reader.read(BLOCK)
        if not header.strip(b"\0"):
            return
        _check_sum(header, subject)
        size, flag = _number(header[124:136], subject), header[156:157]
        if flag in b"xgLK":
            extended |= _extension(reader, flag, size, subject)
            continue
        member = _member(header, flag, size, extended, subject)
        extended = {}
        if flag == b"S":
            _skip_sparse_map(reader, header)
        end = reader.position + -(-member.size // BLOCK) * BLOCK
        yield member
        reader.skip(end - reader.position)


def _member(header: bytes, flag: bytes, size: int, extended: dict[str, str], subject: str) -> Member:
    kind = _KINDS.get(flag)
    if kind is None:
        raise Malformed(f"{subject}: a tar entry of unknown type {flag!r}")
    name = extended.get("GNU.sparse.name") or extended.get("path") or _name(header)
    link = extended.get("linkpath") or _text(header[157:257])
    if "size" in extended:
        size = _decimal(extended["size"], subject)
    if len(name) > PATH_BYTES or len(link) > PATH_BYTES:
        raise BoundExceeded(f"{subject}: a name of more than {PATH_BYTES} bytes")
    if kind is Kind.FILE and name.endswith("/"):
        kind = Kind.FOLDER  # as old tars spell a folder
    stored = size if kind is Kind.FILE else 0
    path = normal_path(name, subject)
    return Member(path, kind, stored, _number(header[100:108], subject) & 0o7777,
                  normal_path(link, subject) if kind is Kind.HARDLINK else link)  # fmt: skip


def normal_path(name: str, subject: str) -> str:
    """The name below the image's root; Malformed when it leads out of it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Malformed(f"{subject}: entry {name[:200]!r} leads out of the image")
    return "/".join(parts)


def _name(header: bytes) -> str:
    name = _text(header[0:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes, subject: str) -> int:
    if field[0] & 0x80:  # base 256, for sizes beyond 8 GiB
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40 or value > STREAM_BYTES:
            raise BoundExceeded(f"{subject}: a tar entry of {value} bytes")
        return value
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError as exc:
        raise Malformed(f"{subject}: a tar header with a number that is none ({field[:20]!r})") from exc


def _decimal(text: str, subject: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise Malformed(f"{subject}: a tar header with a size that is none ({text[:20]!r})")
    return int(text)


def _check_sum(header: bytes, subject: str) -> None:
    stated = _number(header[148:156], subject)
    got = sum(header) - sum(header[148:156]) + 8 * 0x20
    if stated != got:
        raise Malformed(f"{subject}: a tar header with checksum {got}, expected {stated}")


def _extension(reader: ByteReader, flag: bytes, size: int, subject: str) -> dict[str, str]:
    if size > EXTENSION_BYTES:
        raise BoundExceeded(f"{subject}: a tar header of {size} bytes")
    body = reader.read(size)
    reader.skip(-size % BLOCK)
    match flag:
        case b"L":
            return {"path": _text(body)}
        case b"K":
            return {"linkpath": _text(body)}
        case b"x":
            return dict(_pax_records(body, subject))
        case _:
            return {}  # global headers carry comments; paths and sizes in them would name every file alike


def _pax_records(body: bytes, subject: str) -> Iterator[tuple[str, str]]:
    while body:
        digits, space, _ = body.partition(b" ")
        if not space or not digits.isdigit() or len(digits) > 7 or not 5 <= int(digits) <= len(body):
            raise Malformed(f"{subject}: a damaged pax header")
        record, body = body[len(digits) + 1 : int(digits) - 1], body[int(digits) :]
        key, _, value = record.partition(b"=")
        if b"\0" in value and key in (b"path", b"linkpath"):
            raise Malformed(f"{subject}: a name with a NUL byte")
        yield key.decode("utf-8", "replace"), value.decode("utf-8", "surrogateescape")


def _skip_sparse_map(reader: ByteReader, header: bytes) -> None:
    more = header[482]
    while more:
        more = reader.read(BLOCK)[504]
