"""The kernel's folder of an image as a trial lays it out: kmods, modprobe's indexes, links as they are."""

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
"""Files beside kmods that modprobe reads in the kernel's folder."""
_ENTRIES_MOST = 10_000


def image_tree(image: Image, folder: str) -> dict[str, Entry]:
    """What stands in a folder of the image, by paths from its root; a folder that is a link is that link alone.

    BoundExceeded for more than 10,000 names; raises what reading the image raises.
    """
    base = _base(image, folder)
    here = image.files.entry(base)
    if here is None or here.entry.kind is EntryKind.SYMLINK:
        return {folder: Link(here.entry.link)} if here else {}
    tree: dict[str, Entry] = {}
    for number, located in enumerate(image.files.below(base, lambda name: True)):
        if number >= _ENTRIES_MOST:
            raise BoundExceeded(f"/{folder} of the image: more than {_ENTRIES_MOST} names")
        if entry := _entry(image, located):
            tree[folder + located.path.removeprefix(base)] = entry
    return tree


def _base(image: Image, folder: str) -> str:
    """Where the folder stands, links above it followed: cp goes through those, and copies one that is the folder."""
    above, name = posixpath.split(folder)
    try:
        located = image.files.resolve(above)
    except LinkBroken:
        return folder
    return f"{located.path}/{name}".lstrip("/") if located else folder


def _entry(image: Image, located: Located) -> Entry | None:
    """None for what modprobe does not read, and for a device."""
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
