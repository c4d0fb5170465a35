"""The cache on disk: indexes of layers, and the bytes of single files, both by digest.

Every entry is checked when it is read: an index has a checksum, and the name of a file is its digest. A folder that
other users can write is refused.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock

from kmm_preflight.base.sorted_table import TableDamaged
from kmm_preflight.oci.index import LayerIndex, write_index

_VERSION = "v1"
_NEW = ".new-"
_LAYERS, _FILES, _LOCKS = "layers", "files", "locks"
# A temporary file of this age is from a run that was killed. A younger one may still be written.
_ABANDONED_SECONDS = 24 * 3600


class Cache:
    """A folder that only this user can write. Every write is atomic: a reader finds a whole entry or no entry."""

    def __init__(self, folder: Path) -> None:
        """Create the folder if needed. Raise OSError if it is not writable, PermissionError if others can write it."""
        self._root = folder / _VERSION
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.mkdir(mode=0o700, exist_ok=True)
        for part in (_LAYERS, _FILES, _LOCKS):
            (self._root / part).mkdir(mode=0o700, exist_ok=True)
        for path in (folder, self._root):
            status = path.stat()
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(f"{path} can be written by others")
        with self._temporary(_LOCKS):
            pass  # raises OSError if the folder is read-only

    def folder(self, name: str) -> Path:
        """Return a folder for files of another room. That room writes and checks the files; `trim` removes old ones."""
        path = self._root / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    @contextmanager
    def lock(self, digest: str) -> Iterator[None]:
        """Hold the lock of a digest. One process at a time can hold it. A killed process releases it."""
        with FileLock(self._root / _LOCKS / digest.replace(":", "-"), mode=0o600):
            yield

    def index(self, digest: str) -> LayerIndex | None:
        """Return the index of the layer, or None if it is missing, damaged or of another version."""
        path = self._layer(digest)
        try:
            index = LayerIndex(path)
            os.utime(path)
        except (OSError, TableDamaged, ValueError):
            return None
        return index

    def keep_index(self, digest: str, records: list[bytes]) -> LayerIndex:
        """Write the records as the layer's index and open it. Sort the list of records in place."""
        with self._temporary(_LAYERS) as out:
            write_index(out, records)
            out.flush()
            index = LayerIndex(Path(out.name))  # opened first: another run may trim it as soon as it has its name
            self._rename(out, self._layer(digest))
        return index

    def _layer(self, digest: str) -> Path:
        return self._root / _LAYERS / digest.replace(":", "-")

    def keep_file(self, pieces: Iterable[bytes]) -> str:
        """Write the bytes of a file. Return their sha256, the argument for `file`."""
        checksum = hashlib.sha256()
        with self._temporary(_FILES) as out:
            for piece in pieces:
                checksum.update(piece)
                out.write(piece)
            self._rename(out, self._root / _FILES / checksum.hexdigest())
        return checksum.hexdigest()

    def file(self, sha256: str) -> Path | None:
        """Return the path of the file with this sha256, or None if it is missing or damaged."""
        path = self._root / _FILES / sha256
        try:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    return None
            os.utime(path)
        except OSError:
            return None
        return path

    @contextmanager
    def _temporary(self, part: str) -> Iterator[IO[bytes]]:
        with tempfile.NamedTemporaryFile(dir=self._root / part, prefix=_NEW, delete=False) as out:
            try:
                yield out
            finally:
                Path(out.name).unlink(missing_ok=True)

    def _rename(self, out: IO[bytes], path: Path) -> None:
        out.flush()
        os.replace(out.name, path)

    def trim(self, bound: int, now: float) -> None:
        """Remove the least recently used entries until the rest is at most `bound` bytes. now: seconds since 1970."""
        entries = []
        for path in self._root.glob("*/*"):
            with suppress(FileNotFoundError):  # another run trims or renames at the same time
                status = path.stat()
                abandoned = now - status.st_mtime > _ABANDONED_SECONDS
                if path.parent.name != _LOCKS and (abandoned or not path.name.startswith(_NEW)):
                    entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= bound:
                return
            path.unlink(missing_ok=True)
            total -= size
