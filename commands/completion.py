"""kmm-preflight completion: print a script that completes options, values and subcommands in a shell."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from commands import SUBCOMMANDS
from commands.arguments import Arguments
from commands.explain import finding_ids
from fixtures.options.definitions import OPTIONS, Option

_FILES = ("FILE", "DIR", "PATH")
_GENERAL = {"--help": "print the help", "--version": "print the version", "--pytest-help": "print pytest's help"}


def run(arguments: Sequence[str]) -> int:
    """Print the script for a shell."""
    parser = Arguments("completion", "Print a script for your shell. Example: source <(kmm-preflight completion bash)")
    parser.add_argument("shell", choices=sorted(_SCRIPTS), help="the shell that reads the script")
    print(_SCRIPTS[parser.parse_args(arguments).shell](), end="")
    return 0


def _words_after() -> dict[str, Sequence[str]]:
    """Return the words that can follow a subcommand."""
    return {"explain": finding_ids(), "completion": sorted(_SCRIPTS)}


def _bash() -> str:
    words = [*SUBCOMMANDS, *_GENERAL, *(option.name + ("=" if option.metavar else "") for option in OPTIONS)]
    choices = [f"    {option.name}) words={_quoted(option.choices)} ;;" for option in OPTIONS if option.choices]
    files = "|".join(option.name for option in OPTIONS if option.metavar in _FILES)
    values = "|".join(option.name for option in OPTIONS if option.metavar and not option.choices)
    after = [f"    {name}) words={_quoted(words)} ;;" for name, words in _words_after().items()]
    return "\n".join(
        [
            "_kmm_preflight() {",
            "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=",
            "  # bash takes = for a word of its own.",
            '  if [ "$word" = = ]; then word=; elif [ "$before" = = ]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi',
            "  case $before in",
            *choices,
            *after,
            f'    {files}) compopt -o filenames; COMPREPLY=($(compgen -f -- "$word")); return ;;',
            f"    {values}) return ;;",
            f"    *) words={_quoted(words)} ;;",
            "  esac",
            '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
            "  [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace",
            "}",
            "complete -F _kmm_preflight kmm-preflight kubectl-kmm_preflight",
            "",
        ]
    )


def _zsh() -> str:
    options = [_zsh_option(option) for option in OPTIONS]
    general = [shlex.quote(f"{name}[{words}]") for name, words in _GENERAL.items()]
    subcommands = [shlex.quote(f"{name}:{command.summary}") for name, command in SUBCOMMANDS.items()]
    after = [f"    {name}) _values {name} {' '.join(words)} ;;" for name, words in _words_after().items()]
    return "\n".join(
        [
            "#compdef kmm-preflight kubectl-kmm_preflight",
            "_kmm_preflight() {",
            "  local state",
            f"  local -a subcommands=({' '.join(subcommands)})",
            "  _arguments \\",
            *(f"    {argument} \\" for argument in (*options, *general)),
            "    '1: :->subcommand' '2: :->argument' && return",
            "  case $state in",
            "    subcommand) _describe subcommand subcommands ;;",
            "    argument)",
            "  case $words[2] in",
            *after,
            "  esac ;;",
            "  esac",
            "}",
            "compdef _kmm_preflight kmm-preflight kubectl-kmm_preflight",
            "",
        ]
    )


def _zsh_option(option: Option) -> str:
    words = option.help.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    action = "_files" if option.metavar in _FILES else f"({' '.join(option.choices)})" if option.choices else ""
    value = f":{option.metavar}:{action}" if option.metavar else ""
    many, equals = "*" if option.repeatable else "", "=" if option.metavar else ""
    return shlex.quote(f"{many}{option.name}{equals}[{words}]{value}")


def _fish() -> str:
    lines = ["complete -c kmm-preflight -f"]
    lines += [
        f"complete -c kmm-preflight -n __fish_use_subcommand -a {name} -d {_fish_quoted(command.summary)}"
        for name, command in SUBCOMMANDS.items()
    ]
    lines += [
        f"complete -c kmm-preflight -n '__fish_seen_subcommand_from {name}' -a {_fish_quoted(' '.join(words))}"
        for name, words in _words_after().items()
    ]
    lines += [
        f"complete -c kmm-preflight -l {name.removeprefix('--')} -d {_fish_quoted(words)}"
        for name, words in _GENERAL.items()
    ]
    lines += [_fish_option(option) for option in OPTIONS]
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    parts = ["complete -c kmm-preflight -l", option.name.removeprefix("--"), "-d", _fish_quoted(option.help)]
    if option.metavar in _FILES:
        parts.append("-r -F")
    elif option.choices:
        parts.append(f"-x -a {_fish_quoted(' '.join(option.choices))}")
    elif option.metavar:
        parts.append("-x")
    return " ".join(parts)


def _quoted(words: Sequence[str]) -> str:
    return shlex.quote(" ".join(words))


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SCRIPTS: dict[str, Callable[[], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
