"""What the console of a trial tells: for each call of modprobe its answer, and what the kernel said meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kmm_preflight.trial import script

# Where CONFIG_PRINTK_CALLER is set, or printk.time is not to be turned off: `[    1.234567][    T1] words`.
_STAMP = re.compile(r"^(?:\[[\s\d.TC]+\] ?)+")
_INSMOD = re.compile(r"^insmod (\S+)")
_INITIALISED = re.compile(r"^initcall \S+ \[([\w-]+)\] returned (-?\d+) after ")
_PANIC = re.compile(r"^(Kernel panic - not syncing.*)")
# Of initcall_debug, and of a clock that is measured late.
_NOISE = re.compile(r"^(?:calling|initcall)  ?\S+ (?:\[[\w-]+\] )?(?:@|returned)|^(?:tsc|clocksource): ")


@dataclass(frozen=True)
class TrialAnswer:
    """What became of one call. code is modprobe's, None when it came to no end.

    told is what modprobe printed, live the kmods that were loaded then, said what the kernel said from the call on.
    lacking names files that nodes have loaded before, and that did not load here.
    """

    code: int | None = None
    told: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The files that modprobe has tried, in its order."""
        return tuple(hit[1] for line in self.told if (hit := _INSMOD.match(line)))

    @property
    def refusal(self) -> tuple[str, int] | None:
        """The kmod whose own init ended the call, with its negative errno; None where no init did."""
        ended = [(hit[1], int(hit[2])) for line in self.said if (hit := _INITIALISED.match(line))]
        return ended[-1] if ended and ended[-1][1] < 0 else None

    @property
    def panic(self) -> str:
        """The kernel's words when it gave up, "" when it did not."""
        return next((hit[1] for line in self.said if (hit := _PANIC.match(line))), "")

    @property
    def words(self) -> tuple[str, ...]:
        """What modprobe and the kernel said, without what was only asked for to follow it."""
        return (*self.told, *(line for line in self.said if not _NOISE.match(line)))


@dataclass(frozen=True)
class BootLog:
    """What one boot told: the release of the kernel that ran, "" when it came not so far, and answers by step.

    enforced is what the kernel said of module.sig_enforce, "" when it was not asked. open is the step that was begun
    and came to no end.
    """

    kernel: str = ""
    answers: dict[int, TrialAnswer] = field(default_factory=dict)
    enforced: str = ""
    open: int | None = None


def read_console(text: str, token: str) -> BootLog:
    """What stands on a console, a step that came to no end included."""
    reading = _Reading()
    for line in text.splitlines():
        line = _STAMP.sub("", line.rstrip("\r"))
        before, found, rest = line.partition(f"{token} ")
        if not found:
            reading.kernel_says(line)
            continue
        reading.kernel_says(before)  # a driver's line that had no end yet
        word, _, words = rest.partition(" ")
        reading.script_says(word, words.rstrip())
    return reading.told()


class _Reading:
    def __init__(self) -> None:
        self._kernel, self._enforced = "", ""
        self._answers: dict[int, TrialAnswer] = {}
        self._step: int | None = None
        self._lines: list[tuple[str, str]] = []

    def kernel_says(self, line: str) -> None:
        if line.strip():
            self._lines.append(("", line))

    def script_says(self, word: str, words: str) -> None:
        match word:
            case script.KERNEL:
                self._kernel = words
            case script.ENFORCED:
                self._enforced = words
            case script.BEGIN if words.isdigit():
                self._step, self._lines = int(words), []
            case script.END if self._step is not None:
                self._answers[self._step] = self._answer()
                self._step = None
            case _:
                self._lines.append((word, words))

    def told(self) -> BootLog:
        if self._step is not None:
            self._answers[self._step] = self._answer()
        return BootLog(self._kernel, self._answers, self._enforced, self._step)

    def _answer(self) -> TrialAnswer:
        codes = [int(words) for words in self._of(script.CODE) if words.isdigit()]
        words = [self._of(word) for word in (script.TOLD, script.LIVE, "", script.BEFORE)]
        return TrialAnswer(codes[-1] if codes else None, *words)

    def _of(self, word: str) -> tuple[str, ...]:
        return tuple(words for one, words in self._lines if one == word)


def lines_of(answer: TrialAnswer, most: int = 40) -> Iterator[str]:
    """The words of an answer; of many the first and the last ones."""
    words = answer.words
    if len(words) <= most:
        yield from words
        return
    yield from words[: most // 2]
    yield f"… {len(words) - most} lines left out …"
    yield from words[-(most // 2) :]
