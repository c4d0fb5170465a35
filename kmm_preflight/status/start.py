"""Start of the status of a run: recall what earlier runs verified, and check that each object can be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from kmm_preflight.cluster.api import Api
from kmm_preflight.cluster.api_reader import with_sources
from kmm_preflight.cluster.inventory import Inventory
from kmm_preflight.model import Manifest, ModuleName, Stage, StageResult
from kmm_preflight.planning.plan import Case
from kmm_preflight.status.live import LiveStatus
from kmm_preflight.status.preflight import owner_of, with_records
from kmm_preflight.status.preflight_objects import FoundObjects, RequestedPreflight, UpdatedPreflight
from kmm_preflight.status.record import VerdictBasis, basis_of, config_maps_named, secrets_named
from kmm_preflight.status.run_end import RunEnd
from kmm_preflight.status.writer import StatusWriter


@dataclass(frozen=True)
class StatusInputs:
    """Values that the status of a run needs."""

    api: Api
    """API server."""
    inventory: Inventory
    """Modules and other objects as they were read."""
    results: Callable[[Case], Mapping[Stage, StageResult]]
    """Returns the stage results of a case so far."""
    now: Callable[[], datetime]
    """Clock; its times are aware."""
    rules: str
    """Digest of the code that judges."""
    depth: str
    """Depth of proof, as the record keeps it."""
    revalidate: bool = False
    """True if no verdict of an earlier run is used again."""


@dataclass(frozen=True)
class StartedStatus:
    """Status of a run before its first step."""

    cases: tuple[Case, ...]
    """Cases with the verdicts that earlier runs recorded."""
    assumed: tuple[str, ...]
    """Sentences for the report."""
    closing: RunEnd
    """Work at the end of the run."""
    owners: Mapping[str, Manifest]
    """Preflight objects as owners of builds, by kernel version."""


def start_status(found: FoundObjects, cases: tuple[Case, ...], inputs: StatusInputs) -> StartedStatus:
    """Recall recorded verdicts, and check that each object can be written. Write nothing. Raise as Api."""
    bases = _bases(cases, inputs)
    recalled, lives, words = {case.id: case for case in cases}, [], list(found.words)
    for updated in found.updated:
        live = _live_status(updated, cases, bases, inputs)
        recalled |= {case.id: case for case in live.cases}
        if problem := updated.preflight.record_problem:
            words.append(f"{updated.preflight.subject} has no readable record: {problem}")
        lives.append(live)
    for live in lives:
        live.check()
    owners = {kernel.version: owner_of(updated.preflight) for updated in found.updated for kernel in updated.kernels}
    closing = RunEnd(inputs.api, inputs.inventory, inputs.now, inputs.rules, bases, tuple(lives))
    return StartedStatus(tuple(recalled.values()), tuple(words), closing, owners)


def without_plans(requested: RequestedPreflight, inputs: StatusInputs) -> RunEnd:
    """Return the end of a run that has no Module to check: it removes the entries of deleted Modules."""
    closing = RunEnd(inputs.api, inputs.inventory, inputs.now, inputs.rules)
    if requested.preflight is None:
        return closing
    writer = StatusWriter(inputs.api, requested.preflight, inputs.now)
    live = LiveStatus(requested.preflight, writer, (), frozenset(), inputs.results)
    return replace(closing, lives=(live,))


def _live_status(
    updated: UpdatedPreflight,
    cases: Iterable[Case],
    bases: Mapping[ModuleName, VerdictBasis],
    inputs: StatusInputs,
) -> LiveStatus:
    # KMM lists Modules only.
    own = tuple(case for case in cases if case.kernel in updated.kernels and case.module.kind == "Module")
    own = with_records(own, bases, updated.preflight, inputs.depth, inputs.rules)
    verified_before = frozenset(case.id for case in own if case.recorded)
    if inputs.revalidate:
        own = tuple(replace(case, recorded=None) for case in own)
    writer = StatusWriter(inputs.api, updated.preflight, inputs.now)
    return LiveStatus(updated.preflight, writer, own, verified_before, inputs.results)


def _bases(cases: tuple[Case, ...], inputs: StatusInputs) -> dict[ModuleName, VerdictBasis]:
    """Return the versions of the objects that the verdicts on each Module depend on."""
    maps = {(case.module.namespace, name) for case in cases for name in config_maps_named(case)}
    secrets = {(case.module.namespace, name) for case in cases for name in secrets_named(case)}
    inventory = with_sources(inputs.api, inputs.inventory, maps, secrets)
    by_module: dict[ModuleName, list[Case]] = {}
    for case in cases:
        by_module.setdefault(case.module, []).append(case)
    return {
        module.name: basis_of(module, tuple(by_module[module.name]), inventory)
        for module in inventory.modules
        if module.name in by_module
    }
