"""Boot loop: boot until each trial on a kernel has its findings."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kmm_preflight.model import Finding, Severity
from kmm_preflight.trial.boot import Boot, BootEnd, Console
from kmm_preflight.trial.console import BootLog, read_console
from kmm_preflight.trial.environment import BootKit, TrialEnvironment
from kmm_preflight.trial.initramfs import Device, Entry, File, Folder, size_of, write_initramfs
from kmm_preflight.trial.programs import LIBRARIES, MissingTool
from kmm_preflight.trial.script import Step, init_script, last_marks, ready_mark
from kmm_preflight.trial.staging import StagedTrial, Trial, stage_trial
from kmm_preflight.trial.verdict import Subject, conclude, unable, undecided
from kmm_preflight.trial.vmlinuz import other_kernel

# Limit of one boot with several trials, and of a single trial. The kernel holds the archive and its content in memory.
_BOOT_BYTES, _TRIAL_BYTES = 256 << 20, 512 << 20
_MEMORY_MIB = 512
_LINES = 20
# initcall_debug separates an error of the loader from an error of the kmod's own init function. An oops ends the boot,
# so that it counts for the kmod that caused it. Without times, lines are the same in each run. The kernel passes an
# argument that it does not know to the init script, as its environment.
_ARGUMENTS = (
    "quiet panic=-1 oops=panic printk.devkmsg=on printk.time=0 initcall_debug rdinit=/init "
    f"LD_LIBRARY_PATH=/{LIBRARIES}"
)
_BASE_ENTRIES: Mapping[str, Entry] = {
    **{path: Folder() for path in ("proc", "sys", "tmp", "etc/modprobe.d")},
    "dev/console": Device(5, 1),
    "dev/null": Device(1, 3),
    "dev/kmsg": Device(1, 11),
}
_SMALLER = "Load the kmod on a node of the new kernel by hand, or make the folder in the image smaller."


class TrialRunner:
    """Runs the trials of one kernel. A trial is a step of the init script, or two if signatures are enforced too."""

    def __init__(
        self,
        trials: Sequence[Trial],
        kernel: str,
        environment: TrialEnvironment,
        kit: BootKit,
        scratch: Path,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self._trials, self._kernel, self._kit, self._scratch = trials, kernel, kit, scratch
        self._arguments = arguments
        self._staged: dict[int, StagedTrial] = {}
        self._findings: dict[tuple[int, bool], Finding] = {}
        self._enforced = (False, True) if environment.enforced else (False,)
        for number, trial in enumerate(trials):
            staged = stage_trial(trial, number, kernel, environment.in_tree, scratch)
            if isinstance(staged, StagedTrial) and _size(staged) > _TRIAL_BYTES:
                staged = MissingTool(
                    f"the folder has {_size(staged) >> 20} MiB and does not fit into the virtual machine", _SMALLER
                )
            if isinstance(staged, StagedTrial):
                self._staged[number] = staged
            else:
                self._findings[number, False] = unable(Subject(trial.kmod, kernel, arguments=arguments), staged)

    def findings_of(self, number: int) -> tuple[Finding, ...]:
        """Return the findings of a trial after run. The finding with enforced signatures is last."""
        steps = [(number, enforced) for enforced in self._enforced if not enforced or self._may_enforce(number)]
        return tuple(self._findings[step] for step in steps if step in self._findings)

    def run(self) -> None:
        """Boot until every step has a result. Each boot settles at least one step, so this terminates."""
        while steps := self._open_steps():
            console, token = self._boot(steps)
            log = read_console(console.text, token)
            if not self._settle(steps, log, console):
                self._give_up(steps, log, console)

    def _open_steps(self) -> list[Step]:
        """Return as many open steps as fit into one boot. Steps with enforced signatures are last."""
        steps, size, counted = list[Step](), 0, set[int]()
        for enforced in self._enforced:
            for number, staged in self._staged.items():
                if (number, enforced) in self._findings or (enforced and not self._may_enforce(number)):
                    continue
                size += 0 if number in counted else _size(staged)
                counted.add(number)
                if steps and size > _BOOT_BYTES:
                    return steps
                steps.append(replace(staged.step, number=2 * number + enforced, enforced=enforced))
        return steps

    def _may_enforce(self, number: int) -> bool:
        """True unless the load without enforced signatures has failed."""
        finding = self._findings.get((number, False))
        return finding is None or finding.severity in (Severity.NOTE, Severity.WARNING)

    def _boot(self, steps: Sequence[Step]) -> tuple[Console, str]:
        token = secrets.token_hex(16)
        entries: dict[str, Entry] = {**_BASE_ENTRIES, **self._kit.programs}
        for number in {step.number // 2 for step in steps}:
            entries |= self._staged[number].entries
        entries["init"] = File(init_script(token, steps).encode("utf-8", "surrogateescape"))
        archive = self._scratch / "initramfs"
        with archive.open("wb") as out:
            write_initramfs(out, entries)
        memory = _MEMORY_MIB + 3 * (archive.stat().st_size >> 20)
        # The nodes' arguments are first: the last one of a name counts, and the script needs its own.
        words = " ".join((*self._arguments, _ARGUMENTS))
        boot = Boot(self._kit.vmlinuz, archive, memory, words, ready_mark(token), last_marks(token))
        return self._kit.machine.boot(boot), token

    def _settle(self, steps: Sequence[Step], log: BootLog, console: Console) -> bool:
        """Keep the findings of a boot. Return whether there was one.

        If a step did not end, or the kernel panicked, the cause may be a kmod of an earlier step. So keep such a result
        only for the boot's first step, and try the other steps again.
        """
        if log.kernel != self._kernel:
            return False
        settled = False
        for step in steps:
            result = log.results.get(step.number)
            is_unsure = result is not None and (result.code is None or bool(result.panic))
            if result is None or (is_unsure and step is not steps[0]):
                continue
            subject = self._subject(step)
            if step.enforced and log.enforced != "Y":
                finding = undecided(subject, f"sig_enforce of the kernel is {log.enforced or 'unknown'}, expected Y")
            else:
                finding = conclude(subject, result, console.end, self._kit.machine.seconds)
            self._findings[step.number // 2, step.enforced] = finding
            settled = True
        return settled

    def _give_up(self, steps: Sequence[Step], log: BootLog, console: Console) -> None:
        """Settle the steps of a boot that ran another kernel, or did not reach its first step."""
        for step in steps:
            subject = self._subject(step)
            if log.kernel and log.kernel != self._kernel:
                finding = unable(subject, other_kernel(log.kernel, self._kernel))
            else:
                finding = undecided(subject, self._no_answer(console), _last_lines(console.text))
            self._findings[step.number // 2, step.enforced] = finding

    def _subject(self, step: Step) -> Subject:
        kmod = self._trials[step.number // 2].kmod
        return Subject(kmod, self._kernel, step.enforced, len(step.insmod), self._arguments)

    def _no_answer(self, console: Console) -> str:
        after = f" ({self._kit.machine.seconds:.0f} s)" if console.end is BootEnd.TIMEOUT else ""
        return f"{console.end.value}{after} before the kernel had booted"


def _size(staged: StagedTrial) -> int:
    return sum(size_of(entry) for entry in staged.entries.values())


def _last_lines(text: str) -> list[str]:
    """Return the lines from the kernel's panic on, else the last lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    panic = next((number for number, line in enumerate(lines) if "Kernel panic" in line), len(lines) - _LINES)
    return lines[max(0, panic) :][:_LINES]
