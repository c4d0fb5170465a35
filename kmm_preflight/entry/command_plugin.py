"""Plugin that the command adds to pytest: the suite is loaded from any folder, and nothing of that folder is."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

from kmm_preflight.entry.places import VALIDATION, suite_folder

_SUITE = suite_folder()
if str(_SUITE) not in sys.path[:1]:
    # In front: another package named `fixtures` may be installed.
    sys.path.insert(0, str(_SUITE))

# The options are known before pytest reads the command line: a value after a space is not taken for a test.
pytest_plugins = ["kmm_preflight.entry.pytest_plugin", "fixtures.options.command_line"]


# The command switches off the loading of every plugin that is installed: the others are for other projects.
_INSTALLED_PLUGINS = ("xdist", "metadata", "html")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Load the plugins that the suite depends on, and show the name of the command in pytest's messages."""
    parser.prog = "kmm-preflight"
    for name in _INSTALLED_PLUGINS:
        pluginmanager.load_setuptools_entrypoints("pytest11", name)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> Generator[None]:
    """Load the conftest.py of the suite, and none for paths outside of the suite.

    Tests are named relative to the suite. A wrong name is reported once the suite is loaded (fixtures/named_tests.py).
    """
    named = early_config.known_args_namespace
    tests = []
    for text in named.file_or_dir:
        if text.partition("/")[0].partition("::")[0] == VALIDATION:
            tests.append(f"{_SUITE}/{text}")
            args[args.index(text)] = tests[-1]
    if not named.file_or_dir:
        args.append(str(_SUITE / VALIDATION))
    named.file_or_dir = tests or [str(_SUITE / VALIDATION)]
    yield
