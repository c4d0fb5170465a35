"""Archive of a build's result in a Pod: read it in pieces, verify it, and store it on this machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kmm_preflight.build.job_script import ARCHIVE, ARCHIVE_FACTS
from kmm_preflight.errors import BoundExceeded, Malformed, Undecidable

ARCHIVE_BYTES = 16 << 30
_FETCHES = 3
_FACTS_BYTES = 200
_FACTS = re.compile(r"\s*(\d{1,15})\s+([0-9a-f]{64})\s*")

RunInPod = Callable[[tuple[str, ...], int], Iterator[bytes]]
"""Runs a command in the Pod and yields its output, at most so many bytes."""


def fetch_archive(run: RunInPod, target: Path, subject: str) -> Path:
    """Store the archive of a Pod at target. Raise Undecidable if no attempt reads it whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    problem: Exception | None = None
    for _ in range(_FETCHES):
        try:
            facts = _parse_facts(b"".join(run(("cat", ARCHIVE_FACTS), _FACTS_BYTES)))
            facts.store(run(("cat", ARCHIVE), facts.size), target)
            return target
        except (Undecidable, Malformed) as exc:
            problem = exc
    raise Undecidable(f"{subject}: its image could not be read ({problem}). Run again.") from problem


@dataclass(frozen=True)
class _ArchiveFacts:
    """Size and digest of the archive, as the Pod reports them."""

    size: int
    """Size in bytes."""
    sha256: str
    """Digest in hexadecimal digits."""

    def store(self, pieces: Iterator[bytes], target: Path) -> None:
        """Write the pieces to a file. Raise Undecidable if size or digest differ, or if the disk is full."""
        digest, size, partial = hashlib.sha256(), 0, target.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                for piece in pieces:
                    digest.update(piece)
                    size += file.write(piece)
            if (size, digest.hexdigest()) != (self.size, self.sha256):
                raise Undecidable(f"got {size} bytes with sha256 {digest.hexdigest()}, expected {self}")
            partial.replace(target)
        except OSError as exc:
            raise Undecidable(f"{target}: {exc.strerror}") from exc
        finally:
            partial.unlink(missing_ok=True)

    def __str__(self) -> str:
        return f"{self.size} bytes with sha256 {self.sha256}"


def _parse_facts(output: bytes) -> _ArchiveFacts:
    hit = _FACTS.fullmatch(output.decode("ascii", "replace"))
    if not hit:
        raise Undecidable(f"got {output[:80]!r}, expected size and sha256 of an archive")
    if int(hit[1]) > ARCHIVE_BYTES:
        raise BoundExceeded(f"the archive has {hit[1]} bytes, at most {ARCHIVE_BYTES} are read")
    return _ArchiveFacts(int(hit[1]), hit[2])
