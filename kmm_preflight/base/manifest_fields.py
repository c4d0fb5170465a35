"""Typed reading of a decoded manifest. Every error names the field, its value and the expected type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kmm_preflight.errors import Malformed

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True)
class Field:
    """A value in a manifest, with its path. null counts as absent, as in the Kubernetes API.

    Every method raises Malformed if the value has another type than the method returns.
    """

    value: object
    """The decoded value."""
    path: str = ""
    """The path of the value in the manifest, such as spec.containers[0].image; empty for the whole document."""

    def refuse(self, expected: str) -> Malformed:
        """Return the error for this field: the caller raises it."""
        got = "missing" if self.value is None else f"got {_shown(self.value)}"
        return Malformed(f"{self.path or 'document'}: {got}, expected {expected}")

    def __getitem__(self, key: str) -> Field:
        """Return a field of this mapping. It is absent if the mapping or the key is absent."""
        path = f"{self.path}.{key}" if self.path else key
        return Field(self.mapping().get(key), path)

    @property
    def given(self) -> bool:
        """True if the field has a value."""
        return self.value is not None

    def mapping(self) -> dict[str, object]:
        """Return the mapping. If absent, return an empty one."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict) or not all(isinstance(key, str) for key in self.value):
            raise self.refuse("a mapping with text keys")
        return self.value

    def items(self) -> list[Field]:
        """Return the elements of the list. If absent, return an empty list."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise self.refuse("a list")
        return [Field(value, f"{self.path}[{index}]") for index, value in enumerate(self.value)]

    def text(self) -> str:
        """Return the text. If absent, return "": the Kubernetes API makes no difference between the two."""
        return self.optional_text() or ""

    def optional_text(self) -> str | None:
        """Return the text. If absent or empty, return None."""
        if self.value is not None and not isinstance(self.value, str):
            raise self.refuse("text (quote it)")
        return self.value or None

    def name(self) -> str:
        """Return the name of an object. Raise Malformed if the API server would refuse the name."""
        text = self.text()
        if len(text) > 253 or not _NAME.fullmatch(text):
            raise self.refuse("a Kubernetes name: lower case letters, digits, - and .")
        return text

    def texts(self) -> tuple[str, ...]:
        """Return a list of texts. If absent, return an empty tuple."""
        return tuple(item.present("text").text() for item in self.items())

    def text_pairs(self) -> tuple[tuple[str, str], ...]:
        """Return a mapping of text to text as pairs, in its order."""
        return tuple((key, self[key].text()) for key in self.mapping())

    def flag(self) -> bool:
        """Return the boolean. If absent, return False."""
        if self.value is not None and not isinstance(self.value, bool):
            raise self.refuse("true or false")
        return bool(self.value)

    def number(self) -> int:
        """Return the whole number. If absent, return 0."""
        if self.value is not None and (not isinstance(self.value, int) or isinstance(self.value, bool)):
            raise self.refuse("a whole number")
        return self.value or 0

    def present(self, expected: str) -> Field:
        """Return this field. Raise Malformed if it is absent."""
        if self.value is None:
            raise self.refuse(expected)
        return self

    def walk(self, *keys: str) -> Field:
        """Return a field of a nested mapping, one key for each level."""
        field = self
        for key in keys:
            field = field[key]
        return field

    def __iter__(self) -> Iterator[Field]:
        return iter(self.items())


def _shown(value: object) -> str:
    match value:
        case str():
            return f"text {value[:80]!r}"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"number {value}"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__} ({str(value)[:80]})"
