"""A call of modprobe, parsed as modprobe parses its command line (docs/reference/loader.md 5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

# Options with an argument.
_VALUED = frozenset("CdSw")
_LONG = {
    "all": "a", "remove": "r", "remove-dependencies": "5", "remove-holders": "5", "wait": "w", "resolve-alias": "R",
    "first-time": "3", "ignore-install": "i", "ignore-remove": "i", "use-blacklist": "b", "force": "f",
    "force-modversion": "2", "force-vermagic": "1", "show-depends": "D", "showconfig": "c", "show-config": "c",
    "show-modversions": "4", "dump-modversions": "4", "show-exports": "6", "dry-run": "n", "show": "n",
    "config": "C", "dirname": "d", "set-version": "S", "syslog": "s", "quiet": "q", "verbose": "v", "version": "V",
    "help": "h",
}  # fmt: skip
# A digit is an option without a letter.
_SHORT = frozenset(letter for letter in _LONG.values() if letter.isalpha())
# Options that change only what modprobe prints, and where.
_PRINTING = frozenset("vqs")
# Options with which modprobe loads nothing.
_LOADS_NOTHING = {
    "r": "unloads kmods", "5": "unloads kmods", "R": "only looks names up", "D": "only prints what it would load",
    "n": "only shows what it would do", "c": "only prints its configuration", "V": "only prints its version",
    "h": "only prints its help", "4": "only prints what a file has", "6": "only prints what a file has",
}  # fmt: skip


@dataclass(frozen=True)
class ModprobeCall:
    """The work that a command line gives to modprobe."""

    names: tuple[str, ...] = ()
    """Names of kmods to load, in order. Several only with --all."""
    parameters: tuple[str, ...] = ()
    """Words behind the name, which are parameters of the kmod."""
    directory: str | None = None
    """Value of the last -d, or None."""
    kernel: str | None = None
    """Value of the last -S, or None."""
    loads_nothing: str | None = None
    """Words for the reason why modprobe loads nothing, or None."""
    unsimulated: tuple[str, ...] = ()
    """Options that change what modprobe loads, and that no check follows."""


class _Refused(Exception):
    """modprobe refuses the command line. The text says why."""


def parse_call(words: Sequence[str]) -> ModprobeCall:
    """Return the call for the words behind `modprobe`. Options may follow names, as glibc's getopt allows."""
    call, names = ModprobeCall(), list[str]()
    has_all, reasons, unsimulated = False, list[str](), list[str]()
    try:
        for option, written, value in _options(words, names):
            if option == "d":
                call = replace(call, directory=value)
            elif option == "S":
                call = replace(call, kernel=value)
            elif option in _LOADS_NOTHING:
                reasons.append(f"{written} {_LOADS_NOTHING[option]}")
            elif option not in _PRINTING and option != "a":
                unsimulated.append(written)
            has_all = has_all or option == "a"
    except _Refused as exc:
        reasons = [str(exc)]
    if not names and not reasons:
        reasons.append("the name of a kmod is missing")
    loaded, parameters = (names, []) if has_all else (names[:1], names[1:])
    loads_nothing = reasons[0] if reasons else None
    return replace(
        call,
        names=tuple(loaded),
        parameters=tuple(parameters),
        loads_nothing=loads_nothing,
        unsimulated=tuple(dict.fromkeys(unsimulated)),
    )


def _options(words: Sequence[str], names: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each option as its letter or word, as it is written, and its value. Append the other words to names."""
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            names += left
            return
        if word.startswith("--"):
            yield _long_option(word, left)
        elif word.startswith("-") and word != "-":
            yield from _short_options(word, left)
        else:
            names.append(word)


def _long_option(word: str, left: list[str]) -> tuple[str, str, str]:
    name, equals, value = word[2:].partition("=")
    # A part of a name is enough if all options that begin with it are the same option.
    fitting = {_LONG[name]} if name in _LONG else {of for long, of in _LONG.items() if long.startswith(name)}
    if len(fitting) != 1:
        raise _Refused(f"{word} is {'an ambiguous' if fitting else 'an unknown'} option")
    (option,) = fitting
    if option not in _VALUED:
        if equals:
            raise _Refused(f"--{name} takes no value")
        return option, word, ""
    return option, word, value if equals else _next(word, left)


def _short_options(word: str, left: list[str]) -> Iterator[tuple[str, str, str]]:
    for at, letter in enumerate(word[1:], start=1):
        if letter not in _SHORT:
            raise _Refused(f"-{letter} is an unknown option")
        if letter in _VALUED:
            yield letter, f"-{letter}", word[at + 1 :] or _next(f"-{letter}", left)
            return
        yield letter, f"-{letter}", ""


def _next(option: str, left: list[str]) -> str:
    if not left:
        raise _Refused(f"{option} has no value")
    return left.pop(0)
