"""OCI layouts on disk, as folder or tar archive, read as a registry is; and registry names mapped onto one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import BoundExceeded, Malformed, NotFound, Unreachable
from kmm_preflight.oci.document import MANIFEST_BYTES, Descriptor, parse_json
from kmm_preflight.oci.reference import LayoutReference, Reference, parse_digest
from kmm_preflight.oci.tar import ByteReader, EntryKind, walk
from kmm_preflight.text import listed

ARCHIVE_NAMES = 100_000
ARCHIVE_BYTES = 64 << 30
_PIECE = 1 << 18
_NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")


class Files(Protocol):
    """The files of a layout."""

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """The file, to be closed by the caller, at its first byte, and its size; FileNotFoundError."""


class FolderFiles:
    """A layout that is a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """See Files."""
        file = (self._folder / name).open("rb")
        return file, os.fstat(file.fileno()).st_size


class ArchiveFiles:
    """A layout inside a tar archive, uncompressed as skopeo writes it; contents are read in place."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._places: dict[str, tuple[int, int]] = {}
        subject = f"oci-archive {archive}"
        with archive.open("rb") as file:
            reader = ByteReader(iter(lambda: file.read(_PIECE), b""), subject, ARCHIVE_BYTES)
            for member in walk(reader, subject):
                if member.kind is EntryKind.FILE:
                    self._places[member.path] = (reader.position, member.size)
                if len(self._places) > ARCHIVE_NAMES:
                    raise BoundExceeded(f"{subject}: more than {ARCHIVE_NAMES} files")

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """See Files."""
        if name not in self._places:
            raise FileNotFoundError(name)
        position, size = self._places[name]
        file = self._archive.open("rb")
        file.seek(position)
        return file, size


@dataclass(frozen=True)
class Listed:
    """An entry of a layout's index.json."""

    name: str
    digest: str


class Layout:
    """One OCI layout; serves its images as a Repository, whatever they are called."""

    def __init__(self, reference: LayoutReference) -> None:
        """NotFound when there is nothing at the path; Malformed when it is no layout."""
        self.path = reference.path
        try:
            self._files: Files = (ArchiveFiles if reference.archive else FolderFiles)(reference.path)
            index = parse_json(self._read("index.json"), f"{reference.path}/index.json")
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise NotFound(f"{reference}: no OCI layout there, expected a folder or archive with index.json") from exc
        except OSError as exc:
            raise Unreachable(f"{reference}: cannot be read ({exc.strerror})") from exc
        self._listed = [_listed(entry) for entry in index["manifests"]]

    def _read(self, name: str) -> bytes:
        file, size = self._files.open(name)
        with file:
            body = file.read(min(size, MANIFEST_BYTES + 1))  # behind it an archive has other files
        if len(body) > MANIFEST_BYTES:
            raise BoundExceeded(f"{self.path}/{name}: more than {MANIFEST_BYTES} bytes")
        return body

    def digest(self, names: tuple[str, ...]) -> str:
        """The digest behind the first of the names that the layout lists; "" stands for its only image."""
        for name in names:
            digests = [one.digest for one in self._listed if one.name == name or not name]
            if len(digests) == 1 or (digests and name):
                return digests[0]
        have = [one.name or one.digest for one in self._listed]
        raise NotFound(f"image {names[0] or 'without a name'}: layout {self.path} has {listed(have)}")

    def manifest(self, reference: str) -> bytes:
        """See Repository; reference is a digest, or a name of the layout."""
        digest = reference if _is_digest(reference) else self.digest((reference,))
        try:
            return self._read(_blob_name(digest))
        except FileNotFoundError as exc:
            raise NotFound(f"image {reference}: layout {self.path} does not have it") from exc
        except OSError as exc:
            raise Unreachable(f"image {reference}: layout {self.path} cannot be read ({exc.strerror})") from exc

    def has_blob(self, digest: str) -> bool:
        """See Repository."""
        try:
            with self._blob(digest)[0]:
                return True
        except NotFound:
            return False

    @contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """See Repository."""
        file, size = self._blob(descriptor.digest)
        with file:
            yield _pieces(file, size)

    def _blob(self, digest: str) -> tuple[BinaryIO, int]:
        try:
            return self._files.open(_blob_name(digest))
        except FileNotFoundError as exc:
            raise NotFound(f"blob {digest}: layout {self.path} does not have it") from exc
        except OSError as exc:
            raise Unreachable(f"blob {digest}: layout {self.path} cannot be read ({exc.strerror})") from exc


def layout_names(reference: Reference) -> tuple[str, ...]:
    """Return the names under which a layout may list a registry's image: as written, in full."""
    return (reference.name, str(reference))


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (piece := file.read(min(_PIECE, size))):
        size -= len(piece)
        yield piece


def _is_digest(text: str) -> bool:
    try:
        parse_digest(text)
    except Malformed:
        return False
    return True


def _blob_name(digest: str) -> str:
    algorithm, _, hexadecimal = digest.partition(":")
    return f"blobs/{algorithm}/{hexadecimal}"


def _listed(entry: Field) -> Listed:
    digest = parse_digest(entry["digest"].text())
    names = [entry["annotations"][key].text() for key in _NAMES]
    return Listed(next((name for name in names if name), ""), digest)
