"""The target kernels of a Module, each with the nodes that will boot it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from kmm_preflight.kernel_version import kernel_architecture, kernel_flavour
from kmm_preflight.model import BootArguments, Finding, Flavour, Severity, TargetKernel
from kmm_preflight.nodes import findings
from kmm_preflight.nodes.changing_labels import value_after
from kmm_preflight.nodes.demand import Demand
from kmm_preflight.nodes.prediction import PredictedKernel, ReleaseStreams
from kmm_preflight.nodes.settling import NO_UPGRADE, OrderedUpgrade, settle
from kmm_preflight.nodes.target import Target
from kmm_preflight.nodes.versions import OtherVersion
from kmm_preflight.planning.module import Module
from kmm_preflight.planning.source import KmodSource
from kmm_preflight.text import listed

_ID_CHARACTERS = 200
NO_LABELS = "its selector names labels that no node has after the upgrade"
"""The reason why a Module selects no node on any kernel."""


def targets_of(
    demands: Iterable[Demand],
    kernels: Iterable[TargetKernel],
    streams: ReleaseStreams,
    upgrade: OrderedUpgrade = NO_UPGRADE,
) -> tuple[Target, ...]:
    """Return the target kernels of a Module in the order of its demands, each version once.

    A kernel occurs again for nodes that keep another version of the Module. kernels are all kernels that were read from
    the release.
    """
    read = tuple(kernels)
    by_key: dict[tuple[str, OtherVersion | None], Target] = {}
    dropped = list[Target]()
    for demand in demands:
        for target in _targets(demand, read, streams):
            settled = settle(target, demand, upgrade)
            if settled is None:
                dropped.append(target)
                continue
            key = settled.kernel.version, settled.version
            first = by_key.get(key)
            by_key[key] = _merged(first, settled) if first else settled
    if not by_key:
        nothing = findings.NO_NODE_LOADS(got=NO_LABELS)
        by_key = {(target.kernel.version, None): replace(target, unresolved=nothing) for target in dropped}
    return tuple(by_key.values())


def targets_for_any_node(kernels: Iterable[TargetKernel]) -> tuple[Target, ...]:
    """Return all kernels as targets, each version once: the targets of a run that knows no nodes.

    If several streams have the version, take the kernel with the heaviest problem: nodes of any stream may boot it.
    """
    by_version: dict[str, TargetKernel] = {}
    for kernel in kernels:
        by_version[kernel.version] = _heavier(by_version.get(kernel.version, kernel), kernel)
    return tuple(Target(kernel) for kernel in by_version.values())


def targets_by_selector(module: KmodSource, targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Return the targets whose kernel gives nodes the labels that the Module selects, for a run that knows no nodes.

    If no kernel does, return all targets with a finding. Labels that a kernel does not determine are not considered.
    """
    selector = module.selector if isinstance(module, Module) else ()
    kept = tuple(
        target
        for target in targets
        if all(value_after(key, target.kernel.version) in (None, value) for key, value in selector)
    )
    nothing = findings.NO_NODE_LOADS(got=NO_LABELS)
    return kept or tuple(replace(target, unresolved=nothing) for target in targets)


def with_nodes(kernels: Iterable[TargetKernel], targets: Iterable[Target]) -> Mapping[str, TargetKernel]:
    """Return the kernels by version. Name in their provenance the nodes of all Modules' targets."""
    nodes: dict[str, dict[str, None]] = {}
    for target in targets:
        nodes.setdefault(target.kernel.version, {}).update(dict.fromkeys(target.nodes))
    by_version: dict[str, TargetKernel] = {}
    for target in targets_for_any_node(kernels):
        kernel = target.kernel
        groups = [words.partition(" (")[0] for words in nodes.get(kernel.version, ())]
        # The provenance of a kernel that is not in the release names the nodes already.
        suffix = f", for {listed(list(dict.fromkeys(groups)))}" if groups and kernel.driver_toolkit else ""
        by_version[kernel.version] = replace(kernel, provenance=kernel.provenance + suffix)
    return by_version


def _targets(demand: Demand, kernels: tuple[TargetKernel, ...], streams: ReleaseStreams) -> list[Target]:
    predicted = demand.predicted
    if predicted.foreign_os:
        return [_unresolved(demand, findings.NODE_NOT_COREOS(group=predicted.group))]
    if predicted.unknown_because:
        return [_unresolved(demand, findings.KERNEL_UNKNOWN(group=predicted.group, got=predicted.unknown_because))]
    if predicted.kernel:
        return [_target(_kernel_today(predicted, predicted.kernel, kernels), demand)]
    kernel_filter = demand.filter
    assert kernel_filter  # a kernel that is neither unknown nor today's is in the release
    if matches := [kernel for kernel in kernels if kernel_filter.matches(kernel)]:
        return [_target(kernel, demand) for kernel in matches]
    finding = findings.RELEASE_LACKS_KERNEL(
        group=predicted.group,
        got=listed([f"{kernel.stream} {kernel.arch} {kernel.flavour.value}" for kernel in kernels]),
        expected=kernel_filter.words,
        release=streams.version,
    )
    return [_unresolved(demand, finding)]


def _target(kernel: TargetKernel, demand: Demand, unresolved: Finding | None = None) -> Target:
    boot = demand.predicted.boot
    return Target(
        kernel,
        (demand.words,),
        demand.node_names,
        (boot,) if boot else (),
        demand.kernels_today,
        demand.notes,
        unresolved,
    )


def _kernel_today(predicted: PredictedKernel, version: str, kernels: tuple[TargetKernel, ...]) -> TargetKernel:
    """Return the kernel that the upgrade does not change. If the release has the same, return the release's."""
    in_release = next((kernel for kernel in kernels if kernel.version == version), None)
    arch = predicted.arch or kernel_architecture(version) or "amd64"
    provenance = f"today's kernel of {predicted.group}, which the upgrade does not change"
    return in_release or TargetKernel(version, arch, None, kernel_flavour(version), None, provenance)


def _unresolved(demand: Demand, finding: Finding) -> Target:
    """Return a target for a kernel without a version. Its name is made from the nodes."""
    predicted, flavour = demand.predicted, demand.predicted.flavour or Flavour.STANDARD
    parts = ("unknown", predicted.group, predicted.stream, predicted.arch, flavour.value)
    version = re.sub(r"[^A-Za-z0-9.-]+", "-", "-".join(part for part in parts if part))[:_ID_CHARACTERS]
    kernel = TargetKernel(version, predicted.arch or "", predicted.stream, flavour, None, finding.sentence)
    return _target(kernel, demand, finding)


def _merged(first: Target, second: Target) -> Target:
    return replace(
        first,
        kernel=_heavier(first.kernel, second.kernel),
        nodes=tuple(dict.fromkeys((*first.nodes, *second.nodes))),
        node_names=tuple(sorted({*first.node_names, *second.node_names})),
        boot_arguments=merged_arguments((*first.boot_arguments, *second.boot_arguments)),
        kernels_today=tuple(sorted({*first.kernels_today, *second.kernels_today})),
        notes=tuple(dict.fromkeys((*first.notes, *second.notes))),
        unresolved=first.unresolved or second.unresolved,
    )


def merged_arguments(groups: Iterable[BootArguments]) -> tuple[BootArguments, ...]:
    """Return each different set of arguments once, with the names of all its groups."""
    names: dict[tuple[tuple[str, ...], bool], dict[str, None]] = {}
    for boot in groups:
        names.setdefault((boot.arguments, boot.fips), {}).update(dict.fromkeys(boot.group.split(", ")))
    return tuple(BootArguments(", ".join(group), arguments, fips) for (arguments, fips), group in names.items())


def _heavier(first: TargetKernel, second: TargetKernel) -> TargetKernel:
    return second if _weight(second) > _weight(first) else first


def _weight(kernel: TargetKernel) -> int:
    weights = [None, Severity.UNDECIDED, Severity.REFUTES]
    return weights.index(kernel.problem.severity if kernel.problem else None)
