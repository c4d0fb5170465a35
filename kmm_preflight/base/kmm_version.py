"""A version of KMM, as a user or its operator names it."""

from __future__ import annotations

import re

from kmm_preflight.errors import UsageProblem

_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})(\.\d{1,4})?")


def parse_kmm_version(text: str) -> tuple[int, int]:
    """Major and minor of a version such as 2.3 or v2.3.1; UsageProblem for what is none. KMM began with 1.0."""
    if not (hit := _VERSION.fullmatch(text)) or int(hit[1]) == 0:
        raise UsageProblem(f"--kmm-version {text}: expected a version of KMM such as 2.3")
    return int(hit[1]), int(hit[2])
