"""Builds the control plane and the controller of Jobs into the cache of the tests: python -m tests.real.kubernetes."""

from __future__ import annotations

import sys

from .binaries import built


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{built(_say)}\n{built(_say, ['job-controller'])}\n")
    except RuntimeError as problem:
        sys.exit(str(problem))
