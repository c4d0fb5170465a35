"""Sentences that say what was meant: for misspelt names, and for manifests among the tests."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ALIKE = 0.75


def nearest(word: str, names: Iterable[str], alike: float = _ALIKE) -> str | None:
    """Return the name that is spelled nearly like the word, or None. alike is 1.0 for equal words, 0.0 for any."""
    close = difflib.get_close_matches(word, list(names), n=1, cutoff=alike)
    return close[0] if close else None


def hint(word: str, names: Iterable[str], otherwise: str, alike: float = _ALIKE) -> str:
    """Return a question that names the nearest name, or the other sentence."""
    near = nearest(word, names, alike)
    return f"Did you mean {near}?" if near else otherwise


def not_a_test(text: str) -> str:
    """Return the sentence on a word of the command line that is not an option and not a test of the validation."""
    if text.partition("::")[0].endswith(".py"):
        remedy = "Leave out the options of kmm-preflight to run other tests."
    else:
        remedy = f"To validate the Modules in a file or folder, write --manifests={text}."
    return f"{text} is not a test of the validation. {remedy}"
