"""The target kernels of one Module: what the nodes of its selector will boot, each with why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from kmm_preflight.kernel_version import architecture, kernel_architecture, kernel_flavour
from kmm_preflight.model import Finding, Flavour, Severity, TargetKernel
from kmm_preflight.nodes import findings
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.node import Node
from kmm_preflight.nodes.pool import Pool
from kmm_preflight.nodes.prediction import (
    PredictedKernel,
    Prediction,
    ReleaseStreams,
    default_stream_of,
    exists,
    hosted_stream,
)
from kmm_preflight.planning.module import Module
from kmm_preflight.release.choice import KernelFilter
from kmm_preflight.text import listed

_ID_CHARACTERS = 200


@dataclass(frozen=True)
class Demand:
    """A boot of nodes that a Module selects: how many they are, and the kernels that they run today."""

    boot: PredictedKernel
    nodes: int = 0
    today: tuple[str, ...] = ()
    notes: tuple[Finding, ...] = ()

    @property
    def words(self) -> str:
        """The nodes, for a report: pool worker-rt (3 nodes, paused)."""
        count = f"{self.nodes} node{'' if self.nodes == 1 else 's'}" if self.nodes else "no node today"
        return f"{self.boot.group} ({count}{', paused' if self.boot.paused else ''})"


@dataclass(frozen=True)
class Target:
    """One kernel of one Module's cases; nodes in words, today the kernels that those nodes run now.

    unresolved is set where the kernel is not known, or not in the release.
    """

    kernel: TargetKernel
    nodes: tuple[str, ...] = ()
    today: tuple[str, ...] = ()
    notes: tuple[Finding, ...] = ()
    unresolved: Finding | None = None


def needed(module: Module, boots: Prediction) -> tuple[Demand, ...]:
    """What the nodes boot that a Module selects, each once; of pools, and said so, where it selects none today."""
    chosen = [node for node in boots.fleet.nodes if not node.windows and _selects(module, node)]
    loading = [node for node in chosen if not node.keeps_away(module.tolerations)]
    if not loading:
        return _of_no_node(module, boots, len(chosen))
    groups: dict[PredictedKernel, list[Node]] = {}
    for node in loading:
        groups.setdefault(boots.of_node(node), []).append(node)
    return tuple(
        Demand(boot, len(nodes), tuple(sorted({one.kernel for one in nodes if one.kernel})), _notes(boot))
        for boot, nodes in groups.items()
    )


def filter_of(boot: PredictedKernel) -> KernelFilter | None:
    """What a boot asks of a release; None where the release does not decide it."""
    return None if boot.kernel or boot.unknown else KernelFilter(boot.stream, boot.arch, boot.flavour)


def targets(several: Iterable[Demand], kernels: Iterable[TargetKernel], offered: ReleaseStreams) -> tuple[Target, ...]:
    """The kernels of what is needed, in its order, each once; kernels are all that were read of the release."""
    read = tuple(kernels)
    made: dict[str, Target] = {}
    for one in several:
        for target in _targets(one, read, offered):
            before = made.get(target.kernel.version)
            made[target.kernel.version] = _together(before, target) if before else target
    return tuple(made.values())


def everywhere(kernels: Iterable[TargetKernel]) -> tuple[Target, ...]:
    """The targets where no node says which: all of them, each once.

    Of one version in several streams that with the heaviest problem, since nodes of any stream may boot it.
    """
    once: dict[str, TargetKernel] = {}
    for kernel in kernels:
        once[kernel.version] = _heavier(once.get(kernel.version, kernel), kernel)
    return tuple(Target(kernel) for kernel in once.values())


def _heavier(first: TargetKernel, second: TargetKernel) -> TargetKernel:
    return second if _weight(second) > _weight(first) else first


def _weight(kernel: TargetKernel) -> int:
    weights = [None, Severity.UNDECIDED, Severity.REFUTES]
    return weights.index(kernel.problem.severity if kernel.problem else None)


def with_nodes(kernels: Iterable[TargetKernel], of_modules: Iterable[Target]) -> Mapping[str, TargetKernel]:
    """The kernels by version, with the nodes of all Modules in their provenance."""
    pools: dict[str, dict[str, None]] = {}
    for target in of_modules:
        pools.setdefault(target.kernel.version, {}).update(dict.fromkeys(target.nodes))
    told: dict[str, TargetKernel] = {}
    for target in everywhere(kernels):
        kernel = target.kernel
        groups = [words.partition(" (")[0] for words in pools.get(kernel.version, ())]
        release_s = groups and kernel.driver_toolkit  # of others the provenance tells the nodes already
        for_whom = f", for {listed(list(dict.fromkeys(groups)))}" if release_s else ""
        told[kernel.version] = replace(kernel, provenance=kernel.provenance + for_whom)
    return told


def _selects(module: Module, node: Node) -> bool:
    return all(node.labels.get(key) == value for key, value in module.selector)


def _notes(boot: PredictedKernel) -> tuple[Finding, ...]:
    notes = []
    if boot.own:
        notes.append(findings.KERNEL_STAYS(group=boot.group, got=boot.own, kernel=boot.kernel))
    if boot.paused:
        notes.append(findings.POOL_PAUSED(group=boot.group))
    if boot.layered and not boot.unknown:
        notes.append(findings.POOL_LAYERED(group=boot.group))
    return tuple(notes)


def _of_no_node(module: Module, boots: Prediction, kept_away: int) -> tuple[Demand, ...]:
    """Every kernel that the pools give whose nodes the Module could select, else the default stream's."""
    fleet, labels = boots.fleet, dict(module.selector)
    found = [boot for pool in _candidates(labels, fleet) for boot in boots.of_pool(pool, _arch(labels))]
    found += [boots.of_node_pool(pool) for pool in fleet.node_pools if _could_have(pool.labels or {}, labels)]
    note = findings.NO_NODE_SELECTED(got=_why_none(len(fleet.nodes), kept_away))
    possible = [boot for boot in found if exists(boot)]  # a pool for rt will not have nodes for arm64
    several = possible or found or _of_any(fleet, boots.offered, _arch(labels))
    return tuple(Demand(boot, notes=(note, *_notes(boot))) for boot in dict.fromkeys(several))


def _why_none(nodes: int, kept_away: int) -> str:
    """Return the reason why a Module selects none of this many nodes; kept_away have its labels and a taint."""
    if kept_away:
        return f"nodes with its labels have a taint that it does not tolerate: {kept_away} of {nodes}"
    return f"none of {nodes} nodes has its labels" if nodes else "there are no nodes"


def _of_any(fleet: Fleet, offered: ReleaseStreams, arch: str) -> list[PredictedKernel]:
    """The default stream, for each architecture and flavour that any node has."""
    stream = hosted_stream(offered) if fleet.hosted else fleet.default_stream or default_stream_of(fleet, offered)
    kinds = {(arch or node.arch, kernel_flavour(node.kernel)) for node in fleet.nodes if not node.windows}
    several = kinds or {(arch, Flavour.STANDARD)}
    return [
        PredictedKernel("nodes to come", stream, *kind)
        for kind in sorted(several, key=lambda one: (one[0], one[1].value))
    ]


def _arch(labels: Mapping[str, str]) -> str:
    """The architecture that these labels ask for, "" for none."""
    return architecture(labels.get("kubernetes.io/arch", "")) or ""


def _could_have(own: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key, value) == value for key, value in own.items())


def _candidates(labels: Mapping[str, str], fleet: Fleet) -> list[Pool]:
    """The pools whose nodes may have these labels: those that the labels name, else all but the control plane's."""
    possible = [pool for pool in fleet.pools if pool.nodes and not pool.nodes.forbids(labels)]
    named = [pool for pool in possible if pool.nodes and pool.nodes.claimed_by(labels)]
    if own := [pool for pool in named if pool.custom or pool.control_plane]:
        return own
    return [pool for pool in possible if not pool.control_plane]


def _targets(one: Demand, kernels: tuple[TargetKernel, ...], offered: ReleaseStreams) -> list[Target]:
    boot = one.boot
    if boot.unknown:
        return [_unknown(one, findings.KERNEL_UNKNOWN(group=boot.group, got=boot.unknown))]
    if boot.kernel:
        return [Target(_of_today(boot, kernels), (one.words,), one.today, one.notes)]
    want = KernelFilter(boot.stream, boot.arch, boot.flavour)
    found = [kernel for kernel in kernels if want.matches(kernel)]
    if found:
        return [Target(kernel, (one.words,), one.today, one.notes) for kernel in found]
    has = listed([f"{kernel.stream} {kernel.arch} {kernel.flavour.value}" for kernel in kernels])
    return [_unknown(one, findings.RELEASE_LACKS_KERNEL(group=boot.group, got=has, expected=want.words,
                                                        release=offered.version))]  # fmt: skip


def _of_today(boot: PredictedKernel, kernels: tuple[TargetKernel, ...]) -> TargetKernel:
    same = next((kernel for kernel in kernels if kernel.version == boot.kernel), None)
    arch = boot.arch or kernel_architecture(boot.kernel) or "amd64"
    provenance = f"today's kernel of {boot.group}, which the upgrade does not change"
    return same or TargetKernel(boot.kernel, arch, None, kernel_flavour(boot.kernel), None, provenance)


def _unknown(one: Demand, finding: Finding) -> Target:
    boot = one.boot
    parts = ("unknown", boot.group, boot.stream, boot.arch, (boot.flavour or Flavour.STANDARD).value)
    version = re.sub(r"[^A-Za-z0-9.-]+", "-", "-".join(part for part in parts if part))[:_ID_CHARACTERS]
    kernel = TargetKernel(
        version, boot.arch, boot.stream or None, boot.flavour or Flavour.STANDARD, None, finding.sentence
    )
    return Target(kernel, (one.words,), one.today, one.notes, finding)


def _together(first: Target, second: Target) -> Target:
    return replace(
        first,
        kernel=_heavier(first.kernel, second.kernel),
        nodes=tuple(dict.fromkeys((*first.nodes, *second.nodes))),
        today=tuple(sorted({*first.today, *second.today})),
        notes=tuple(dict.fromkeys((*first.notes, *second.notes))),
        unresolved=first.unresolved or second.unresolved,
    )
