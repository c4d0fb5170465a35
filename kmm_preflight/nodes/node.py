"""A node: its labels, taints and architecture, and the kernel that it runs today."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.kernel_version import architecture, kernel_flavour, looks_like_kernel
from kmm_preflight.model import Flavour, Manifest
from kmm_preflight.nodes.selector import Labels
from kmm_preflight.planning.toleration import Taint, Toleration, parse_taint

HOSTED_LABEL = "hypershift.openshift.io/nodePool"
"""The label of a hosted cluster's nodes. Its value is the NodePool."""

_MCO = "machineconfiguration.openshift.io"
_KEEPS_AWAY = ("NoSchedule", "NoExecute")
# Controllers add and remove these taints: the node may not have them after the upgrade.
_PASSING = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "ToBeDeletedByClusterAutoscaler",
            "DeletionCandidateOfClusterAutoscaler", "node.cluster.x-k8s.io/", "karpenter.sh/",
            "medik8s.io/")  # fmt: skip
_PASSING_PARTS = ("maintenance", "drain", "cordon", "upgrad", "agent-not-ready")
# Operating systems that boot the OS image of a release. Some sources leave the field empty, or say "unknown".
_CORE_OS = re.compile(r"(Red Hat Enterprise Linux|CentOS Stream|Fedora) CoreOS\b|(?i:unknown)|\s*$")


@dataclass(frozen=True)
class Node:
    """A node of the cluster."""

    name: str
    """Its name."""
    labels: Labels
    """Its labels."""
    arch: str | None = None
    """Its architecture in Go's spelling, or None if unknown."""
    kernel: str | None = None
    """The kernel that it runs today, or None if unknown."""
    windows: bool = False
    """True if it runs Windows."""
    taints: tuple[Taint, ...] = ()
    """Its taints."""
    current_config: str | None = None
    """The rendered MachineConfig that it runs, or None if unknown."""
    desired_config: str | None = None
    """The rendered MachineConfig that it must run next, or None if unknown."""
    desired_image: str | None = None
    """The image of a layered pool that it must run next, or None without such a pool."""
    os_image: str | None = None
    """Name and version of its operating system, or None if unknown."""
    images: tuple[tuple[str, ...], ...] | None = None
    """The names of each image that it holds, or None if it does not list its images."""

    @property
    def has_kernel(self) -> bool:
        """True if the node has a Linux kernel of its own."""
        return not self.windows and self.labels.get("type") != "virtual-kubelet"

    @property
    def control_plane(self) -> bool:
        """True if the node has a role of the control plane."""
        return any(f"node-role.kubernetes.io/{role}" in self.labels for role in ("master", "control-plane", "arbiter"))

    @property
    def core_os(self) -> bool:
        """True if the node boots the OS image of a release, as far as is known."""
        return _CORE_OS.match(self.os_image or "") is not None

    @property
    def flavour(self) -> Flavour:
        """The flavour of today's kernel. If that kernel is unknown, the standard flavour."""
        return kernel_flavour(self.kernel) if self.kernel else Flavour.STANDARD

    def keeps_away(self, tolerations: Iterable[Toleration]) -> bool:
        """True if KMM loads no kmod on this node, because of a taint without a toleration.

        Ignore taints that controllers remove again: the node may boot the new kernel without them.
        """
        return taints_keep_away(self.taints, tolerations)


def taints_keep_away(taints: Iterable[Taint], tolerations: Iterable[Toleration]) -> bool:
    """True if one of the taints stays on its nodes and is not tolerated."""
    tolerated = tuple(tolerations)
    return any(
        not any(toleration.tolerates(taint) for toleration in tolerated)
        for taint in taints
        if taint.effect in _KEEPS_AWAY and not _passes(taint)
    )


def _passes(taint: Taint) -> bool:
    """True if a controller or an admin removes the taint again once the node works."""
    return taint.key.startswith(_PASSING) or any(part in taint.key.lower() for part in _PASSING_PARTS)


def parse_node(manifest: Manifest) -> Node:
    """Return the node of a manifest. Raise Malformed if a field has another type."""
    document = Field(manifest)
    metadata, node_info = document["metadata"], document["status"]["nodeInfo"]
    labels, annotations = dict(metadata["labels"].text_pairs()), metadata["annotations"]
    kernel = node_info["kernelVersion"].text()
    system = labels.get("kubernetes.io/os") or node_info["operatingSystem"].text()
    return Node(
        name=metadata["name"].name(),
        labels=labels,
        arch=architecture(node_info["architecture"].text() or labels.get("kubernetes.io/arch", "")),
        kernel=kernel if looks_like_kernel(kernel) else None,
        windows=system == "windows",
        taints=tuple(parse_taint(taint) for taint in document["spec"]["taints"]),
        current_config=annotations[f"{_MCO}/currentConfig"].optional_text(),
        desired_config=annotations[f"{_MCO}/desiredConfig"].optional_text(),
        desired_image=annotations[f"{_MCO}/desiredImage"].optional_text(),
        os_image=node_info["osImage"].optional_text(),
        images=_images(document["status"]["images"]),
    )


def _images(field: Field) -> tuple[tuple[str, ...], ...] | None:
    if not field.items():
        return None
    return tuple(tuple(name.text() for name in image["names"]) for image in field)
