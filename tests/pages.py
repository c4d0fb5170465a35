"""What the pages tell the reader to type or to copy, so that tests can do it."""

from __future__ import annotations

import re

from .runs import ROOT


def block(page: str, word: str) -> str:
    """The only fenced block of docs/PAGE with this word in it."""
    blocks = re.findall(r"^```\w+\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (one for one in blocks if word in one)
    assert isinstance(found, str)
    return found
