"""Copy of the kernel's folder in an image for a trial: kmods, modprobe's index files, and links."""

from __future__ import annotations

import posixpath

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.kmod.names import is_kmod_file
from kmm_preflight.oci.filesystem import LinkBroken, Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.trial.initramfs import Entry, File, Folder, Link
from kmm_preflight.worker.indexes import INDEX_FILES

READ = frozenset(INDEX_FILES)
"""Names of files that modprobe reads in the kernel's folder, next to kmods."""
_ENTRIES_MOST = 10_000


def image_tree(image: Image, folder: str) -> dict[str, Entry]:
    """Return the entries of a folder of the image, by path from the image's root. Do not follow links.

    If the folder itself is a link, return only that link. Raise BoundExceeded for more than 10,000 names, and the
    errors of reading the image.
    """
    base = _base(image, folder)
    located = image.files.entry(base)
    if located is None or located.entry.kind is EntryKind.SYMLINK:
        return {folder: Link(located.entry.link)} if located else {}
    tree: dict[str, Entry] = {}
    for number, child in enumerate(image.files.below(base, lambda name: True)):
        if number >= _ENTRIES_MOST:
            raise BoundExceeded(f"/{folder} of the image: more than {_ENTRIES_MOST} names")
        if entry := _entry(image, child):
            tree[folder + child.path.removeprefix(base)] = entry
    return tree


def _base(image: Image, folder: str) -> str:
    """Return the folder's path with links above it followed. KMM's cp follows those, but not the folder itself."""
    above, name = posixpath.split(folder)
    try:
        located = image.files.resolve(above)
    except LinkBroken:
        return folder
    return f"{located.path}/{name}".lstrip("/") if located else folder


def _entry(image: Image, located: Located) -> Entry | None:
    """Return the entry, or None for a device and for a file that modprobe does not read."""
    match located.entry.kind:
        case EntryKind.FOLDER:
            return Folder()
        case EntryKind.SYMLINK:
            return Link(located.entry.link)
        case EntryKind.FILE | EntryKind.HARDLINK:
            name = located.path.rpartition("/")[2]
            target = image.files.hardlink_target(located) if located.entry.kind is EntryKind.HARDLINK else located
            return File(image.content(target)) if target and (is_kmod_file(name) or name in READ) else None
    return None
