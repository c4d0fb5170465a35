"""Reader of tar streams: ustar, pax and GNU long names. Contents come in pieces.

The standard library's tarfile reads as many bytes into memory as a header claims, and keeps every member. Neither is
safe for an image of unknown origin.
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
# Headers and records cost time even if they name no file: without these bounds a stream could take hours.
HEADERS_IN_A_STREAM = 1_200_000
PAX_RECORDS_IN_A_STREAM = 8_000_000


class EntryKind(Enum):
    """Kinds of tar entries. The value is the letter in a layer's index."""

    FILE = "f"
    FOLDER = "d"
    SYMLINK = "l"
    HARDLINK = "h"
    DEVICE = "c"


_KINDS = {
    **dict.fromkeys((b"0", b"\0"), EntryKind.FILE),
    b"1": EntryKind.HARDLINK,
    b"2": EntryKind.SYMLINK,
    **dict.fromkeys((b"3", b"4", b"6"), EntryKind.DEVICE),
    b"5": EntryKind.FOLDER,
}


@dataclass(frozen=True)
class Member:
    """An entry of a tar stream."""

    path: str
    """The normalised path, without a leading ./ or /."""
    kind: EntryKind
    """The kind of entry."""
    size: int
    """The number of bytes in the stream. For a sparse file these bytes are not its content."""
    mode: int
    """The permission bits."""
    link: str
    """The target of a symbolic or hard link. The target of a hard link is normalised."""
    sparse: bool = False
    """True for a sparse file."""
    absolute: bool = False
    """True if the name in the stream begins with a slash."""


class ByteReader:
    """A reader of a stream of chunks. It only moves forward, up to a bound in bytes."""

    def __init__(self, chunks: Iterator[bytes], subject: str, bound: int = STREAM_BYTES) -> None:
        self._chunks = chunks
        self._subject = subject
        self._bound = bound
        self._buffer = b""
        self._at = 0
        self.position = 0

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next bytes in pieces. Raise Malformed if the stream ends before."""
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
        """Return the next bytes."""
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> None:
        """Read and drop the next bytes."""
        for _ in self.pieces(size):
            pass

    def skip_padding(self, size: int) -> None:
        """Read and drop the next bytes. The stream may end before: some tars lack the padding of the last file."""
        while size and not self.at_end():
            piece = min(size, len(self._buffer) - self._at)
            self.skip(piece)
            size -= piece

    def skip_rest(self) -> None:
        """Read and drop the rest of the stream. Damage in the rest raises an error too."""
        while not self.at_end():
            self.skip(len(self._buffer) - self._at)

    def at_end(self) -> bool:
        """True if the stream has ended."""
        while self._at == len(self._buffer):
            self._buffer, self._at = next(self._chunks, b""), 0
            if not self._buffer:
                return True
        return False


def walk(reader: ByteReader, subject: str) -> Iterator[Member]:
    """Yield the members in order. After each member the caller may read up to member.size bytes from the reader.

    Raise Malformed for a damaged header or a name that leads out of the image, BoundExceeded for a name that is too
    long or for too many headers.
    """
    extended = _Extended(subject)
    for header in _headers(reader, subject):
        size, flag = _number(header[124:136], subject), header[156:157]
        if flag in b"xgLK":
            extended.read(reader, flag, size)
            continue
        member = _member(header, flag, size, extended.fields, subject)
        extended.fields = {}
        content = reader.position + member.size
        yield member
        reader.skip(content - reader.position)
        reader.skip_padding(-member.size % BLOCK)


def _headers(reader: ByteReader, subject: str) -> Iterator[bytes]:
    """Yield header blocks up to the end mark (two blocks of zeros), or to the end of the stream."""
    count = 0
    while not reader.at_end():
        header = reader.read(BLOCK)
        if not header.strip(b"\0"):
            if not reader.at_end() and reader.read(BLOCK).strip(b"\0"):
                raise Malformed(f"{subject}: got one block of zeros between tar entries, expected two at the end")
            return
        _check_sum(header, subject)
        count += 1
        if count > HEADERS_IN_A_STREAM:
            raise BoundExceeded(f"{subject}: more than {HEADERS_IN_A_STREAM} tar headers")
        yield header


def _member(header: bytes, flag: bytes, size: int, extended: dict[str, str], subject: str) -> Member:
    kind = _KINDS.get(flag)
    if kind is None:
        raise Malformed(f"{subject}: a tar entry of unknown type {flag!r}")
    name = extended.get("GNU.sparse.name") or extended.get("path") or _name(header)
    link = extended.get("linkpath") or _text(header[157:257])
    if extended.get("size"):
        size = _decimal(extended["size"], subject)
    if len(name) > PATH_BYTES or len(link) > PATH_BYTES:
        raise BoundExceeded(f"{subject}: a name of more than {PATH_BYTES} bytes")
    if kind is EntryKind.FILE and name.endswith("/"):
        kind = EntryKind.FOLDER  # the spelling of a folder in old tars
    return Member(
        normal_path(name, subject),
        kind,
        size if kind is EntryKind.FILE else 0,
        _number(header[100:108], subject) & 0o7777,
        normal_path(link, subject) if kind is EntryKind.HARDLINK else link,
        any(key.decode() in extended for key in _SPARSE_KEYS),
        name.startswith("/"),
    )


def normal_path(name: str, subject: str) -> str:
    """Return the path below the image's root. Resolve `..` in the text, as nodes do.

    Raise Malformed if the path leads out of the image.
    """
    parts: list[str] = []
    for part in name.split("/"):
        if part != "..":
            parts += [part] if part not in ("", ".") else []
        elif parts:
            parts.pop()
        elif not name.startswith("/"):
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
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ") or b"0"
    try:
        if digits.isdigit():  # int() also accepts a sign and underscores
            return int(digits, 8)
    except ValueError:
        pass
    raise Malformed(f"{subject}: a tar header with an invalid number ({field[:20]!r})")


def _decimal(text: str, subject: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise Malformed(f"{subject}: a tar header with an invalid size ({text[:20]!r})")
    return int(text)


def _check_sum(header: bytes, subject: str) -> None:
    stated = _number(header[148:156], subject)
    rest = header[:148] + header[156:]
    got = sum(rest) + 8 * 0x20
    if stated == got:
        return
    if stated != got - 256 * sum(byte > 127 for byte in rest):  # old tars sum signed bytes
        raise Malformed(f"{subject}: a tar header: got checksum {got}, expected {stated}")


class _Extended:
    """Fields of extension headers for the next member. Fields that this file does not use are dropped."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._records = 0
        self.fields: dict[str, str] = {}

    def read(self, reader: ByteReader, flag: bytes, size: int) -> None:
        """Read an extension header. Its body comes next in the stream."""
        if size > EXTENSION_BYTES:
            raise BoundExceeded(f"{self._subject}: a tar header of {size} bytes")
        body = reader.read(size)
        reader.skip(-size % BLOCK)
        match flag:
            case b"L":
                self.fields["path"] = _text(body)
            case b"K":
                self.fields["linkpath"] = _text(body)
            case b"x":
                self._take_pax(body)
            case _:
                pass  # global headers hold comments: a path or size would apply to every file

    def _take_pax(self, body: bytes) -> None:
        for key, value in _pax_records(body, self._subject):
            self._records += 1
            if self._records > PAX_RECORDS_IN_A_STREAM:
                raise BoundExceeded(f"{self._subject}: more than {PAX_RECORDS_IN_A_STREAM} pax records")
            if key not in _PAX_KEYS:
                continue
            if b"\0" in value:
                raise Malformed(f"{self._subject}: a name with a NUL byte")
            self.fields[key.decode()] = value.decode("utf-8", "surrogateescape")


# GNU tar's formats 0.0 and 0.1 have the first key, format 1.0 the second.
_SPARSE_KEYS = (b"GNU.sparse.size", b"GNU.sparse.major")
_PAX_KEYS = (b"path", b"linkpath", b"size", b"GNU.sparse.name", *_SPARSE_KEYS)


def _pax_records(body: bytes, subject: str) -> Iterator[tuple[bytes, bytes]]:
    start = 0
    while start < len(body):
        digits, space, _ = body[start : start + 9].partition(b" ")
        if not space or not digits.isdigit() or not 5 <= int(digits) <= len(body) - start:
            raise Malformed(f"{subject}: a damaged pax header")
        end = start + int(digits)
        key, _, value = body[start + len(digits) + 1 : end - 1].partition(b"=")
        yield key, value
        start = end
