"""The kernels that the nodes of a Module will boot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kmm_preflight.model import Finding
from kmm_preflight.nodes import findings
from kmm_preflight.nodes.candidates import candidates_beside_nodes, candidates_instead, missing_arch
from kmm_preflight.nodes.changing_labels import PendingLabel, changes_on, follows_system
from kmm_preflight.nodes.node import Node
from kmm_preflight.nodes.prediction import PredictedKernel, Prediction
from kmm_preflight.nodes.versions import OtherVersion, Own, version_label, version_on
from kmm_preflight.planning.module import Module
from kmm_preflight.release.choice import KernelFilter
from kmm_preflight.text import listed


@dataclass(frozen=True)
class Demand:
    """A kernel that nodes of a Module will boot."""

    predicted: PredictedKernel
    """The kernel."""
    node_count: int = 0
    """The number of the nodes; 0 if the Module selects no node today."""
    kernels_today: tuple[str, ...] = ()
    """Kernels that the nodes run today, in alphabetical order."""
    notes: tuple[Finding, ...] = ()
    """Findings about the nodes."""
    node_names: tuple[str, ...] = ()
    """Names of the nodes, in alphabetical order."""
    pending: tuple[PendingLabel, ...] = ()
    """Labels of the selector whose values the upgrade may change. The target kernel decides."""
    selected_today: bool = True
    """True if the nodes have all labels of the selector today."""
    version: OtherVersion | None = None
    """The version of the Module that the nodes keep, if another one than the Module's."""
    unresolved: Finding | None = None
    """The finding if no image is to be checked for these nodes, else None."""

    @property
    def words(self) -> str:
        """The nodes, for a report: pool worker-rt (3 nodes, paused)."""
        plural = "" if self.node_count == 1 else "s"
        count = f"{self.node_count} node{plural}" if self.node_count else "no node today"
        return f"{self.predicted.group} ({count}{', paused' if self.predicted.paused else ''})"

    @property
    def filter(self) -> KernelFilter | None:
        """The kernels of the release that fit, or None if the kernel is not in the release or unknown."""
        predicted = self.predicted
        return KernelFilter(predicted.stream, predicted.arch, predicted.flavour) if predicted.in_release else None


@dataclass(frozen=True)
class _Group:
    """Nodes of a Module that boot one kernel, and that KMM treats alike."""

    predicted: PredictedKernel
    pending: tuple[PendingLabel, ...]
    selected_today: bool
    version: OtherVersion | Own


@dataclass(frozen=True)
class _Selected:
    """The nodes that a Module selects, today or after the upgrade."""

    groups: Mapping[_Group, list[Node]]
    kept_away: tuple[Node, ...]


def demand_of(module: Module, prediction: Prediction) -> tuple[Demand, ...]:
    """Return the kernels that the nodes of a Module will boot, and those of pools that will have such nodes.

    If the Module selects no node today, return the kernels of the pools that could have such a node, with a note.
    If no node and no pool has the architecture that the Module selects, return none.
    """
    selected = _selected(module, prediction)
    loading = {group: nodes for group, nodes in selected.groups.items() if group.version is not Own.NOTHING}
    without = [node for group, nodes in selected.groups.items() if group.version is Own.NOTHING for node in nodes]
    if not selected.groups:
        return _demand_without_nodes(module, prediction, len(selected.kept_away))
    notes: tuple[Finding, ...] = (_without_version(module, without),) if without else ()
    if not loading:
        nothing = findings.NO_NODE_LOADS(got=f"no node has the label {_version_of(module)}, or keeps an older version")
        return tuple(replace(demand, unresolved=nothing) for demand in _demands(selected.groups, notes))
    beside = candidates_beside_nodes(module, prediction)
    kinds = {_kind(group.predicted) for group in loading}
    unsure = [kernel.group for kernel in beside.unsure if _kind(kernel) not in kinds]
    if unsure:
        notes += (findings.POOL_NOT_CHECKED(group=listed(list(dict.fromkeys(unsure)))),)
    kept_away = [
        node for node in selected.kept_away if not node.control_plane and _kind(prediction.of_node(node)) not in kinds
    ]
    if kept_away:
        names = listed([f"{node.name} ({listed([taint.key for taint in node.taints])})" for node in kept_away])
        notes += (findings.NODES_KEPT_AWAY(got=names),)
    more = (_of_pool_without_nodes(module, kernel, known=_kind(kernel) in kinds) for kernel in beside.kernels)
    return (*_demands(loading, notes), *more)


def _kind(predicted: PredictedKernel) -> tuple[object, ...]:
    """Return what decides a kernel, to compare pools."""
    return predicted.stream, predicted.arch, predicted.flavour, predicted.kernel, predicted.unknown_because


def _of_pool_without_nodes(module: Module, predicted: PredictedKernel, known: bool) -> Demand:
    """Return the kernel of a pool that will have nodes of the Module. known: other nodes boot the kernel too."""
    notes = pool_notes(predicted)
    if not known:
        notes = (findings.POOL_TO_COME(group=predicted.group), *notes)
    return Demand(predicted, notes=notes, pending=_pending_of_pools(module), selected_today=False)


def _selected(module: Module, prediction: Prediction) -> _Selected:
    """Return the nodes that have the labels of the Module today, or may have them after the upgrade."""
    # The hash of a prediction takes long, and a cluster may have thousands of nodes.
    members: dict[tuple[object, ...], tuple[_Group, list[Node]]] = {}
    kept_away = list[Node]()
    for node in prediction.fleet.nodes:
        predicted = prediction.of_node(node)
        pending = _pending(module, node, predicted)
        if pending is None or not node.has_kernel:
            continue
        if node.keeps_away(module.tolerations):
            kept_away.append(node)
            continue
        today = all(node.labels.get(key) == value for key, value in module.selector)
        version = version_on(node, module, prediction.fleet)
        key = id(predicted), pending, today, version
        if key not in members:
            members[key] = _Group(predicted, pending, today, version), []
        members[key][1].append(node)
    return _Selected(dict(members.values()), tuple(kept_away))


def _pending(module: Module, node: Node, predicted: PredictedKernel) -> tuple[PendingLabel, ...] | None:
    """Return the labels that the upgrade decides, or None if another label excludes the node."""
    pending = []
    for key, value in module.selector:
        today = node.labels.get(key)
        if today is not None and predicted.kernel is None and changes_on(key, node):
            pending.append(PendingLabel(key, value, today))
        elif today != value:
            return None
    return tuple(pending)


def _demands(groups: Mapping[_Group, list[Node]], notes: tuple[Finding, ...]) -> tuple[Demand, ...]:
    return tuple(
        Demand(
            group.predicted,
            len(nodes),
            tuple(sorted({node.kernel for node in nodes if node.kernel})),
            (*pool_notes(group.predicted), *notes),
            tuple(sorted(node.name for node in nodes)),
            group.pending,
            group.selected_today,
            group.version if isinstance(group.version, OtherVersion) else None,
        )
        for group, nodes in groups.items()
    )


def _version_of(module: Module) -> str:
    return f"{version_label(module.name)}={module.version}"


def _without_version(module: Module, nodes: list[Node]) -> Finding:
    names = listed([node.name for node in nodes])
    return findings.NODES_WITHOUT_VERSION(got=names, label=version_label(module.name), version=module.version or "")


def pool_notes(predicted: PredictedKernel) -> tuple[Finding, ...]:
    """Return the notes about the nodes of a predicted kernel."""
    notes = []
    if predicted.unchanged_because:
        got = predicted.unchanged_because
        notes.append(findings.KERNEL_STAYS(group=predicted.group, got=got, kernel=predicted.kernel))
    if predicted.paused:
        notes.append(findings.POOL_PAUSED(group=predicted.group))
    if predicted.layered and not predicted.unknown_because:
        notes.append(findings.POOL_LAYERED(group=predicted.group))
    return tuple(notes)


def _demand_without_nodes(module: Module, prediction: Prediction, kept_away: int) -> tuple[Demand, ...]:
    """Return the kernels of all pools whose nodes the Module could select."""
    fleet = prediction.fleet
    if missing_arch(module, fleet):
        return ()
    why = _why_none(len(fleet.nodes), kept_away)
    if kernels := candidates_instead(module, prediction):
        note, pending = findings.NO_NODE_SELECTED(got=why), _pending_of_pools(module)
        return tuple(
            Demand(predicted, notes=(note, *pool_notes(predicted)), pending=pending, selected_today=False)
            for predicted in kernels
        )
    nothing = findings.NO_NODE_LOADS(got=f"{why}, and no pool could have such a node")
    return (Demand(PredictedKernel("no node", unknown_because=why), unresolved=nothing),)


def _pending_of_pools(module: Module) -> tuple[PendingLabel, ...]:
    """Return the labels of the selector that the kernel or the OS of nodes to come decides."""
    return tuple(PendingLabel(key, value) for key, value in module.selector if follows_system(key))


def _why_none(nodes: int, kept_away: int) -> str:
    """Return the reason why a Module selects none of this many nodes; kept_away have its labels and a taint."""
    if kept_away:
        return f"nodes with its labels have a taint that it does not tolerate: {kept_away} of {nodes}"
    return f"none of {nodes} nodes has its labels" if nodes else "there are no nodes"
