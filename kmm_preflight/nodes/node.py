"""A node: its labels, its taints, its architecture, and the kernel that it runs today."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.kernel_version import architecture, looks_like_kernel
from kmm_preflight.model import Manifest
from kmm_preflight.nodes.selector import Labels
from kmm_preflight.planning.toleration import Taint, Toleration

HOSTED_LABEL = "hypershift.openshift.io/nodePool"
"""The NodePool of a hosted cluster's node."""

_MCO = "machineconfiguration.openshift.io"
_KEEPS_AWAY = ("NoSchedule", "NoExecute")
# What controllers put on a node and take away again: it says nothing of the node after the upgrade.
_PASSING = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "ToBeDeletedByClusterAutoscaler",
            "DeletionCandidateOfClusterAutoscaler")  # fmt: skip


@dataclass(frozen=True)
class Node:
    """A node. arch is Go's spelling and "" where it is not told; kernel today's, "" too.

    config and wanted_config name the rendered MachineConfig that it runs and the one that it shall run, image the image
    of a layered pool that it shall run.
    """

    name: str
    labels: Labels
    arch: str = ""
    kernel: str = ""
    windows: bool = False
    taints: tuple[Taint, ...] = ()
    config: str = ""
    wanted_config: str = ""
    image: str = ""

    def keeps_away(self, tolerations: Iterable[Toleration]) -> str:
        """The taint that keeps KMM from loading anything here (its own rule), "" when none does.

        Passing ones do not count: the node may be without them when it boots the new kernel.
        """
        several = tuple(tolerations)
        for taint in self.taints:
            if taint.effect not in _KEEPS_AWAY or taint.key.startswith(_PASSING):
                continue
            if not any(one.tolerates(taint) for one in several):
                return taint.key
        return ""


def parse_node(manifest: Manifest) -> Node:
    """The node of a manifest; Malformed for a field of another type."""
    document = Field(manifest)
    metadata, told = document["metadata"], document["status"]["nodeInfo"]
    labels, notes = dict(metadata["labels"].text_pairs()), metadata["annotations"]
    kernel = told["kernelVersion"].text()
    system = labels.get("kubernetes.io/os") or told["operatingSystem"].text()
    return Node(
        name=metadata["name"].name(),
        labels=labels,
        arch=architecture(told["architecture"].text() or labels.get("kubernetes.io/arch", "")) or "",
        kernel=kernel if looks_like_kernel(kernel) else "",
        windows=system == "windows",
        taints=tuple(
            Taint(one["key"].text(), one["value"].text(), one["effect"].text()) for one in document["spec"]["taints"]
        ),
        config=notes[f"{_MCO}/currentConfig"].text(),
        wanted_config=notes[f"{_MCO}/desiredConfig"].text(),
        image=notes[f"{_MCO}/desiredImage"].text(),
    )
