"""The error tree, cut by what the caller can do; every message is one line that is safe to print."""

from __future__ import annotations

from kmm_preflight.text import clean


class PreflightError(Exception):
    """Trouble with a sentence for the user: subject, got, expected, what to do."""

    def __init__(self, message: str) -> None:
        self.message = clean(message)
        super().__init__(self.message)


class UsageProblem(PreflightError):
    """An option or a manifest is wrong: only the user can mend it."""


class NotFound(PreflightError):
    """The registry or layout answered that it does not have this."""


class PlatformMissing(NotFound):
    """The image exists, but not for this operating system and architecture."""


class AccessDenied(PreflightError):
    """The registry refused these credentials, or none."""


class Blocked(PreflightError):
    """The cluster's own settings keep its nodes from asking for this."""


class Malformed(PreflightError):
    """Bytes that are certainly what was asked for are not what they should be."""


class Undecidable(PreflightError):
    """The question could not be answered, so neither yes nor no is known; asking again may help."""


class Unreachable(Undecidable):
    """No answer, or the server's own trouble: DNS, refused, timeout, 429 and 5xx after retries."""


class AccessUndecided(Undecidable):
    """The registry refused credentials that stand in for those of the node."""


class Untrusted(Undecidable):
    """The server's certificate does not lead to a CA that is trusted here."""


class DigestMismatch(Undecidable):
    """The bytes that came are not those that the digest names."""


class Truncated(Undecidable):
    """The body ended before its announced size, after retries."""


class BoundExceeded(Undecidable):
    """Reading on would cost more than this suite spends on one image."""
