"""BootModuleConfig: a manifest as a kmod that nodes load at boot (docs/reference/kmm.md 20.1)."""

from __future__ import annotations

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.model import Manifest, ModuleName
from kmm_preflight.planning.boot_time import BootTimeKmod
from kmm_preflight.planning.source import BootPlacement

KIND = "BootModuleConfig"
ROLE = "machineconfiguration.openshift.io/role"


def parse_boot_module_config(manifest: Manifest, namespace: str) -> BootTimeKmod:
    """Return the kmod of a manifest. namespace applies if the manifest has none.

    Raise Malformed with the field that the CRD refuses.
    """
    document = Field(manifest)
    metadata, spec = document["metadata"], document["spec"].present(f"the spec of a {KIND}")
    pool = _required(spec["machineConfigPoolName"])
    return BootTimeKmod(
        name=ModuleName(metadata["namespace"].text() or namespace, metadata["name"].name(), KIND),
        image=_required(spec["kernelModuleImage"]),
        kmod=_required(spec["kernelModuleName"]),
        placement=BootPlacement(_required(spec["machineConfigName"]), ((ROLE, pool),), pool),
        in_tree_modules_to_remove=spec["inTreeModulesToRemove"].texts(),
        firmware_path=spec["firmwareFilesPath"].optional_text(),
        worker_image=spec["workerImage"].optional_text(),
        deleting=metadata["deletionTimestamp"].given,
        uid=metadata["uid"].optional_text(),
        generation=metadata["generation"].number(),
    )


def _required(field: Field) -> str:
    text = field.present("text").text()
    if not text:
        raise field.refuse("text")
    return text
