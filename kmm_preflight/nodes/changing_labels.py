"""Labels of nodes that an upgrade changes, and what a target kernel says about their new values.

The rules are in docs/reference/kmm.md 31.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from kmm_preflight.kernel_version import kernel_architecture, looks_like_kernel
from kmm_preflight.nodes.node import Node

_NFD = "feature.node.kubernetes.io"
_FULL = (f"{_NFD}/kernel-version.full", "kmm.node.kubernetes.io/kernel-version.full")
_PARTS = {f"{_NFD}/kernel-version.{part}": index for index, part in enumerate(("major", "minor", "revision"))}
_OF_SYSTEM = (f"{_NFD}/kernel-config.", f"{_NFD}/system-os_release.", "node.openshift.io/os_")
_NUMBERS = re.compile(r"(\d+)\.(\d+)\.(\d+)")
# The build of an OS image in status.nodeInfo.osImage, such as 418.94.202501221327-0 or 9.6.20250701-0.
_OS_BUILD = re.compile(r"\d+\.\d+\.\d{6,}[0-9.-]*")


@dataclass(frozen=True)
class PendingLabel:
    """A label of a selector whose value on nodes follows the kernel or the OS."""

    key: str
    """The label."""
    wanted: str
    """The value in the selector."""
    today: str | None = None
    """The value on the nodes today, or None for nodes to come."""

    def holds_on(self, kernel: str) -> bool | None:
        """True if nodes have the wanted value once they run the kernel. None if the kernel does not determine it."""
        after = value_after(self.key, kernel)
        if after is not None:
            return after == self.wanted
        if self.key.startswith(_OF_SYSTEM) or self.wanted == self.today:
            return None
        # Nobody in hand says who sets the label. A value of the target kernel may be its next one.
        return None if _names(self.wanted, kernel) else False


def value_after(key: str, kernel: str) -> str | None:
    """Return the value of a label on a node that runs the kernel, or None if the kernel does not determine it."""
    if key in _FULL:
        return _label_value(kernel) if key.startswith(_NFD) else kernel.removesuffix("+").replace("+", "_")
    numbers = _NUMBERS.match(kernel)
    return numbers[_PARTS[key] + 1] if key in _PARTS and numbers else None


def follows_system(key: str) -> bool:
    """True if the label of this name has a value of the kernel or the OS on every node."""
    return key in _FULL or key in _PARTS or key.startswith(_OF_SYSTEM)


def changes_on(key: str, node: Node) -> bool:
    """True if an upgrade may change the value of the node's label."""
    if follows_system(key):
        return True
    value = node.labels[key]
    if not any(character.isdigit() for character in value):
        return False
    if node.kernel and _names(value, node.kernel):
        return True
    return any(build in value for build in _OS_BUILD.findall(node.os_image or ""))


def _names(value: str, kernel: str) -> bool:
    """True if a label's value contains the kernel's version, or is the beginning of the version."""
    beginning = "-" in value and looks_like_kernel(value) and kernel.startswith(value)
    return beginning or any(form in value for form in _forms(kernel))


@cache
def _forms(kernel: str) -> tuple[str, ...]:
    """Return texts in which a label's value names a kernel: with and without architecture."""
    base = kernel.partition("+")[0]
    without_arch = (base.rpartition(".")[0],) if kernel_architecture(kernel) and "." in base else ()
    return (kernel, _label_value(kernel), *without_arch)


def _label_value(text: str) -> str:
    """Return the text as node feature discovery makes it a label's value."""
    return re.sub(r"[^-A-Za-z0-9_.]", "_", text).strip("-_.")
