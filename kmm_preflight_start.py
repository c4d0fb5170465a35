"""Lets `--manifests PATH` be written with a space.

Before pytest knows an option it takes the value behind it for a test path, and looks for settings and conftest.py
beside that path: outside the checkout it finds none, and the option stays unknown for good. This plugin is loaded by
its entry point, early enough to start over with `--manifests=PATH`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Starts over where the checkout we stand in is not the project that pytest found; else does nothing."""
    here = early_config.invocation_params.dir
    given = list(early_config.invocation_params.args)
    if early_config.rootpath == here or not _is_checkout(here) or given != sys.argv[1:]:
        return
    sys.path.insert(0, str(here))
    from fixtures.options import OPTIONS

    told = joined(given, {option.name for option in OPTIONS if option.metavar})
    if told != given:
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


def _is_checkout(folder: Path) -> bool:
    return (folder / "fixtures/options.py").is_file() and (folder / "preflight_tests").is_dir()
