"""Names of kmods as kmod's own tools compare them."""

from __future__ import annotations

SUFFIXES = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")


def is_kmod_file(name: str) -> bool:
    """True if depmod takes the file for a kmod, by its suffix."""
    return name.endswith(SUFFIXES)


def module_key(name: str) -> str:
    """Return the name under which modprobe finds a kmod's file: cut at the first dot, with _ for -."""
    return name.partition(".")[0].replace("-", "_")


def wanted_key(module: str) -> str:
    """Return the name that modprobe looks up for a module: with _ for -, not cut at a dot.

    In brackets - stays, since aliases have ranges such as [0-9]. If brackets do not match, return an empty name:
    modprobe finds nothing (docs/reference/loader.md 5).
    """
    parts, at = [], 0
    while at < len(module):
        opening = module.find("[", at)
        outside = module[at : opening if opening >= 0 else len(module)]
        at += len(outside)
        closing = module.find("]", at)
        if "]" in outside or (opening >= 0 and closing < 0):
            return ""
        parts += [outside.replace("-", "_"), module[at : closing + 1] if opening >= 0 else ""]
        at = closing + 1 if opening >= 0 else at
    return "".join(parts)


def is_near(name: str, wanted: str) -> bool:
    """True if name may be a misspelling of wanted.

    Letter case, digits and separators may differ, or name may contain wanted.
    """
    return _letters(name) == _letters(wanted) or module_key(wanted) in module_key(name)


def _letters(name: str) -> str:
    return "".join(char for char in module_key(name).lower() if char.isalpha())
