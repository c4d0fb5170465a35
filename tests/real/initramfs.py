"""Archives that the kernel unpacks as its initramfs: cpio in the newc format."""

from __future__ import annotations

import stat
from collections.abc import Mapping

_TRAILER = "TRAILER!!!"
_FOLDERS = ("dev", "k", "proc", "sys")
_DEVICES = {"console": (5, 1), "null": (1, 3), "kmsg": (1, 11)}


def initramfs(files: Mapping[str, bytes], devices: Mapping[str, tuple[int, int]]) -> bytes:
    """Return an archive with the files, all executable, the usual folders and devices, and more devices.

    devices: major and minor number by name.
    """
    parts = [_entry(folder, stat.S_IFDIR | 0o755, b"") for folder in _FOLDERS]
    parts += [
        _entry(f"dev/{name}", stat.S_IFCHR | 0o600, b"", device) for name, device in (_DEVICES | dict(devices)).items()
    ]
    parts += [_entry(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    return b"".join([*parts, _entry(_TRAILER, 0, b"")])


def _entry(name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> bytes:
    fields = [0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)
