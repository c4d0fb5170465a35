"""Console of a trial: parse the result of each modprobe call, and the kernel's lines during the call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kmm_preflight.trial import script

# A prefix such as `[    1.234567][    T1] `, with CONFIG_PRINTK_CALLER or if printk.time cannot be turned off.
_STAMP = re.compile(r"^(?:\[[\s\d.TC]+\] ?)+")
_INSMOD = re.compile(r"^insmod (\S+)")
_INITIALISED = re.compile(r"^initcall \S+ \[([\w-]+)\] returned (-?\d+) after ")
_PANIC = re.compile(r"^(Kernel panic - not syncing.*)")
# Lines of initcall_debug, and of a clock that the kernel measures late.
_NOISE = re.compile(r"^(?:calling|initcall)  ?\S+ (?:\[[\w-]+\] )?(?:@|returned)|^(?:tsc|clocksource): ")


@dataclass(frozen=True)
class ModprobeResult:
    """Result of one modprobe call."""

    code: int | None = None
    """Exit code of modprobe; None if it did not end."""
    printed: tuple[str, ...] = ()
    """Lines that modprobe printed."""
    loaded: tuple[str, ...] = ()
    """Names of the kmods that were loaded after the call."""
    kernel_lines: tuple[str, ...] = ()
    """Lines of the kernel since the call began."""
    refused_before: tuple[str, ...] = ()
    """Files that nodes load before the kmod, and that did not load here."""

    @property
    def files(self) -> tuple[str, ...]:
        """Files that modprobe tried to load, in its order."""
        return tuple(hit[1] for line in self.printed if (hit := _INSMOD.match(line)))

    @property
    def init_error(self) -> tuple[str, int] | None:
        """Kmod whose own init function failed last, with its negative errno; None if no init function failed."""
        ends = [(hit[1], int(hit[2])) for line in self.kernel_lines if (hit := _INITIALISED.match(line))]
        return ends[-1] if ends and ends[-1][1] < 0 else None

    @property
    def panic(self) -> str | None:
        """Message of a kernel panic."""
        return next((hit[1] for line in self.kernel_lines if (hit := _PANIC.match(line))), None)

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines of modprobe and of the kernel, without debug output."""
        return (*self.printed, *(line for line in self.kernel_lines if not _NOISE.match(line)))


@dataclass(frozen=True)
class BootLog:
    """Results of one boot."""

    kernel: str | None = None
    """Release of the kernel that ran; None if the init script did not begin."""
    results: dict[int, ModprobeResult] = field(default_factory=dict)
    """Results by step number, with a step that did not end."""
    enforced: str | None = None
    """Value of module.sig_enforce, Y or N; None if it was not read."""


def read_console(text: str, token: str) -> BootLog:
    """Parse the text of a console. Lines of the init script begin with the token."""
    parser = _Parser()
    for line in text.splitlines():
        line = _STAMP.sub("", line.rstrip("\r"))
        before, marked, rest = line.partition(f"{token} ")
        parser.add_kernel_line(before)  # with a token, the beginning of a kernel line that has no end yet
        if marked:
            word, _, words = rest.partition(" ")
            parser.add_script_line(word, words.rstrip())
    return parser.log()


class _Parser:
    def __init__(self) -> None:
        self._kernel: str | None = None
        self._enforced: str | None = None
        self._results: dict[int, ModprobeResult] = {}
        self._step: int | None = None
        self._lines: list[tuple[str | None, str]] = []

    def add_kernel_line(self, line: str) -> None:
        if line.strip():
            self._lines.append((None, line))

    def add_script_line(self, word: str, words: str) -> None:
        match word:
            case script.KERNEL:
                self._kernel = words
            case script.ENFORCED:
                self._enforced = words
            case script.BEGIN if words.isdigit():
                self._step, self._lines = int(words), []
            case script.END if self._step is not None:
                self._results[self._step] = self._result()
                self._step = None
            case _:
                self._lines.append((word, words))

    def log(self) -> BootLog:
        if self._step is not None:
            self._results[self._step] = self._result()
        return BootLog(self._kernel, self._results, self._enforced)

    def _result(self) -> ModprobeResult:
        codes = [int(words) for words in self._marked(script.CODE) if words.isdigit()]
        return ModprobeResult(
            code=codes[-1] if codes else None,
            printed=self._marked(script.PRINTED),
            loaded=self._marked(script.LOADED),
            kernel_lines=self._marked(None),
            refused_before=self._marked(script.REFUSED_BEFORE),
        )

    def _marked(self, word: str | None) -> tuple[str, ...]:
        return tuple(words for mark, words in self._lines if mark == word)


def lines_of(result: ModprobeResult, most: int = 40) -> Iterator[str]:
    """Yield the lines of a result. Of more than `most` lines, yield the first and the last ones."""
    lines = result.lines
    if len(lines) <= most:
        yield from lines
        return
    yield from lines[: most // 2]
    yield f"… {len(lines) - most} lines left out …"
    yield from lines[-(most // 2) :]
