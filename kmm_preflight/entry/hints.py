"""Sentences that say what was meant: for misspelt names, and for manifests among the tests."""

from __future__ import annotations

import difflib
import runpy
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import zip_longest

from kmm_preflight.entry.places import suite_folder

_ALIKE = 0.75


def nearest(word: str, names: Iterable[str], alike: float = _ALIKE) -> str | None:
    """Return the name that is spelled nearly like the word, or None. alike is 1.0 for equal words, 0.0 for any."""
    close = difflib.get_close_matches(word, list(names), n=1, cutoff=alike)
    return close[0] if close else None


def hint(word: str, names: Iterable[str], otherwise: str, alike: float = _ALIKE) -> str:
    """Return a question that names the nearest name, or the other sentence."""
    near = nearest(word, names, alike)
    return f"Did you mean {near}?" if near else otherwise


@cache
def option_names() -> dict[str, str | None]:
    """Return the suite's options, each with the word for its value, or None for a switch.

    The file is run without an import: other projects have packages named `fixtures`, too.
    """
    options = runpy.run_path(str(suite_folder() / "fixtures/options/definitions.py"))["OPTIONS"]
    return {option.name: option.metavar for option in options}


def mistyped(words: Sequence[str], options: Mapping[str, str | None]) -> str | None:
    """Return the sentence on an option without its value, or with one dash instead of two. None if there is none.

    pytest would print its usage for the first, and read the second as options of its own.
    """
    for word, following in zip_longest(words, words[1:]):
        if word == "--":
            return None
        value = options.get(word)
        if value and (following is None or (following.startswith("-") and following != "-")):
            return f"{word}: the value is missing, expected {value}"
        name = word.partition("=")[0]
        if f"-{name}" in options:
            return f"unknown option {name}. Did you mean -{name}?"
    return None


def not_a_test(text: str) -> str:
    """Return the sentence on a word of the command line that is not an option and not a test of the validation."""
    if text.partition("::")[0].endswith(".py"):
        remedy = "Leave out the options of kmm-preflight to run other tests."
    else:
        remedy = f"To validate the Modules in a file or folder, write --manifests={text}."
    return f"{text} is not a test of the validation. {remedy}"
