"""Initramfs: an uncompressed cpio archive in newc format, which the kernel unpacks."""

from __future__ import annotations

import posixpath
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, assert_never

from kmm_preflight.errors import Malformed

_TRAILER = "TRAILER!!!"
_PATH_BYTES = 4096


@dataclass(frozen=True)
class Folder:
    """Folder. The folders above an entry are added to the archive by themselves."""


@dataclass(frozen=True)
class File:
    """File that everybody may read and run."""

    content: bytes | Path
    """Its bytes, or the path of a file with them."""


@dataclass(frozen=True)
class Link:
    """Symbolic link."""

    target: str
    """Path that the link leads to."""


@dataclass(frozen=True)
class Device:
    """Character device."""

    major: int
    """Major number."""
    minor: int
    """Minor number."""


Entry = Folder | File | Link | Device


def size_of(entry: Entry) -> int:
    """Return the size of the content in bytes."""
    match entry:
        case File(content=bytes(content)):
            return len(content)
        case File(content=Path() as path):
            return path.stat().st_size
        case Link(target=target):
            return len(target.encode("utf-8", "surrogateescape"))
    return 0


def check_paths(entries: Mapping[str, Entry]) -> None:
    """Raise Malformed for a path that would make the kernel write to another place.

    A path begins at the root, without a slash. No entry may be below a link, since the kernel follows links.
    """
    for path in entries:
        encoded = path.encode("utf-8", "surrogateescape")
        is_plain = path[:1] not in ("", "/") and posixpath.normpath(f"/{path}") == f"/{path}"
        if not is_plain or b"\0" in encoded or len(encoded) > _PATH_BYTES:
            raise Malformed(f"a path {path[:80]!r} that is not plain")
        above = next((folder for folder in _above(path) if not isinstance(entries.get(folder, Folder()), Folder)), None)
        if above:
            raise Malformed(f"{path} below {above}, which is not a folder")


def write_initramfs(out: BinaryIO, entries: Mapping[str, Entry]) -> None:
    """Write the archive, with all folders before their entries. Raise Malformed as check_paths."""
    check_paths(entries)
    folders = {above: Folder() for path in entries for above in _above(path)}
    for number, (path, entry) in enumerate(sorted({**folders, **entries}.items()), start=1):
        _write(out, number, path, entry)
    _write(out, 0, _TRAILER, Folder(), mode=0)


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _write(out: BinaryIO, number: int, path: str, entry: Entry, mode: int | None = None) -> None:
    name = path.encode("utf-8", "surrogateescape") + b"\0"
    device = (entry.major, entry.minor) if isinstance(entry, Device) else (0, 0)
    size = size_of(entry)
    fields = (number, _mode(entry) if mode is None else mode, 0, 0, 1, 0, size, 0, 0, *device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out.write(head + _padding(len(head)))
    match entry:
        case File(content=bytes(content)):
            out.write(content)
        case File(content=Path() as source):
            with source.open("rb") as file:
                shutil.copyfileobj(file, out)
        case Link(target=target):
            out.write(target.encode("utf-8", "surrogateescape"))
    out.write(_padding(size))


def _mode(entry: Entry) -> int:
    match entry:
        case Folder():
            return stat.S_IFDIR | 0o755
        case File():
            return stat.S_IFREG | 0o755
        case Link():
            return stat.S_IFLNK | 0o777
        case Device():
            return stat.S_IFCHR | 0o600
    assert_never(entry)


def _padding(size: int) -> bytes:
    return bytes(-size % 4)
