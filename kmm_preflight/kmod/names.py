"""Which file modprobe takes for a module: names as kmod compares them."""

from __future__ import annotations

SUFFIXES = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")


def is_kmod_file(name: str) -> bool:
    """Whether depmod takes the file for a kmod, by its suffix."""
    return name.endswith(SUFFIXES)


def module_key(name: str) -> str:
    """A file's or module's name as kmod looks it up: up to the first dot, with - and _ the same."""
    return name.partition(".")[0].replace("-", "_")


def wanted_key(module: str) -> str:
    """What modprobe looks up for a module's name: - and _ are the same, and nothing is cut off at a dot."""
    return module.replace("-", "_")


def is_near(name: str, wanted: str) -> bool:
    """Whether somebody may have meant the one when writing the other: equal but for case, digits and separators."""
    return _letters(name) == _letters(wanted) or module_key(wanted) in module_key(name)


def _letters(name: str) -> str:
    return "".join(char for char in module_key(name).lower() if char.isalpha())
