"""MachineConfigs: of each the two fields that decide of a kernel, and how several of them merge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.model import Flavour, Manifest
from kmm_preflight.nodes.selector import Labels

ROLE = "machineconfiguration.openshift.io/role"
_GENERATED = "machineconfiguration.openshift.io/generated-by-controller-version"
_FLAVOURS = {
    "": Flavour.STANDARD,
    "default": Flavour.STANDARD,
    "realtime": Flavour.RT,
    "64k-pages": Flavour.PAGES_64K,
}


@dataclass(frozen=True)
class MachineConfig:
    """kernel_type as spelled; os_image is osImageURL; generated ones are the operator's own."""

    name: str
    labels: Labels
    kernel_type: str = ""
    os_image: str = ""
    generated: bool = False


def parse_machine_config(manifest: Manifest) -> MachineConfig:
    """The MachineConfig of a manifest; Malformed for a field of another type."""
    document = Field(manifest)
    metadata, spec = document["metadata"], document["spec"]
    return MachineConfig(
        name=metadata["name"].name(),
        labels=dict(metadata["labels"].text_pairs()),
        kernel_type=spec["kernelType"].text(),
        os_image=spec["osImageURL"].text(),
        generated=metadata["annotations"][_GENERATED].given,
    )


def flavour_of(kernel_type: str) -> Flavour | None:
    """The flavour of a kernelType; None for one that this suite does not know."""
    return _FLAVOURS.get(kernel_type)


def in_order(sources: Iterable[MachineConfig]) -> list[MachineConfig]:
    """Sources as they merge (docs/reference/openshift.md 4.2): those of role worker by name, then the rest by name."""
    return sorted(sources, key=lambda one: (one.labels.get(ROLE) != "worker", one.name))


def merged_kernel_type(sources: Iterable[MachineConfig]) -> str:
    """The kernelType of a merge: the last that is not default (docs/reference/openshift.md 4.2)."""
    special = [one.kernel_type for one in in_order(sources) if one.kernel_type not in ("", "default")]
    return special[-1] if special else ""


def own_image(sources: Iterable[MachineConfig]) -> str:
    """The osImageURL that somebody set: the last of one that is not generated, "" where none is."""
    own = [one.os_image for one in in_order(sources) if one.os_image and not one.generated]
    return own[-1] if own else ""
