"""Local OCI layouts, as folder or tar archive: a layout serves manifests and blobs like a registry's repository."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import BoundExceeded, Malformed, NotFound, Unreachable
from kmm_preflight.oci.document import MANIFEST_BYTES, Descriptor, ManifestAnswer, parse_json
from kmm_preflight.oci.reference import LayoutReference, Reference, parse_digest
from kmm_preflight.oci.tar import ByteReader, EntryKind, walk
from kmm_preflight.text import listed

ARCHIVE_NAMES = 100_000
ARCHIVE_BYTES = 64 << 30
_PIECE = 1 << 18
_NAME_ANNOTATIONS = ("org.opencontainers.image.ref.name", "io.containerd.image.name")


class LayoutFiles(Protocol):
    """The files of a layout."""

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return the open file and its size. The caller closes the file. Raise FileNotFoundError."""


class FolderFiles:
    """The files of a layout that is a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return the open file and its size. Raise FileNotFoundError."""
        file = (self._folder / name).open("rb")
        return file, os.fstat(file.fileno()).st_size


class ArchiveFiles:
    """The files of a layout in a tar archive. The archive is uncompressed, as skopeo writes it, and read in place."""

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
        """Return the archive, open at the first byte of the file, and the file's size. Raise FileNotFoundError."""
        if name not in self._places:
            raise FileNotFoundError(name)
        position, size = self._places[name]
        file = self._archive.open("rb")
        file.seek(position)
        return file, size


@dataclass(frozen=True)
class LayoutEntry:
    """An entry of a layout's index.json."""

    name: str | None
    """The name of the image, or None if the entry has no name."""
    digest: str
    """The digest of the image's index or manifest."""


class Layout:
    """An OCI layout, as a Repository. Images of all names are in this one repository."""

    def __init__(self, reference: LayoutReference) -> None:
        """Read the layout's index.json. Raise NotFound if the path does not exist, Malformed if it is not a layout."""
        self.path = reference.path
        try:
            self._files: LayoutFiles = (ArchiveFiles if reference.archive else FolderFiles)(reference.path)
            index = parse_json(self._read("index.json"), f"{reference.path}/index.json")
        except (FileNotFoundError, NotADirectoryError) as exc:
            problem = "not an OCI layout, expected a folder or archive with index.json"
            raise NotFound(f"{reference}: {problem}") from exc
        except OSError as exc:
            raise Unreachable(f"{reference}: cannot be read ({exc.strerror})") from exc
        self._entries = [_parse_entry(entry) for entry in index["manifests"]]

    def _read(self, name: str) -> bytes:
        file, size = self._files.open(name)
        with file:
            body = file.read(min(size, MANIFEST_BYTES + 1))  # in an archive, other files follow
        if len(body) > MANIFEST_BYTES:
            raise BoundExceeded(f"{self.path}/{name}: more than {MANIFEST_BYTES} bytes")
        return body

    def digest(self, *names: str) -> str:
        """Return the digest of the first name that the layout lists. Without names, return that of its only image.

        Raise NotFound if the layout lists none of the names, or if no name is given and it has several images.
        """
        for name in names:
            for entry in self._entries:
                if entry.name == name:
                    return entry.digest
        if not names and len(self._entries) == 1:
            return self._entries[0].digest
        available = [entry.name or entry.digest for entry in self._entries]
        raise NotFound(f"image {names[0] if names else 'without a name'}: layout {self.path} has {listed(available)}")

    def manifest(self, reference: str) -> ManifestAnswer:
        """Return the answer for a digest or a name of the layout, unverified. Raise NotFound or Unreachable."""
        digest = reference if _is_digest(reference) else self.digest(reference)
        try:
            return ManifestAnswer(self._read(_blob_name(digest)))
        except FileNotFoundError as exc:
            raise NotFound(f"image {reference}: layout {self.path} does not have it") from exc
        except OSError as exc:
            raise Unreachable(f"image {reference}: layout {self.path} cannot be read ({exc.strerror})") from exc

    def has_blob(self, digest: str) -> bool:
        """True if the layout has the blob."""
        try:
            with self._open_blob(digest)[0]:
                return True
        except NotFound:
            return False

    @contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Return the blob's bytes in pieces, unverified. Raise NotFound or Unreachable."""
        file, size = self._open_blob(descriptor.digest)
        with file:
            yield _pieces(file, size)

    def _open_blob(self, digest: str) -> tuple[BinaryIO, int]:
        try:
            return self._files.open(_blob_name(digest))
        except FileNotFoundError as exc:
            raise NotFound(f"blob {digest}: layout {self.path} does not have it") from exc
        except OSError as exc:
            raise Unreachable(f"blob {digest}: layout {self.path} cannot be read ({exc.strerror})") from exc


def layout_names(reference: Reference) -> tuple[str, ...]:
    """Return the names under which a layout may list a registry's image: as written, then in full."""
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


def _parse_entry(entry: Field) -> LayoutEntry:
    digest = parse_digest(entry["digest"].text())
    names = [entry["annotations"][key].optional_text() for key in _NAME_ANNOTATIONS]
    return LayoutEntry(next((name for name in names if name), None), digest)
