"""Regular expressions of kernel mappings, in Go's syntax (docs/reference/kmm.md 3.2)."""

from __future__ import annotations

import re
from typing import Protocol

from kmm_preflight.errors import BoundExceeded, Malformed

try:
    import re2
except ImportError:  # no wheels for ppc64le and s390x
    re2 = None

PATTERN_CHARACTERS = 10_000
_TOO_LARGE = "pattern too large"  # for the memory of re2, which Go does not bound in this way
# Syntax that Go and Python understand in the same way. Without google-re2, all other syntax is refused.
_SHARED = re.compile(
    r"(?:\\[dDwWsS.+*?()\[\]{}|^$/-]|\[\^?[\w.+ -]+\]|\((?:\?:)?(?!\?)|[\w.+*?)|^$ :,/@~-])*", re.ASCII
)
_POSSESSIVE = re.compile(r"[*+?]\+")


class Pattern(Protocol):
    """A compiled regular expression."""

    def search(self, text: str) -> object:
        """Return a true value if the expression matches anywhere in the text, else None."""


def compile_pattern(text: str) -> Pattern:
    """Return the pattern as Go's regexp package reads it.

    Raise Malformed if Go refuses it, and BoundExceeded if only this suite does.
    """
    if len(text) > PATTERN_CHARACTERS:
        raise BoundExceeded(f"regexp: got {len(text)} characters, this suite reads at most {PATTERN_CHARACTERS}")
    if re2 is None:
        return _compile_shared(text)
    options = re2.Options()
    options.log_errors = False
    try:
        compiled: Pattern = re2.compile(text, options)
    except (re2.error, UnicodeError) as exc:
        reason = exc.args[0] if exc.args else ""
        words = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
        error = BoundExceeded if words.startswith(_TOO_LARGE) else Malformed
        raise error(f"regexp {text!r}: {words}") from exc
    return compiled


def _compile_shared(text: str) -> Pattern:
    if not _SHARED.fullmatch(text) or _POSSESSIVE.search(text):
        raise BoundExceeded(f"regexp {text!r}: too complex for this machine, because google-re2 is not installed")
    try:
        return re.compile(text, re.ASCII)
    except re.error as exc:
        raise Malformed(f"regexp {text!r}: {exc}") from exc
