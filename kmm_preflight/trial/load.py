"""Trial loads: the target kernel's own answer, asked in a virtual machine (docs/trial-load.md)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kmm_preflight.model import Finding, TargetKernel
from kmm_preflight.trial.conclusion import Tried, unable
from kmm_preflight.trial.layout import Trial
from kmm_preflight.trial.programs import Lacking
from kmm_preflight.trial.series import Series
from kmm_preflight.trial.testbed import Testbed, equip


def try_load(trials: Sequence[Trial], kernel: TargetKernel, bed: Testbed) -> Mapping[str, tuple[Finding, ...]]:
    """What the kernel itself says of each trial, by the trial's name; several are made in one boot.

    One finding of a trial, or two where signatures are enforced too and the first load went well. What cannot be made
    is undecided.
    """
    equipment = equip(bed, kernel.version)
    if isinstance(equipment, Lacking):
        return {one.name: (unable(Tried(one.kmod, kernel.version), equipment),) for one in trials}
    with tempfile.TemporaryDirectory(dir=bed.folder, prefix="trial-") as scratch:
        series = Series(trials, kernel.version, bed, equipment, Path(scratch))
        series.run()
        return {one.name: series.findings_of(number) for number, one in enumerate(trials)}
