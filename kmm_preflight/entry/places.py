"""Places of the suite and of its reports.

This file must parse on every Python 3: conftest.py imports it before it checks the version of Python.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

EXIT_USAGE = 4
"""Exit code of a mistaken call."""

VALIDATION = "preflight_tests"
"""Folder of the suite that holds the validation."""

REPORTS = JSON, JUNIT, PAGE, PATCH = (
    "preflight.json",
    "junit_preflight.xml",
    "preflight.html",
    "status-patch.yaml",
)
"""File names of the reports."""

_PACKAGE = Path(__file__).parent.parent
_ARTIFACT_OPTION = "--artifact-dir"


def suite_folder() -> Path:
    """Return the folder of the suite: inside the installed package, or the clone that the package belongs to."""
    packaged = _PACKAGE / "suite"
    return packaged if packaged.is_dir() else _PACKAGE.parent


def enclosing_suite(folder: Path) -> Path | None:
    """Return the clone that this folder is in, or None."""
    return next((place for place in (folder, *folder.parents) if _is_suite(place)), None)


def _is_suite(folder: Path) -> bool:
    return (folder / "fixtures/options/definitions.py").is_file() and (folder / VALIDATION).is_dir()


def cache_home() -> Path:
    """Return the folder for everything that a later run can use again."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kmm-preflight"


def artifact_folder(value: str | None) -> Path:
    """Return the folder for the reports. value is that of --artifact-dir, None if the option is not given."""
    return Path(value or os.environ.get("ARTIFACT_DIR") or "artifacts").absolute()


def is_added_option(name: str) -> bool:
    """Return True if an option comes from PYTEST_ADDOPTS."""
    return name in [word.partition("=")[0] for word in _added_options()]


def artifact_value(arguments: Sequence[str]) -> str | None:
    """Return the value of --artifact-dir in a command line that pytest has not parsed."""
    value = None
    words = iter([*_added_options(), *arguments])
    for word in words:
        if word == _ARTIFACT_OPTION:
            value = next(words, None)
        elif word.startswith(f"{_ARTIFACT_OPTION}="):
            value = word.partition("=")[2]
    return value


def _added_options() -> list[str]:
    try:
        return shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))
    except ValueError:
        return []  # pytest itself reports the open quote


def remove_reports(folder: Path) -> None:
    """Remove the reports of an earlier run from a folder, and no other file."""
    for name in REPORTS:
        # The mistake that is about to be reported matters more than a file that cannot be removed.
        with contextlib.suppress(OSError):
            (folder / name).unlink()
