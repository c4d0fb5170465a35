"""The command's help, the pages of findings, and completion in real shells."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.options.definitions import OPTIONS
from tests.real.requirement import need_tool
from tests.runs import ROOT

COMMAND = (sys.executable, "-m", "kmm_preflight")
HEAVY = ("pytest", "yaml", "urllib3", "kubernetes", "cryptography", "ssl")
"""Modules that take long to import."""


def _run(*arguments: str, columns: int = 100) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "COLUMNS": str(columns)}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("columns", [60, 100, 300])
def test_the_help_has_each_option_with_its_variable(columns: int) -> None:
    done = _run("--help", columns=columns)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= max(columns, 100)
    words = done.stdout.split()
    for option in OPTIONS:
        assert (f"{option.name}={option.metavar}" if option.metavar else option.name) in words
        if option.variable:
            assert f"[${option.variable}]" in words
    assert "kmm-preflight --pytest-help" in done.stdout


def test_the_help_of_pytest_has_all_options() -> None:
    done = _run("--pytest-help")
    assert done.returncode == 0
    assert "--release-image=REF" in done.stdout
    assert "--maxfail" in done.stdout
    assert "--numprocesses" in done.stdout


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("explain", "kmod-absent"), ("completion", "bash")])
def test_words_alone_import_little(arguments: tuple[str, ...]) -> None:
    program = (
        "import sys; from kmm_preflight.__main__ import main\n"
        f"sys.argv[1:] = {list(arguments)!r}\nassert main() == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("explain", "kmod-absnt"), "unknown finding kmod-absnt. Did you mean kmod-absent?"),
        (("explain", "x"), "unknown finding x. The reports have the ids of findings, such as kmod-absent."),
        (("explain", "../report"), "unknown finding ../report. "),
        (("explain",), "kmm-preflight explain: the following arguments are required: FINDING. "),
        (("completion", "csh"), "kmm-preflight completion: argument shell: invalid choice: 'csh'"),
    ],
)
def test_a_subcommand_that_cannot_be(arguments: tuple[str, ...], sentence: str) -> None:
    done = _run(*arguments)
    assert (done.returncode, done.stdout) == (4, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ERROR: {sentence}")


def test_each_subcommand_has_a_help() -> None:
    for name in ("explain", "completion", "collect"):
        done = _run(name, "--help")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: kmm-preflight {name}")


def test_a_reader_that_stops_early() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(COMMAND)} --help | true"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


TYPED = pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("expl", "explain "),
        ("explain kmod-abs", "kmod-absent "),
        ("completion z", "zsh "),
        ("--release-im", "--release-image="),
        ("--require-s", "--require-signature "),
        ("--proof n", "node "),
        ("--proof=n", "node "),
        ("--manifests mod", "modules/"),
        ("--manifests=mod", "modules/"),
    ],
)


@TYPED
@pytest.mark.parametrize(
    ("shell", "prepare"),
    [
        ("bash --norc --noprofile -i", "bind 'set enable-bracketed-paste off'; PS1='> '; source ./script"),
        ("zsh -f -i", "unsetopt zle_bracketed_paste; PS1='> '; autoload -Uz compinit; compinit -D -u; source ./script"),
    ],
    ids=["bash", "zsh"],
)
def test_completion_of_what_is_typed(tmp_path: Path, shell: str, prepare: str, typed: str, shown: str) -> None:
    name = shell.partition(" ")[0]
    need_tool(name, f"apt-get install {name}")
    (tmp_path / "script").write_text(_run("completion", name).stdout)
    (tmp_path / "modules").mkdir()
    line = _type(shell.split(), tmp_path, prepare, f"kmm-preflight {typed}\t")
    stem = typed[: max(typed.rfind(" "), typed.rfind("=")) + 1]
    assert line.rstrip("\x07").endswith(f"{stem}{shown}"), line


def _type(shell: list[str], folder: Path, prepare: str, text: str) -> str:
    """Return the last line on the terminal of an interactive shell."""
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(folder)}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(shell[0], shell, environment)
    try:
        os.write(terminal, f"{prepare}; echo rea''dy\n".encode())
        _read(terminal, "ready\r")
        os.write(terminal, text.encode())
        return _read(terminal, None).replace("\r", "\n").splitlines()[-1]
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def _read(terminal: int, awaited: str | None, quiet_s: float = 2.0, most_s: float = 60.0) -> str:
    """Return what the shell prints until a word, else until it is quiet."""
    seen = ""
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], quiet_s)
        if ready:
            seen += os.read(terminal, 65536).decode(errors="replace")
        if awaited is not None and awaited in seen:
            return seen
        if awaited is None and not ready and seen:
            return seen
    raise AssertionError(f"the shell printed {seen!r}")


@TYPED
def test_completion_in_fish(tmp_path: Path, typed: str, shown: str) -> None:
    need_tool("fish", "apt-get install fish")
    (tmp_path / "script").write_text(_run("completion", "fish").stdout)
    (tmp_path / "modules").mkdir()
    command = ["fish", "--no-config", "-c", f"source script; complete -C 'kmm-preflight {typed}'"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    offered = [
        line.partition("\t")[0].rpartition("=")[2] or line.partition("\t")[0] for line in done.stdout.splitlines()
    ]
    assert shown.rstrip(" =") in [word.rstrip("=") for word in offered], done.stdout
