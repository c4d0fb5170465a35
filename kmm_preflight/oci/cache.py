"""What was read of images, kept on disk by digest: layer indexes and the bytes of single files.

Nothing here is believed unchecked: an index carries its checksum, a file its digest as its name, and a folder that
somebody else may write is not used at all.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock

from kmm_preflight.base.sorted_table import TableDamaged
from kmm_preflight.oci.index import LayerIndex, write_index

_VERSION = "v1"
_NEW = ".new-"
_PARTS = ("layers", "files", "symvers")
# What is being written is not trimmed; what a killed run left behind is.
_ABANDONED_SECONDS = 24 * 3600


class Cache:
    """A folder of this user alone. Every write is atomic; a reader sees a whole entry or none."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder where needed; OSError when it cannot be written, PermissionError when others may."""
        self._root = folder / _VERSION
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.mkdir(mode=0o700, exist_ok=True)
        for part in (*_PARTS, "locks"):
            (self._root / part).mkdir(mode=0o700, exist_ok=True)
        for path in (folder, self._root):
            status = path.stat()
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(f"{path} can be written by others")
        with self._temporary("locks"):
            pass  # an OSError here says that the folder is read-only

    @property
    def symvers(self) -> Path:
        """The folder of parsed Module.symvers: kmod/symvers.py writes and checks them."""
        return self._root / "symvers"

    @contextmanager
    def lock(self, digest: str) -> Iterator[None]:
        """Held by one process at a time for this digest; freed when the process ends, however it ends."""
        with FileLock(self._root / "locks" / digest.replace(":", "-"), mode=0o600):
            yield

    def index(self, digest: str) -> LayerIndex | None:
        """The index of the layer, or None: not there, damaged, or written by another version."""
        path = self._layer(digest)
        try:
            index = LayerIndex(path)
            os.utime(path)
        except (OSError, TableDamaged, ValueError):
            return None
        return index

    def keep_index(self, digest: str, records: list[bytes]) -> LayerIndex:
        """Writes the records as the layer's index and opens it. The list is sorted in place."""
        with self._temporary("layers") as out:
            write_index(out, records)
            out.flush()
            index = LayerIndex(Path(out.name))  # before it has a name under which somebody may remove it
            self._settle(out, self._layer(digest))
        return index

    def _layer(self, digest: str) -> Path:
        return self._root / "layers" / digest.replace(":", "-")

    def keep_file(self, pieces: Iterable[bytes]) -> str:
        """Writes a file's bytes; gives their sha256, under which file() finds them."""
        checksum = hashlib.sha256()
        with self._temporary("files") as out:
            for piece in pieces:
                checksum.update(piece)
                out.write(piece)
            self._settle(out, self._root / "files" / checksum.hexdigest())
        return checksum.hexdigest()

    def file(self, sha256: str) -> Path | None:
        """Path of the file with these bytes, or None: not there, or damaged."""
        path = self._root / "files" / sha256
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

    def _settle(self, out: IO[bytes], path: Path) -> None:
        out.flush()
        os.replace(out.name, path)

    def trim(self, bound: int) -> None:
        """Removes what was used longest ago until the rest is within the bound (bytes)."""
        entries = []
        for part in _PARTS:
            for path in (self._root / part).iterdir():
                with suppress(FileNotFoundError):  # another run trims or settles at the same time
                    status = path.stat()
                    if not path.name.startswith(_NEW) or time.time() - status.st_mtime > _ABANDONED_SECONDS:
                        entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= bound:
                return
            path.unlink(missing_ok=True)
            total -= size
