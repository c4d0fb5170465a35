"""The error tree, by what the caller can do. Every message is one line that is safe to print."""

from __future__ import annotations

from kmm_preflight.text import clean


class PreflightError(Exception):
    """An error with a sentence for the user, which says what to do."""

    def __init__(self, message: str) -> None:
        self.message = clean(message)
        super().__init__(self.message)


class UsageProblem(PreflightError):
    """An option or a manifest is wrong. Only the user can correct it."""


class NotFound(PreflightError):
    """The registry or layout does not have the image, manifest or blob."""


class PlatformMissing(NotFound):
    """The image exists, but not for this operating system and architecture."""


class AccessDenied(PreflightError):
    """The registry or cluster refuses these credentials, or requires credentials."""


class Blocked(PreflightError):
    """The cluster's settings do not allow its nodes to pull this image."""


class Malformed(PreflightError):
    """The bytes are complete and have the right digest, but their content is invalid."""


class Undecidable(PreflightError):
    """The question has no answer now, neither yes nor no. Another try may help."""


class Unreachable(Undecidable):
    """The server does not answer or has trouble: DNS, refused, timeout, 429 and 5xx after retries."""


class AccessUndecided(Undecidable):
    """The registry refuses credentials that this run uses instead of the node's."""


class Untrusted(Undecidable):
    """The server's certificate is not by a CA that this machine trusts."""


class DigestMismatch(Undecidable):
    """The bytes do not have the digest of their name."""


class Truncated(Undecidable):
    """The body ended before its announced size, after retries."""


class BoundExceeded(Undecidable):
    """The next step would cost more than the limit of this suite."""
