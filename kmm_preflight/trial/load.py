"""Trial loads on one kernel: set-up and findings (docs/trial-load.md)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kmm_preflight.model import Finding, TargetKernel
from kmm_preflight.trial.environment import TrialEnvironment, get_boot_kit
from kmm_preflight.trial.programs import MissingTool
from kmm_preflight.trial.runner import TrialRunner
from kmm_preflight.trial.staging import Trial
from kmm_preflight.trial.verdict import Subject, unable


def try_load(
    trials: Sequence[Trial], kernel: TargetKernel, environment: TrialEnvironment, arguments: tuple[str, ...] = ()
) -> Mapping[str, tuple[Finding, ...]]:
    """Run the trials, several in one boot, and map the name of each trial to its findings.

    A trial has one finding. If signatures are enforced too and the first load succeeds, it has two. If a trial cannot
    run, its finding is undecided. arguments: more words for the kernel's command line.
    """
    kit = get_boot_kit(environment, kernel.version)
    if isinstance(kit, MissingTool):
        return {trial.name: (unable(Subject(trial.kmod, kernel.version), kit),) for trial in trials}
    with tempfile.TemporaryDirectory(dir=environment.folder, prefix="trial-") as scratch:
        runner = TrialRunner(trials, kernel.version, environment, kit, Path(scratch), arguments)
        runner.run()
        return {trial.name: runner.findings_of(number) for number, trial in enumerate(trials)}
