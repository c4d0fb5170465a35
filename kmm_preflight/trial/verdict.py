"""What an answer of the kernel means for the kmod: the findings of a trial load."""

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
from kmm_preflight.trial.console import TrialAnswer, lines_of
from kmm_preflight.trial.programs import MissingTool

# What a driver's init answers where its device is not there (docs/reference/loader.md 1, step 19).
_NO_DEVICE = (-errno.ENODEV, -errno.ENXIO)
# From here on a shell tells that a program could not be run, or was ended by a signal.
_NOT_ITS_OWN = 126
_UNKNOWN_KEY = re.compile(r"with unavailable key is rejected|Required key not available")
_NO_MEMORY = "Cannot allocate memory"
_LINE_CHARACTERS = 300


@dataclass(frozen=True)
class Subject:
    """One kmod in a virtual machine of one kernel; enforced: with module.sig_enforce=1.

    before counts the kmods that were loaded to be there before it.
    """

    kmod: str
    kernel: str
    enforced: bool = False
    before: int = 0

    @property
    def how(self) -> str:
        """For a sentence."""
        return "in a virtual machine with module.sig_enforce=1" if self.enforced else "in a virtual machine"


def unable(tried: Subject, lacking: MissingTool) -> Finding:
    """The trial could not be made."""
    return findings.TRIAL_UNABLE(kmod=tried.kmod, kernel=tried.kernel, got=lacking.what, remedy=lacking.remedy)


def undecided(tried: Subject, got: str, lines: Iterable[str] = ()) -> Finding:
    """It was made, and says neither yes nor no."""
    return _with(findings.TRIAL_UNDECIDED, tried, got, lines)


def conclude(tried: Subject, answer: TrialAnswer, end: BootEnd, seconds: float) -> Finding:
    """The finding for an answer; end and seconds tell how long there was none."""
    said = tuple(lines_of(answer))
    if answer.panic:
        return _with(findings.TRIAL_REFUSED, tried, answer.panic, said)
    if answer.lacking:
        return undecided(tried, f"the kernel refused {listed(list(answer.lacking))}, which is loaded first", said)
    if answer.code is None:
        waited = f"{end.value} ({seconds:.0f} s)" if end is BootEnd.TIME else end.value
        return undecided(tried, f"{waited} while the kmod was loaded", said)
    if answer.code == 0:
        return _ended_well(tried, answer, said)
    return _refused(tried, answer, said)


def _ended_well(tried: Subject, answer: TrialAnswer, said: tuple[str, ...]) -> Finding:
    """Exit code 0 alone proves no load: a built-in name, or one that is loaded already, gives the same."""
    names = {wanted_key(name) for name in answer.live}
    if wanted_key(tried.kmod) in names or 0 < len(answer.files) <= len(names) - tried.before:
        return _with(findings.TRIAL_LOADED, tried, listed(list(answer.live)), said)
    return _with(findings.TRIAL_REFUSED, tried, "modprobe ended with 0, but the kmod is not loaded", said)


def _refused(tried: Subject, answer: TrialAnswer, said: tuple[str, ...]) -> Finding:
    words = _last_word(answer)
    if answer.code is not None and answer.code >= _NOT_ITS_OWN:
        return undecided(tried, f"modprobe ended with exit code {answer.code}{words}", said)
    if any(_NO_MEMORY in line for line in answer.told):
        return undecided(tried, f"there is not enough memory for it{words}", said)
    if answer.refusal:
        return _init_refused(tried, answer, said)
    if tried.enforced and any(_UNKNOWN_KEY.search(line) for line in answer.words):
        return _with(findings.TRIAL_KEY_UNKNOWN, tried, "its key is not built into this kernel", said)
    return _with(findings.TRIAL_REFUSED, tried, f"modprobe ended with exit code {answer.code}{words}", said)


def _init_refused(tried: Subject, answer: TrialAnswer, said: tuple[str, ...]) -> Finding:
    """The loader took what then refused by itself, for want of its device or for another cause."""
    assert answer.refusal
    name, number = answer.refusal
    got = f"the init of {name} returned {number} ({errno.errorcode.get(-number, 'unknown errno')})"
    is_last = bool(answer.files) and module_key(answer.files[-1].rpartition("/")[2]) == wanted_key(tried.kmod)
    if is_last and number in _NO_DEVICE:
        return _with(findings.TRIAL_NO_DEVICE, tried, got, said)
    return undecided(tried, got, said)


def _last_word(answer: TrialAnswer) -> str:
    """modprobe's own, behind a colon: without its name and the weight that it gives it."""
    words = [line for line in answer.told if not line.startswith("insmod ")]
    return f": {words[-1].removeprefix('modprobe: ').removeprefix('ERROR: ')}" if words else ""


def _with(kind: FindingKind, tried: Subject, got: str, lines: Iterable[str]) -> Finding:
    finding = kind(kmod=tried.kmod, kernel=tried.kernel, how=tried.how, got=got)
    return replace(finding, lines=tuple(clean(line[:_LINE_CHARACTERS]) for line in lines))
