"""Plugin of every pytest that has this package installed. It only explains mistaken calls.

Without an option of the suite, or one that is spelled nearly like it, on the command line the plugin does nothing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import NoReturn

import pytest

from kmm_preflight.entry.hints import mistyped, nearest, not_a_test, option_names
from kmm_preflight.entry.places import artifact_folder, artifact_value, enclosing_suite, remove_reports

_OPTIONS_PLUGIN = "fixtures.options.command_line"
_COMMAND = "kmm-preflight"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None]:
    """Raise UsageError for options that pytest is about to refuse, if they are meant for the suite."""
    if "PYTEST_XDIST_WORKER" in os.environ or early_config.known_args_namespace.help:
        return (yield)
    typed = [str(word) for word in early_config.invocation_params.args]
    if enclosing_suite(early_config.invocation_params.dir) and (sentence := mistyped(typed, option_names())):
        _refuse(typed, sentence)
    if unknown := _unknown_options(parser, args):
        _check_clone(early_config, unknown)
    yield
    if not (unknown := _unknown_options(parser, args)):
        return None
    if early_config.pluginmanager.hasplugin(_OPTIONS_PLUGIN):
        namespace, _ = parser.parse_known_and_unknown_args(args)
        early_config.hook.pytest_preflight_unknown_options(config=early_config, namespace=namespace, unknown=unknown)
    elif ours := [name for name in unknown if name in option_names()]:
        _refuse(
            typed,
            f"{ours[0]} is an option of {_COMMAND}, not of pytest. Type: {_COMMAND} {shlex.join(typed)}",
        )
    return None


def _unknown_options(parser: pytest.Parser, args: list[str]) -> list[str]:
    """Return the names of options that no plugin has registered so far."""
    _, unknown = parser.parse_known_and_unknown_args(args)
    return [text.partition("=")[0] for text in unknown if text.startswith("-")]


def _check_clone(config: pytest.Config, unknown: list[str]) -> None:
    """Raise UsageError if pytest has left the clone that it was started in.

    pytest does not know the suite's options yet. If the value of an option follows a space, pytest takes the value for
    the path of a test. If that path is outside of the clone, pytest does not find the clone's conftest.py.
    """
    clone = enclosing_suite(config.invocation_params.dir)
    if clone is None or config.rootpath == clone:
        return
    typed = [str(word) for word in config.invocation_params.args]
    for name, value in pairwise(typed):
        if option_names().get(name) and not value.startswith("-"):
            joined = f"{name}={shlex.quote(value)}"
            _refuse(typed, f"pytest takes {value} for a test. Type {joined}, or use {_COMMAND} instead of pytest.")
    for name in unknown:
        if name not in option_names() and (near := nearest(name, option_names())):
            _refuse(typed, f"unknown option {name}. Did you mean {near}?")
    named = [text for text in config.known_args_namespace.file_or_dir if (config.invocation_params.dir / text).exists()]
    if named and any(name in option_names() for name in unknown):
        _refuse(typed, not_a_test(named[0]))


def _refuse(typed: Sequence[str], sentence: str) -> NoReturn:
    """End pytest with the sentence. No report of an earlier run stays, as it would pass for one of this call."""
    remove_reports(artifact_folder(artifact_value(typed)))
    raise pytest.UsageError(sentence)
