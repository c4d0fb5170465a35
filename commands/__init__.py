"""Subcommands of kmm-preflight, one in each file, and the help of the command."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from kmm_preflight.entry.hints import nearest


@dataclass(frozen=True)
class Subcommand:
    """Words of the help on a subcommand. Its file has a function run(arguments) that returns the exit code."""

    arguments: str
    """The arguments, as the help shows them."""
    summary: str
    """The purpose, in a few words."""


SUBCOMMANDS = {
    "collect": Subcommand("-o DIR", "export what a run needs of a cluster, for a gate without the cluster"),
    "explain": Subcommand("FINDING", "print what a finding means and how to fix it"),
    "completion": Subcommand("bash|zsh|fish", "print a script that completes options and subcommands in a shell"),
}


def run(name: str, arguments: Sequence[str]) -> int:
    """Run a subcommand and return its exit code."""
    code: int = importlib.import_module(f"commands.{name}").run(arguments)
    return code


def nearest_subcommand(word: str) -> str | None:
    """Return the subcommand that is spelled nearly like the word, or None."""
    return None if word.startswith("-") else nearest(word, SUBCOMMANDS)


def help_text() -> str:
    """Return the help of the command."""
    from commands.help import text

    return text(SUBCOMMANDS)
