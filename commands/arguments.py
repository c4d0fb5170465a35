"""The arguments of a subcommand."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from kmm_preflight.entry.places import EXIT_USAGE


class Arguments(argparse.ArgumentParser):
    """A parser that ends with one line and the exit code for a mistaken call."""

    def __init__(self, name: str, description: str) -> None:
        """Name the subcommand and its purpose."""
        super().__init__(f"kmm-preflight {name}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print the problem and end."""
        print(f"ERROR: {self.prog}: {message}. Type: {self.prog} --help", file=sys.stderr)
        sys.exit(EXIT_USAGE)
