"""The help of kmm-preflight: subcommands, then the options in groups."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from itertools import groupby

from commands import Subcommand
from fixtures.options.definitions import OPTIONS, Option

_WIDTH_LEAST, _WIDTH_MOST = 80, 120
_INDENT = 30
_HEAD = """\
usage: kmm-preflight [options]
       kmm-preflight SUBCOMMAND

Will every kernel module that KMM loads on your nodes still load after the upgrade?

A first run, on the Modules of the cluster that kubectl uses:
  kmm-preflight --release-image=4.18.3

The value of an option follows a space or =. Relative paths start in the current folder.
If an option is not given, its environment variable decides. A repeatable option takes
several values in its variable, separated by commas.
"""
_TAIL = """\
options of pytest:
  -n 4, -k NAME, -x, --lf, -q and all other options of pytest work, too.
  kmm-preflight --pytest-help lists them. PYTEST_ADDOPTS adds options to each run.
  The settings of pytest in the current folder (conftest.py, pytest.ini, pyproject.toml)
  are not read. Other plugins of pytest are not loaded; -p NAME loads one.

exit codes:
  0 verified, 1 refuted, 2 interrupted, 3 internal error, 4 mistake in the call,
  5 nothing to validate, 10 undecided
"""


def text(subcommands: Mapping[str, Subcommand]) -> str:
    """Return the help, as wide as the terminal."""
    width = min(max(shutil.get_terminal_size().columns, _WIDTH_LEAST), _WIDTH_MOST)
    rows = [(f"{name} {command.arguments}", command.summary) for name, command in subcommands.items()]
    parts = [_HEAD, _section("subcommands", rows, width)]
    for group, options in groupby(OPTIONS, key=lambda option: option.group):
        title = group.removeprefix("preflight: ")
        parts.append(_section(title, [(_spelling(option), option.full_help) for option in options], width))
    general = [
        ("--help", "print this help"),
        ("--version", "print the version"),
        ("--pytest-help", "print pytest's help"),
    ]
    parts += [_section("general", general, width), _TAIL]
    return "\n".join(parts)


def _spelling(option: Option) -> str:
    return f"{option.name}={option.metavar}" if option.metavar else option.name


def _section(title: str, rows: list[tuple[str, str]], width: int) -> str:
    lines = [f"{title}:"]
    for name, words in rows:
        indent = " " * _INDENT
        wrapped = textwrap.wrap(words, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        if len(name) + 4 <= _INDENT:
            wrapped[0] = f"  {name}".ljust(_INDENT) + wrapped[0].lstrip()
        else:
            lines.append(f"  {name}")
        lines += wrapped
    return "\n".join(lines) + "\n"
