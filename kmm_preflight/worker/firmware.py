"""Firmware that a Module brings: what KMM copies of firmwarePath, and what kmods ask for."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import FileSystem, LinkBroken, Located
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.planning.plan import Plan
from kmm_preflight.text import listed
from kmm_preflight.worker import findings
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.view import MountedFolder

# As the kernel looks for it (CONFIG_FW_LOADER_COMPRESS).
_SUFFIXES = ("", ".zst", ".xz")
_ON_THE_NODE = "var/lib/firmware"
_WILD = frozenset("*?[")
_FILES = 1000


def judge_firmware_path(plan: Plan, files: FileSystem, worker: Worker) -> Iterator[Finding]:
    """What makes the copy of firmwarePath fail: KMM 2.0 wants it there, others something in it that * fits."""
    if not plan.firmware_path:
        return
    folder = _folder(plan, files)
    got = ""
    if folder is None:
        got = "nothing"
    elif folder.entry.kind is not EntryKind.FOLDER:
        got = "no folder"
    elif worker is Worker.COPIED and f"{folder.path}/".startswith("tmp/"):
        got = "an empty volume, which KMM mounts over /tmp,"
    elif worker is not Worker.UNPACKED and all(name.startswith(".") for name in files.children(folder.path)):
        got = "an empty folder"
    if got:
        yield findings.FIRMWARE_EMPTY(path=plan.firmware_path, got=got)


def judge_firmware(plan: Plan, files: FileSystem, kmod: str, asked_for: Iterable[str]) -> Iterator[Finding]:
    """What a kmod (its name in the sentence) asks for in its modinfo that the image does not bring to the node."""
    names = [name for name in asked_for if name and not _WILD & set(name)][:_FILES]
    folder = _folder(plan, files) if plan.firmware_path else None
    absent = [name for name in names if folder is None or not _has(files, folder, plan.kernel.version, name)]
    if absent:
        place = plan.firmware_path or "the image, which has no firmwarePath"
        yield findings.FIRMWARE_ABSENT(kmod=kmod, names=listed(absent), place=place)


def _folder(plan: Plan, files: FileSystem) -> Located | None:
    try:
        return files.resolve(posixpath.normpath(f"/{plan.firmware_path or ''}"))
    except LinkBroken:
        return None


def _has(files: FileSystem, folder: Located, kernel: str, name: str) -> bool:
    view = MountedFolder(files, folder.path, _ON_THE_NODE, kernel)
    places = (posixpath.normpath(f"/{_ON_THE_NODE}/{name}{suffix}") for suffix in _SUFFIXES)
    found = (view.reach(place).file for place in places)
    return any(isinstance(one, Located) and one.entry.kind is EntryKind.FILE for one in found)
