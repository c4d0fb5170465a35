"""Trials on one kernel, boot after boot, until each has its findings."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kmm_preflight.model import Finding, Severity
from kmm_preflight.trial.boot import Boot, BootEnd, Console
from kmm_preflight.trial.console import BootLog, read_console
from kmm_preflight.trial.environment import BootKit, TrialEnvironment, other_kernel
from kmm_preflight.trial.initramfs import Device, Entry, File, Folder, size_of, write_initramfs
from kmm_preflight.trial.programs import LIBRARIES, MissingTool
from kmm_preflight.trial.script import Step, init_script, last_marks, ready_mark
from kmm_preflight.trial.staging import StagedTrial, Trial, lay_out
from kmm_preflight.trial.verdict import Subject, conclude, unable, undecided

# In one boot; a single trial may take twice as much. The kernel has the archive and what it unpacks in memory.
_BOOT_BYTES, _TRIAL_BYTES = 256 << 20, 512 << 20
_MEMORY_MIB = 512
_LINES = 20
# initcall_debug tells the loader's refusal from that of a kmod's own init. An oops ends the boot, so that it counts for
# the kmod that made it. Without a time before them, lines are the same in each run.
# What the kernel does not know itself it gives to the init as its environment.
_ARGUMENTS = (
    "quiet panic=-1 oops=panic printk.devkmsg=on printk.time=0 initcall_debug rdinit=/init "
    f"LD_LIBRARY_PATH=/{LIBRARIES}"
)
_FRAME: Mapping[str, Entry] = {
    **{path: Folder() for path in ("proc", "sys", "tmp", "etc/modprobe.d")},
    "dev/console": Device(5, 1),
    "dev/null": Device(1, 3),
    "dev/kmsg": Device(1, 11),
}
_SMALLER = "Load the kmod on a node of the new kernel by hand, or make the folder in the image smaller."


class TrialRunner:
    """The trials of one kernel; findings are there once it has run."""

    def __init__(
        self, trials: Sequence[Trial], kernel: str, bed: TrialEnvironment, equipment: BootKit, scratch: Path
    ) -> None:
        self._trials, self._kernel, self._equipment, self._scratch = trials, kernel, equipment, scratch
        self._laid: dict[int, StagedTrial] = {}
        self._found: dict[tuple[int, bool], Finding] = {}
        self._enforced = (False, True) if bed.enforced else (False,)
        for number, trial in enumerate(trials):
            laid = lay_out(trial, number, kernel, bed.in_tree, scratch)
            if isinstance(laid, StagedTrial) and _size(laid) > _TRIAL_BYTES:
                laid = MissingTool(
                    f"the folder has {_size(laid) >> 20} MiB and does not fit into the virtual machine", _SMALLER
                )
            if isinstance(laid, StagedTrial):
                self._laid[number] = laid
            else:
                self._found[number, False] = unable(Subject(trial.kmod, kernel), laid)

    def findings_of(self, number: int) -> tuple[Finding, ...]:
        """The trial's, that of the enforced one last and only where the other went well."""
        steps = [(number, one) for one in self._enforced if not one or self._may_go_on(number)]
        return tuple(self._found[step] for step in steps if step in self._found)

    def run(self) -> None:
        """Boots as long as a step has no answer; each boot answers one at least, or ends those that it was for."""
        while steps := self._open_steps():
            console, token = self._boot(steps)
            told = read_console(console.text, token)
            if not self._take(steps, told, console):
                self._give_up(steps, told, console)

    def _open_steps(self) -> list[Step]:
        """As many as fit into one boot, those that are enforced last."""
        steps, size, counted = list[Step](), 0, set[int]()
        for enforced in self._enforced:
            for number, laid in self._laid.items():
                if (number, enforced) in self._found or (enforced and not self._may_go_on(number)):
                    continue
                size += 0 if number in counted else _size(laid)
                counted.add(number)
                if steps and size > _BOOT_BYTES:
                    return steps
                steps.append(replace(laid.step, number=2 * number + enforced, enforced=enforced))
        return steps

    def _may_go_on(self, number: int) -> bool:
        """Whether it is worth to try with signatures enforced: not after a load that has not gone well."""
        found = self._found.get((number, False))
        return found is None or found.severity in (Severity.NOTE, Severity.WARNING)

    def _boot(self, steps: Sequence[Step]) -> tuple[Console, str]:
        token = secrets.token_hex(16)
        entries: dict[str, Entry] = {**_FRAME, **self._equipment.programs}
        for number in {step.number // 2 for step in steps}:
            entries |= self._laid[number].entries
        entries["init"] = File(init_script(token, steps).encode("utf-8", "surrogateescape"))
        archive = self._scratch / "initramfs"
        with archive.open("wb") as out:
            write_initramfs(out, entries)
        memory = _MEMORY_MIB + 3 * (archive.stat().st_size >> 20)
        boot = Boot(self._equipment.vmlinuz, archive, memory, _ARGUMENTS, ready_mark(token), last_marks(token))
        return self._equipment.machine.boot(boot), token

    def _take(self, steps: Sequence[Step], told: BootLog, console: Console) -> bool:
        """Keeps what a boot has answered; whether that was anything.

        A step that came to no end is believed only when it was the boot's first: else what was loaded before it may be
        the cause, and it is tried again.
        """
        if told.kernel != self._kernel:
            return False
        taken = False
        for step in steps:
            answer = told.answers.get(step.number)
            unsure = answer is not None and (answer.code is None or bool(answer.panic))
            if answer is None or (unsure and step is not steps[0]):
                continue
            number, seconds = step.number // 2, self._equipment.machine.seconds
            tried = self._tried(step)
            if step.enforced and told.enforced != "Y":
                finding = undecided(tried, f"sig_enforce of the kernel is {told.enforced or 'unknown'}, expected Y")
            else:
                finding = conclude(tried, answer, console.end, seconds)
            self._found[number, step.enforced] = finding
            taken = True
        return taken

    def _give_up(self, steps: Sequence[Step], told: BootLog, console: Console) -> None:
        """The boot was of another kernel, or came not as far as the first step."""
        for step in steps:
            number, tried = step.number // 2, self._tried(step)
            if told.kernel not in ("", self._kernel):
                finding = unable(tried, other_kernel(told.kernel, self._kernel))
            else:
                finding = undecided(tried, self._no_answer(console), _last_lines(console.text))
            self._found[number, step.enforced] = finding

    def _tried(self, step: Step) -> Subject:
        kmod = self._trials[step.number // 2].kmod
        return Subject(kmod, self._kernel, step.enforced, len(step.insmod))

    def _no_answer(self, console: Console) -> str:
        after = f" ({self._equipment.machine.seconds:.0f} s)" if console.end is BootEnd.TIME else ""
        return f"{console.end.value}{after} before the kernel had booted"


def _size(laid: StagedTrial) -> int:
    return sum(size_of(entry) for entry in laid.entries.values())


def _last_lines(text: str) -> list[str]:
    """Those from the kernel's panic on, else the last ones."""
    lines = [line for line in text.splitlines() if line.strip()]
    panic = next((number for number, line in enumerate(lines) if "Kernel panic" in line), len(lines) - _LINES)
    return lines[max(0, panic) :][:_LINES]
