"""Go's regular expressions, which decide which kernel mapping is taken (docs/reference/kmm.md 3.2)."""

from __future__ import annotations

import re
from typing import Protocol

from kmm_preflight.errors import Malformed

try:
    import re2
except ImportError:  # no wheels for ppc64le and s390x
    re2 = None

PATTERN_CHARACTERS = 10_000
# What Go and Python read alike; all else is refused where google-re2 is missing rather than guessed at.
_SHARED = re.compile(
    r"(?:\\[dDwWsS.+*?()\[\]{}|^$/-]|\[\^?[\w.+ -]+\]|\((?:\?:)?(?!\?)|[\w.+*?)|^$ :,/@~-])*", re.ASCII
)
_POSSESSIVE = re.compile(r"[*+?]\+")


class Pattern(Protocol):
    """A compiled expression; search gives something true when it is found anywhere in the text."""

    def search(self, text: str) -> object:
        """The first hit, or None."""


def compile_pattern(text: str) -> Pattern:
    """The pattern as Go's regexp package reads it; Malformed tells why not."""
    if len(text) > PATTERN_CHARACTERS:
        raise Malformed(f"regexp: got {len(text)} characters, expected at most {PATTERN_CHARACTERS}")
    if re2 is None:
        return _compile_shared(text)
    options = re2.Options()
    options.log_errors = False
    try:
        compiled: Pattern = re2.compile(text, options)
    except (re2.error, UnicodeError) as exc:
        reason = exc.args[0] if exc.args else ""
        words = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
        raise Malformed(f"regexp {text!r}: {words}") from exc
    return compiled


def _compile_shared(text: str) -> Pattern:
    if not _SHARED.fullmatch(text) or _POSSESSIVE.search(text):
        raise Malformed(f"regexp {text!r}: this machine has no google-re2, and without it only simple ones are read")
    try:
        return re.compile(text, re.ASCII)
    except re.error as exc:
        raise Malformed(f"regexp {text!r}: {exc}") from exc
