"""Text from a registry, an image or a manifest, made safe for terminals and CI logs."""

from __future__ import annotations

import re
import unicodedata

SHOWN_CHARACTERS = 2000
# GitHub runs `::name` at the start of a line as a command. Azure and older runners run `##[` and `##vso[` anywhere.
_COMMAND = re.compile(r"::(?=[A-Za-z])|##(?=\[|vso\[)")


def clean(text: str) -> str:
    """Return the text on one line. Escape control and format characters, break CI commands, cut off a long end."""
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}… ({len(text) - SHOWN_CHARACTERS} characters more)"
    plain = "".join(_escape(char) if unicodedata.category(char)[0] == "C" else char for char in text)
    return _COMMAND.sub(lambda hit: " ".join(hit[0]), plain.replace("\u2028", " ").replace("\u2029", " "))


def _escape(char: str) -> str:
    if char == "\n":
        return " "
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def listed(names: list[str], most: int = 5) -> str:
    """Return names for a sentence: the first names, then the number of the others. An empty list is "nothing"."""
    if not names:
        return "nothing"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
