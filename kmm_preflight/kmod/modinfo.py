"""Tags of a kmod's .modinfo section, as the loader reads them (docs/reference/loader.md 3)."""

from __future__ import annotations

from kmm_preflight.errors import BoundExceeded

# The largest section in the kernel trees that were measured is amdgpu's, with 300 KiB.
MODINFO_BYTES = 4 << 20
_VALUE_BYTES = 4096
_VALUES = 1000
GPL_COMPATIBLE = frozenset(
    ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")
)
"""Licences that may use GPL-only symbols. The kernel compares the whole text, so `GPLv2` is not compatible."""


class Modinfo:
    """Tags of a kmod. The loader uses the first value of a tag, and all values of import_ns."""

    def __init__(self, section: bytes) -> None:
        """Raise BoundExceeded if the section has more than 4 MiB."""
        if len(section) > MODINFO_BYTES:
            raise BoundExceeded(f"kmod: {len(section)} bytes of .modinfo, expected at most {MODINFO_BYTES}")
        self._text = b"\0" + section + b"\0"

    def first(self, tag: str) -> str | None:
        """Return the first value of the tag, or None if the kmod does not have the tag."""
        return next(iter(self._values(tag, 1)), None)

    def all(self, tag: str) -> tuple[str, ...]:
        """Return the values of the tag in their order, at most 1000."""
        return tuple(self._values(tag, _VALUES))

    def _values(self, tag: str, most: int) -> list[str]:
        start, at = f"\0{tag}=".encode(), 0
        values: list[str] = []
        while len(values) < most and (at := self._text.find(start, at)) >= 0:
            at += len(start)
            end = min(self._text.index(b"\0", at), at + _VALUE_BYTES)
            values.append(self._text[at:end].decode("utf-8", "replace"))
            # If the value is empty, its zero byte also begins the next tag.
            at -= 1 if self._text[at : at + 1] == b"\0" else 0
        return values

    @property
    def vermagic(self) -> str | None:
        """The version magic with its trailing blanks, or None."""
        return self.first("vermagic")

    @property
    def license(self) -> str | None:
        """The licence, or None if the kmod does not state one."""
        return self.first("license")

    @property
    def namespaces(self) -> frozenset[str]:
        """Symbol namespaces that the kmod imports."""
        return frozenset(self.all("import_ns"))
