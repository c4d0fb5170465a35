"""Trial loads: the target kernel's own answer, asked in a virtual machine (docs/trial-load.md)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kmm_preflight.model import Finding, TargetKernel
from kmm_preflight.trial.environment import TrialEnvironment, equip
from kmm_preflight.trial.programs import MissingTool
from kmm_preflight.trial.runner import TrialRunner
from kmm_preflight.trial.staging import Trial
from kmm_preflight.trial.verdict import Subject, unable


def try_load(trials: Sequence[Trial], kernel: TargetKernel, bed: TrialEnvironment) -> Mapping[str, tuple[Finding, ...]]:
    """What the kernel itself says of each trial, by the trial's name; several are made in one boot.

    One finding of a trial, or two where signatures are enforced too and the first load went well. What cannot be made
    is undecided.
    """
    equipment = equip(bed, kernel.version)
    if isinstance(equipment, MissingTool):
        return {one.name: (unable(Subject(one.kmod, kernel.version), equipment),) for one in trials}
    with tempfile.TemporaryDirectory(dir=bed.folder, prefix="trial-") as scratch:
        series = TrialRunner(trials, kernel.version, bed, equipment, Path(scratch))
        series.run()
        return {one.name: series.findings_of(number) for number, one in enumerate(trials)}
