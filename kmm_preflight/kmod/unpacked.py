"""The bytes of a kmod as the loader gets them: what is compressed is unpacked into a file of bounded size."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kmm_preflight.base.decompression import GZIP, XZ, ZSTD, pieces_of
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.elf import UNPACKED_BYTES
from kmm_preflight.kmod.packed import plain_pieces

Bytes = bytes | mmap.mmap


@contextmanager
def unpacked(path: Path) -> Iterator[Bytes]:
    """The object in a kmod file, told by content; of what is not compressed, the file itself.

    Malformed for a damaged stream, BoundExceeded for more than 512 MiB. The bytes are gone when the context ends.
    """
    with path.open("rb") as file:
        if file.read(len(XZ)).startswith((GZIP, XZ, ZSTD)):
            with tempfile.TemporaryFile() as out:
                size = 0
                for piece in plain_pieces(pieces_of(path), "kmod"):
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
