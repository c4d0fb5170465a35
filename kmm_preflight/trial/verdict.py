"""Findings of a trial load from the result of a modprobe call."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from kmm_preflight.catalogue import FindingKind
from kmm_preflight.kmod.names import module_key, wanted_key
from kmm_preflight.model import Finding
from kmm_preflight.text import clean, listed
from kmm_preflight.trial import findings
from kmm_preflight.trial.boot import BootEnd
from kmm_preflight.trial.console import ModprobeResult, lines_of
from kmm_preflight.trial.programs import MissingTool

# Errors of a driver's init function if its device is absent (docs/reference/loader.md 1, step 19).
_NO_DEVICE = (-errno.ENODEV, -errno.ENXIO)
# Exit codes of a shell from here on: the program could not be run, or a signal ended it.
_SHELL_CODES = 126
_UNKNOWN_KEY = re.compile(
    r"with unavailable key is rejected|Required key not available|unsigned module loading is restricted"
    r"|signature verification failed in FIPS mode"
)
_NO_KEY = "its key is not built into this kernel"
_NO_MEMORY = "Cannot allocate memory"
_LINE_CHARACTERS = 300


@dataclass(frozen=True)
class Subject:
    """Kmod in a virtual machine of one kernel."""

    kmod: str
    """Name of the kmod."""
    kernel: str
    """Version of the kernel."""
    enforced: bool = False
    """True for a load with module.sig_enforce=1."""
    before: int = 0
    """Number of kmods that were loaded before, as nodes have them."""
    arguments: tuple[str, ...] = ()
    """Arguments of the nodes with which the kernel boots."""

    @property
    def how(self) -> str:
        """Description of the virtual machine, as a part of a sentence."""
        enforced = ("module.sig_enforce=1",) if self.enforced else ()
        arguments = " ".join(dict.fromkeys((*self.arguments, *enforced)))
        return f"in a virtual machine with {arguments}" if arguments else "in a virtual machine"


def unable(subject: Subject, missing: MissingTool) -> Finding:
    """Return the finding of a trial that could not run."""
    return findings.TRIAL_UNABLE(kmod=subject.kmod, kernel=subject.kernel, got=missing.what, remedy=missing.remedy)


def undecided(subject: Subject, got: str, lines: Iterable[str] = ()) -> Finding:
    """Return the finding of a trial that ran but was inconclusive."""
    return _with(findings.TRIAL_UNDECIDED, subject, got, lines)


def conclude(subject: Subject, result: ModprobeResult, end: BootEnd, seconds: float) -> Finding:
    """Return the finding of a result. end and seconds are the end of the boot and its time limit."""
    lines = tuple(lines_of(result))
    if result.panic and _lacks_key(subject, result):
        return _with(findings.TRIAL_KEY_UNKNOWN, subject, _NO_KEY, lines)
    if result.panic:
        return _with(findings.TRIAL_REFUSED, subject, result.panic, lines)
    if result.refused_before:
        return undecided(
            subject, f"the kernel refused {listed(list(result.refused_before))}, which is loaded first", lines
        )
    if result.code is None:
        waited = f"{end.value} ({seconds:.0f} s)" if end is BootEnd.TIMEOUT else end.value
        return undecided(subject, f"{waited} while the kmod was loaded", lines)
    if result.code == 0:
        return _exit_code_0(subject, result, lines)
    return _refused(subject, result, lines)


def _exit_code_0(subject: Subject, result: ModprobeResult, lines: tuple[str, ...]) -> Finding:
    """Check that the kmod is loaded: modprobe also returns 0 for a built-in kmod and for one that is loaded already."""
    names = {wanted_key(name) for name in result.loaded}
    if wanted_key(subject.kmod) in names or 0 < len(result.files) <= len(names) - subject.before:
        return _with(findings.TRIAL_LOADED, subject, listed(list(result.loaded)), lines)
    return _with(findings.TRIAL_REFUSED, subject, "modprobe ended with 0, but the kmod is not loaded", lines)


def _refused(subject: Subject, result: ModprobeResult, lines: tuple[str, ...]) -> Finding:
    words = _last_message(result)
    if result.code is not None and result.code >= _SHELL_CODES:
        return undecided(subject, f"modprobe ended with exit code {result.code}{words}", lines)
    if any(_NO_MEMORY in line for line in result.printed):
        return undecided(subject, f"there is not enough memory for it{words}", lines)
    if result.init_error:
        return _init_refused(subject, result, lines)
    if _lacks_key(subject, result):
        return _with(findings.TRIAL_KEY_UNKNOWN, subject, _NO_KEY, lines)
    return _with(findings.TRIAL_REFUSED, subject, f"modprobe ended with exit code {result.code}{words}", lines)


def _lacks_key(subject: Subject, result: ModprobeResult) -> bool:
    """True if the kernel refuses the kmod for its key. Files have shown before that the kmod is signed."""
    lines = (*result.lines, result.panic or "")
    return bool(subject.enforced or subject.arguments) and any(_UNKNOWN_KEY.search(line) for line in lines)


def _init_refused(subject: Subject, result: ModprobeResult, lines: tuple[str, ...]) -> Finding:
    """Return the finding of a kmod that the loader accepted and whose own init function failed."""
    assert result.init_error
    name, number = result.init_error
    got = f"the init of {name} returned {number} ({errno.errorcode.get(-number, 'unknown errno')})"
    is_last = bool(result.files) and module_key(result.files[-1].rpartition("/")[2]) == wanted_key(subject.kmod)
    if is_last and number in _NO_DEVICE:
        return _with(findings.TRIAL_NO_DEVICE, subject, got, lines)
    return undecided(subject, got, lines)


def _last_message(result: ModprobeResult) -> str:
    """Return the last message of modprobe after a colon, without the prefixes `modprobe:` and `ERROR:`."""
    words = [line for line in result.printed if not line.startswith("insmod ")]
    return f": {words[-1].removeprefix('modprobe: ').removeprefix('ERROR: ')}" if words else ""


def _with(kind: FindingKind, subject: Subject, got: str, lines: Iterable[str]) -> Finding:
    finding = kind(kmod=subject.kmod, kernel=subject.kernel, how=subject.how, got=got)
    return replace(finding, lines=tuple(clean(line[:_LINE_CHARACTERS]) for line in lines))
