"""Firmware of a Module: the copy of firmwarePath to the node, and the files that kmods request."""

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

# The kernel tries these in turn (CONFIG_FW_LOADER_COMPRESS).
_SUFFIXES = ("", ".zst", ".xz")
_ON_THE_NODE = "var/lib/firmware"
_WILDCARDS = frozenset("*?[")
_FILES = 1000


def judge_firmware_path(plan: Plan, files: FileSystem, worker: Worker) -> Iterator[Finding]:
    """Yield the finding if the copy of firmwarePath fails.

    KMM 2.0 and 2.1 need the folder to exist. Other versions copy `firmwarePath/*`, which needs a file in the folder.
    """
    if not plan.firmware_path:
        return
    folder = _folder(plan.firmware_path, files)
    got = None
    if folder is None:
        got = "is not in the image"
    elif folder.entry.kind is not EntryKind.FOLDER:
        got = "is not a folder"
    elif worker is Worker.COPIED and f"{folder.path}/".startswith("tmp/"):
        got = "is empty, because KMM mounts an empty volume over /tmp"
    elif worker is not Worker.UNPACKED and all(name.startswith(".") for name in files.children(folder.path)):
        got = "is an empty folder"
    if got:
        yield findings.FIRMWARE_EMPTY(path=plan.firmware_path, got=got)


def judge_firmware(plan: Plan, files: FileSystem, kmod: str, requested: Iterable[str]) -> Iterator[Finding]:
    """Yield the finding if a kmod requests firmware that the image does not bring to the node.

    kmod: the kmod's name in the finding. requested: names of files in the kmod's modinfo.
    """
    names = [name for name in requested if name and not _WILDCARDS & set(name)][:_FILES]
    folder = _folder(plan.firmware_path, files) if plan.firmware_path else None
    absent = [name for name in names if folder is None or not _has(files, folder, plan.kernel.version, name)]
    if absent:
        place = f"firmwarePath {plan.firmware_path}" if plan.firmware_path else "the Module, which has no firmwarePath,"
        yield findings.FIRMWARE_ABSENT(kmod=kmod, names=listed(absent), place=place)


def _folder(firmware_path: str, files: FileSystem) -> Located | None:
    try:
        return files.resolve(posixpath.normpath(f"/{firmware_path}"))
    except LinkBroken:
        return None


def _has(files: FileSystem, folder: Located, kernel: str, name: str) -> bool:
    """True if the folder has the file, plain or compressed, as the kernel finds it on the node."""
    view = MountedFolder(files, folder.path, _ON_THE_NODE, kernel)
    places = (posixpath.normpath(f"/{_ON_THE_NODE}/{name}{suffix}") for suffix in _SUFFIXES)
    targets = (view.reach(place).file for place in places)
    return any(isinstance(target, Located) and target.entry.kind is EntryKind.FILE for target in targets)
