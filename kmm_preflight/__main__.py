"""The command kmm-preflight: run the suite from any folder, or a subcommand."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import version
from pathlib import Path

from kmm_preflight.entry.hints import mistyped, option_names
from kmm_preflight.entry.places import (
    EXIT_USAGE,
    REPORTS,
    artifact_folder,
    artifact_value,
    cache_home,
    remove_reports,
    suite_folder,
)

_NO_CACHE = "no:cacheprovider"


def main() -> int:
    """Run the command with the arguments of this process, and return its exit code."""
    try:
        code = _main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _main() -> int:
    arguments = sys.argv[1:]
    suite = suite_folder()
    sys.path.insert(0, str(suite))
    commands = importlib.import_module("commands")
    if arguments and arguments[0] in commands.SUBCOMMANDS:
        code: int = commands.run(arguments[0], arguments[1:])
        return code
    if "--version" in arguments:
        print(f"kmm-preflight {version('kmm-preflight')}")
        return 0
    if "--help" in arguments or "-h" in arguments:
        print(commands.help_text(), end="")
        return 0
    if "--pytest-help" in arguments:
        return _run_pytest(suite, ["--help"])
    if arguments and (near := commands.nearest_subcommand(arguments[0])):
        print(f"ERROR: unknown subcommand {arguments[0]}. Did you mean {near}?", file=sys.stderr)
        return EXIT_USAGE
    return _validate(suite, arguments)


def _validate(suite: Path, arguments: list[str]) -> int:
    """Run the suite. If the call was a mistake that left no reports, remove those of the run before."""
    folder = artifact_folder(artifact_value(arguments))
    if sentence := mistyped(arguments, option_names()):
        remove_reports(folder)
        print(f"ERROR: {sentence}", file=sys.stderr)
        return EXIT_USAGE
    before = _state(folder)
    code = _run_pytest(suite, arguments)
    if code == EXIT_USAGE and _state(folder) == before:
        remove_reports(folder)
    return code


def _run_pytest(suite: Path, arguments: list[str]) -> int:
    import pytest

    plugin = ["-p", "kmm_preflight.entry.command_plugin", "--disable-plugin-autoload"]
    # pytest would compile tests and plugins anew to explain failed assertions; the suite has none.
    ours = [f"--config-file={suite / 'pyproject.toml'}", *plugin, "--assert=plain"]
    if not any(_NO_CACHE in text for text in (*arguments, os.environ.get("PYTEST_ADDOPTS", ""))):
        ours += ["-o", f"cache_dir={cache_home() / 'pytest'}"]
    return int(pytest.main([*ours, *arguments]))


def _state(folder: Path) -> list[tuple[int, int] | None]:
    """Return what shows that a report was written again: file number and time of change, or None for no report."""
    return [_stamp(folder / name) for name in REPORTS]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


if __name__ == "__main__":
    sys.exit(main())
