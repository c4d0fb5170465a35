"""Digest of the code that judges: a record of verdicts is valid only for the code that drew them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

LIBRARIES = ("asn1crypto", "cryptography", "google-re2")
"""Distributions whose version can change a verdict: signatures, certificates, regular expressions."""

DIGITS = 16
"""Length of the digest in hexadecimal digits."""

# The wheel carries the suite inside of the package; its folders are given by name, as in a clone.
_PACKAGED_SUITE = "suite"


def rules_digest(folders: Mapping[str, Path], versions: Mapping[str, str | None]) -> str:
    """Return the digest of all Python files below the folders, by the folders' names, and of the libraries' versions.

    The digest does not depend on the place of a folder, on line ends, or on files that Python writes. So a clone and
    the wheel built from it have the same digest. A version is None if the library is not installed.
    """
    digest = hashlib.sha256()
    for name, folder in sorted(folders.items()):
        for path in sorted(_sources(folder)):
            content = hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
            digest.update(f"{name}/{path.relative_to(folder).as_posix()} {content}\n".encode())
    for library, version in sorted(versions.items()):
        digest.update(f"{library} {version}\n".encode())
    return digest.hexdigest()[:DIGITS]


def _sources(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*.py"):
        if path.relative_to(folder).parts[0] != _PACKAGED_SUITE:
            yield path
