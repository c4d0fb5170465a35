"""The tags of .modinfo as the loader reads them (docs/reference/loader.md 3)."""

from __future__ import annotations

from kmm_preflight.errors import BoundExceeded

# amdgpu's, the largest of the trees that were read, has 300 KiB.
MODINFO_BYTES = 4 << 20
_VALUE_BYTES = 4096
GPL_COMPATIBLE = frozenset(
    ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")
)
"""Exact licences that may use GPL-only symbols; `GPLv2` is none of them."""


class Modinfo:
    """A module's tags; the loader takes the first of a tag, except for import_ns."""

    def __init__(self, section: bytes) -> None:
        """BoundExceeded for more than 4 MiB of tags."""
        if len(section) > MODINFO_BYTES:
            raise BoundExceeded(f"kmod: {len(section)} bytes of .modinfo, expected at most {MODINFO_BYTES}")
        self._text = b"\0" + section + b"\0"

    def first(self, tag: str) -> str | None:
        """The tag's first value, None when it is not there."""
        return next(iter(self._values(tag, 1)), None)

    def all(self, tag: str) -> tuple[str, ...]:
        """All of the tag's values, the first 1000 at most."""
        return tuple(self._values(tag, 1000))

    def _values(self, tag: str, most: int) -> list[str]:
        wanted, at = f"\0{tag}=".encode(), 0
        values: list[str] = []
        while len(values) < most and (at := self._text.find(wanted, at)) >= 0:
            at += len(wanted)
            values.append(
                self._text[at : min(self._text.index(b"\0", at), at + _VALUE_BYTES)].decode("utf-8", "replace")
            )
            at -= 1 if self._text[at : at + 1] == b"\0" else 0
        return values

    @property
    def vermagic(self) -> str | None:
        """The version magic; trailing blanks count."""
        return self.first("vermagic")

    @property
    def license(self) -> str:
        """The licence, "" when none is stated."""
        return self.first("license") or ""

    @property
    def namespaces(self) -> frozenset[str]:
        """The namespaces that are imported."""
        return frozenset(self.all("import_ns"))
