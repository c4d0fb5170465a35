"""Files of an image by path, with wildcards, links and hard links followed."""

from __future__ import annotations

import posixpath
import re
from fnmatch import fnmatchcase

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.oci.filesystem import FileSystem, LinkBroken, Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.text import listed

FILES_MOST = 1000
FILE_BYTES = 256 << 20
_GLOB = re.compile(r"[*?\[]")


def files_matching(pattern: str, files: FileSystem) -> list[Located]:
    """Return the files that match a path with *, ? and [ ], as a shell expands it. Links are followed.

    Raise BoundExceeded for more than FILES_MOST paths.
    """
    paths = [""]
    for part in posixpath.normpath(pattern).strip("/").split("/"):
        paths = [f"{path}/{name}".lstrip("/") for path in paths for name in _names(path, part, files)]
        if len(paths) > FILES_MOST:
            raise BoundExceeded(f"filesToSign {pattern}: more than {FILES_MOST} files")
    return [located for path in paths if (located := _file(path, files))]


def _names(folder: str, part: str, files: FileSystem) -> list[str]:
    if not _GLOB.search(part):
        return [part]
    located = _resolved(folder, files)
    children = files.children(located.path) if located else []
    # A * of a shell does not match a name that begins with a dot.
    return [name for name in children if fnmatchcase(name, part) and name.startswith(".") is part.startswith(".")]


def _file(path: str, files: FileSystem) -> Located | None:
    located = files.file(path)
    return Located(path, located.entry, located.layer) if located else None


def _resolved(path: str, files: FileSystem) -> Located | None:
    try:
        return files.resolve(path)
    except LinkBroken:
        return None


def neighbours(entry: str, files: FileSystem) -> str:
    """Return the names in the folder of a path that does not exist, in words."""
    folder = _resolved(posixpath.dirname(entry), files)
    if folder is None:
        return f"there is no folder {posixpath.dirname(entry)}"
    names = files.children(folder.path)
    return f"its folder has {listed(names)}" if names else "its folder is empty"


def content(path: str, image: Image) -> bytes:
    """Return the bytes of a file, or no bytes if there is no file. Raise BoundExceeded for more than FILE_BYTES."""
    located = _resolved(path, image.files)
    if located and located.entry.kind is EntryKind.HARDLINK:
        located = image.files.hardlink_target(located)
    if located is None:
        return b""
    file = image.content(located)
    if file.stat().st_size > FILE_BYTES:
        raise BoundExceeded(f"/{path}: larger than {FILE_BYTES >> 20} MiB")
    return file.read_bytes()
