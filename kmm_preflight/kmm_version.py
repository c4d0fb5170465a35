"""Parser for a version of KMM, as a user or KMM's operator writes it."""

from __future__ import annotations

import re

from kmm_preflight.errors import UsageProblem

_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})(\.\d{1,4})?")


def parse_kmm_version(text: str) -> tuple[int, int]:
    """Return major and minor of a version such as 2.3 or v2.3.1. Raise UsageProblem for any other text.

    KMM's first version is 1.0, so a major of 0 is refused too.
    """
    if not (match := _VERSION.fullmatch(text)) or int(match[1]) == 0:
        raise UsageProblem(f"--kmm-version {text}: expected a version of KMM such as 2.3")
    return int(match[1]), int(match[2])
