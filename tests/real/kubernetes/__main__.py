"""Builds all programs of a cluster into the cache of the tests: python -m tests.real.kubernetes."""

from __future__ import annotations

import sys

from .binaries import KITS, built


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    try:
        for kit in KITS:
            sys.stdout.write(f"{built(_say, kit)}\n")
    except RuntimeError as problem:
        sys.exit(str(problem))
