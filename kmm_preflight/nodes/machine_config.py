"""MachineConfigs: the fields that decide the kernel of a node and its arguments, and the merge of several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.model import Flavour, Manifest
from kmm_preflight.nodes.selector import Labels

ROLE = "machineconfiguration.openshift.io/role"
DEFAULT_KERNEL_TYPE = "default"
_GENERATED = "machineconfiguration.openshift.io/generated-by-controller-version"
_FLAVOURS = {
    DEFAULT_KERNEL_TYPE: Flavour.STANDARD,
    "realtime": Flavour.RT,
    "64k-pages": Flavour.PAGES_64K,
}


@dataclass(frozen=True)
class MachineConfig:
    """A MachineConfig."""

    name: str
    """Its name."""
    labels: Labels
    """Its labels. A pool selects MachineConfigs by them."""
    kernel_type: str | None = None
    """spec.kernelType, or None if it is not set."""
    os_image: str | None = None
    """spec.osImageURL, or None if it is not set."""
    generated: bool = False
    """True if the machine config operator made it."""
    kernel_arguments: tuple[str, ...] = ()
    """spec.kernelArguments. An item may have several words."""
    fips: bool = False
    """spec.fips."""


def parse_machine_config(manifest: Manifest) -> MachineConfig:
    """Return the MachineConfig of a manifest. Raise Malformed if a field has another type."""
    document = Field(manifest)
    metadata, spec = document["metadata"], document["spec"]
    return MachineConfig(
        name=metadata["name"].name(),
        labels=dict(metadata["labels"].text_pairs()),
        kernel_type=spec["kernelType"].optional_text(),
        os_image=spec["osImageURL"].optional_text(),
        generated=metadata["annotations"][_GENERATED].given,
        kernel_arguments=spec["kernelArguments"].texts(),
        fips=spec["fips"].flag(),
    )


def flavour_of(kernel_type: str) -> Flavour | None:
    """Return the flavour of a kernelType, or None if this suite does not know the kernelType."""
    return _FLAVOURS.get(kernel_type)


def merge_order(sources: Iterable[MachineConfig]) -> list[MachineConfig]:
    """Return the sources as they merge (docs/reference/openshift.md 4.2): role worker first, then by name."""
    return sorted(sources, key=lambda source: (source.labels.get(ROLE) != "worker", source.name))


def merged_kernel_type(sources: Iterable[MachineConfig]) -> str:
    """Return the kernelType after the merge: the last that is not default (docs/reference/openshift.md 4.2)."""
    set_types = [source.kernel_type for source in merge_order(sources) if source.kernel_type]
    special = [kernel_type for kernel_type in set_types if kernel_type != DEFAULT_KERNEL_TYPE]
    return special[-1] if special else DEFAULT_KERNEL_TYPE


def custom_os_image(sources: Iterable[MachineConfig]) -> str | None:
    """Return the osImageURL that a user set: the last in the merge, without generated MachineConfigs."""
    images = [source.os_image for source in merge_order(sources) if source.os_image and not source.generated]
    return images[-1] if images else None
