"""modprobe's configuration in an image, which KMM's worker does not read (docs/reference/loader.md 5)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from kmm_preflight.kmod.names import wanted_key
from kmm_preflight.model import Finding
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.text import listed
from kmm_preflight.worker import findings
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.program import ImageFiles

CONFIGURATION_FILES = re.compile(r"(etc|run|(usr/)?(local/)?lib)/modprobe\.d/[^/]+\.conf")
"""Paths of files with configuration."""
_FOLDERS = ("etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d")
_KINDS = frozenset(("softdep", "options", "blacklist", "install", "remove", "alias", "weakdep"))
_FILE_BYTES, _FILES, _LINES = 1 << 20, 256, 10_000


def judge_configuration(image: ImageFiles, worker: Worker, kmods: Collection[str]) -> Iterator[Finding]:
    """Yield the finding for lines of the image's configuration about kmods that are loaded. kmods: names with _ for -.

    The ModuleLoader Pods of KMM 1.x run the image's own modprobe, which reads these lines. No check follows them.
    """
    lines = list(dict.fromkeys(line for line in _lines(image) if _is_about(line, kmods)))
    if not lines:
        return
    if worker is not Worker.POD:
        yield findings.MODPROBE_CONFIGURATION_UNSEEN(lines=listed(lines, most=3))
    elif any(line.split()[0] in ("install", "blacklist", "softdep", "alias") for line in lines):
        yield findings.MODPROBE_CONFIGURATION_OPEN(lines=listed(lines, most=3))


def _lines(image: ImageFiles) -> Iterator[str]:
    count = 0
    for folder in _FOLDERS:
        for name in sorted(image.files.children(folder)):
            located = image.files.file(f"/{folder}/{name}") if name.endswith(".conf") else None
            if located is None or located.entry.kind is not EntryKind.FILE or located.entry.size > _FILE_BYTES:
                continue
            count += 1
            if count > _FILES:
                return
            text = image.content(located).read_bytes().decode("utf-8", "replace")
            yield from (" ".join(line.split()) for line in text.splitlines()[:_LINES])


def _is_about(line: str, kmods: Collection[str]) -> bool:
    words = line.split()
    if len(words) < 2 or words[0] not in _KINDS:
        return False
    name = wanted_key(words[-1] if words[0] == "alias" else words[1])
    return any(fnmatchcase(kmod, name) for kmod in kmods)
