"""Typed reading of a decoded manifest: every refusal names the field, what stands there and what should."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kmm_preflight.errors import Malformed

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True)
class Field:
    """A value in a manifest with its path, as in spec.moduleLoader.container. null counts as absent, as the API has it.

    Every method raises Malformed when the value has another type than asked for.
    """

    value: object
    path: str = ""

    def refuse(self, expected: str) -> Malformed:
        """The error for this field, to be raised."""
        return Malformed(f"{self.path or 'document'}: got {_shown(self.value)}, expected {expected}")

    def __getitem__(self, key: str) -> Field:
        """A field of this mapping; absent when the mapping or the key is."""
        path = f"{self.path}.{key}" if self.path else key
        return Field(self.mapping().get(key), path)

    @property
    def given(self) -> bool:
        """Whether anything stands here."""
        return self.value is not None

    def mapping(self) -> dict[str, object]:
        """The mapping, empty when absent."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict) or not all(isinstance(key, str) for key in self.value):
            raise self.refuse("a mapping with text keys")
        return self.value

    def items(self) -> list[Field]:
        """The elements of a list, none when absent."""
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
        """The name of an object, as the API server takes it."""
        text = self.text()
        if len(text) > 253 or not _NAME.fullmatch(text):
            raise self.refuse("a Kubernetes name: lower case letters, digits, - and .")
        return text

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(item.present("text").text() for item in self.items())

    def text_pairs(self) -> tuple[tuple[str, str], ...]:
        """A mapping of text to text, in its order."""
        return tuple((key, self[key].text()) for key in self.mapping())

    def flag(self) -> bool:
        """True or false, false when absent."""
        if self.value is not None and not isinstance(self.value, bool):
            raise self.refuse("true or false")
        return bool(self.value)

    def number(self) -> int:
        """A whole number, 0 when absent."""
        if self.value is not None and (not isinstance(self.value, int) or isinstance(self.value, bool)):
            raise self.refuse("a whole number")
        return self.value or 0

    def present(self, what: str) -> Field:
        """This field, which must be there."""
        if self.value is None:
            raise self.refuse(what)
        return self

    def walk(self, *keys: str) -> Field:
        """A field further down."""
        here = self
        for key in keys:
            here = here[key]
        return here

    def __iter__(self) -> Iterator[Field]:
        return iter(self.items())


def _shown(value: object) -> str:
    match value:
        case None:
            return "nothing"
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
