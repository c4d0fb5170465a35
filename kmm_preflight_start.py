"""What must happen before pytest has read the command line; loaded by its entry point.

Before pytest knows an option it takes the value behind it for a test path, and looks for settings and conftest.py
beside that path: outside the checkout it finds none, and the option stays unknown for good. So `--manifests PATH`
starts over as `--manifests=PATH`. And an option that nobody knows ends pytest before the suite is asked: the reports of
an earlier run must not stand as if they were of this one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest


def pytest_addoption() -> None:
    """Starts over where we stand in a checkout and an option has its value behind a space; else does nothing.

    In this hook because it is the first of a plugin: from the next one on pytest holds the output.
    """
    here = Path.cwd()
    if not _is_checkout(here):
        return
    sys.path.insert(0, str(here))
    from fixtures.options.definitions import OPTIONS

    sys.path.remove(str(here))
    given = sys.argv[1:]
    told = joined(given, {option.name for option in OPTIONS if option.metavar})
    if told != given:
        sys.stdout.flush()
        interpreter = sys.orig_argv[: len(sys.orig_argv) - len(given)]
        os.execv(sys.executable, [*interpreter, *told])


def joined(arguments: Sequence[str], options: set[str]) -> list[str]:
    """The arguments with each of these options and its value as one."""
    told: list[str] = []
    rest = list(arguments)
    while rest:
        one = rest.pop(0)
        told.append(f"{one}={rest.pop(0)}" if one in options and rest else one)
    return told


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None]:
    """Once the options are known: one that is none leaves reports that say so."""
    yield
    if not _is_checkout(early_config.rootpath) or "PYTEST_XDIST_WORKER" in os.environ:
        return
    known, unknown = parser.parse_known_and_unknown_args(args)
    named = [str(path) for path in getattr(known, "file_or_dir", [])]
    if unknown and all(path.startswith("preflight_tests") for path in named):
        from fixtures.early_exit import report_unknown

        report_unknown(known.preflight_artifact_dir, unknown, early_config.hook)


def _is_checkout(folder: Path) -> bool:
    return (folder / "fixtures/options/definitions.py").is_file() and (folder / "preflight_tests").is_dir()
