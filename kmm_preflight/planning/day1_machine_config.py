"""MachineConfig of KMM's day-1 utility as a kmod that nodes load at boot (docs/reference/kmm.md 20.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed
from kmm_preflight.model import Manifest, ModuleName
from kmm_preflight.planning.boot_time import BootTimeKmod
from kmm_preflight.planning.ignition import enabled_units, file_text, unit_environment
from kmm_preflight.planning.source import BootPlacement

KIND = "MachineConfig"
_UNIT = "replace-kernel-module.service"
_LOAD, _PULL = "/usr/local/bin/replace-kernel-module.sh", "/usr/local/bin/pull-kernel-module-image.sh"
_WORKER_CONFIG = "/etc/kmm-worker-day1/config.yaml"
SCRIPTS = (_LOAD, _PULL, _WORKER_CONFIG)
"""Files that name the image and the kmod, in MachineConfigs of KMM 1.1 to 2.1."""
_KERNEL = "$(uname -r)"
_SET = re.compile(r"^\s*([A-Za-z_]\w*)=(.*?)\s*$", re.M)
_USE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_PULLED = re.compile(r"^\s*podman pull(?:\s+--?[\w-]+(?:=\S+|\s+/\S+)?)*\s+(\S+)\s*$", re.M)
_MODPROBE = re.compile(r"--entrypoint modprobe\s+\S+\s+-d\s+/opt\s+(\S+)")
_INSERTED = re.compile(r'echo "OOT kernel module (\S+) is inserted"')
_REMOVED = re.compile(r"--entrypoint modprobe\s+\S+\s+-rd\s+/opt\s+(\S+)")
_MODULE_NAME = re.compile(r"^\s*moduleName:\s*(\S+)\s*$", re.M)


def parse_day1_machine_config(manifest: Manifest) -> BootTimeKmod | None:
    """Return the kmod of a MachineConfig, or None if the MachineConfig has no unit of the day-1 utility.

    Raise Malformed or BoundExceeded if the image or the kmod cannot be found in the unit and its scripts.
    """
    document = Field(manifest)
    config = document["spec"]["config"]
    unit = next((text for name, text in enabled_units(config).items() if name.endswith(_UNIT)), None)
    if unit is None:
        return None
    variables = unit_environment(unit)
    if "KERNEL_MODULE_IMAGE" in variables:
        return _kmod(document, variables, variables["KERNEL_MODULE_IMAGE"], appends_kernel=True)
    return _of_scripts(document, config)


def _kmod(document: Field, variables: Mapping[str, str], image: str, appends_kernel: bool) -> BootTimeKmod:
    metadata = document["metadata"]
    name = metadata["name"].name()
    kmod = variables.get("KERNEL_MODULE", "")
    if not image or not kmod:
        raise Malformed(f"{KIND} {name}: the unit {_UNIT} names no {'kmod' if image else 'image'}")
    removed = variables.get("IN_TREE_MODULES_TO_REMOVE") or variables.get("IN_TREE_MODULE_TO_REMOVE") or ""
    return BootTimeKmod(
        name=ModuleName("", name, KIND),
        image=image,
        kmod=kmod,
        placement=BootPlacement(name, metadata["labels"].text_pairs()),
        appends_kernel=appends_kernel,
        image_field="KERNEL_MODULE_IMAGE",
        in_tree_modules_to_remove=tuple(removed.split()),
        firmware_path=variables.get("FIRMWARE_FILES_PATH") or None,
        worker_image=variables.get("WORKER_IMAGE") or None,
        deleting=metadata["deletionTimestamp"].given,
        uid=metadata["uid"].optional_text(),
        generation=metadata["generation"].number(),
    )


def _of_scripts(document: Field, config: Field) -> BootTimeKmod:
    """Return the kmod of a MachineConfig of KMM 1.1 to 2.1, which has the names in its scripts."""
    load, pull = file_text(config, _LOAD) or "", file_text(config, _PULL) or ""
    settings = file_text(config, _WORKER_CONFIG) or ""
    images = [_expanded(word, pull) for word in _PULLED.findall(pull)]
    kmods = [*_MODPROBE.findall(load), *_INSERTED.findall(load), *_MODULE_NAME.findall(settings)]
    removed = _REMOVED.findall(load)
    # The worker's image is pulled before the image with the kmod.
    image = images[-1] if images else ""
    variables = {
        "KERNEL_MODULE": _expanded(kmods[0], load) if kmods else "",
        "IN_TREE_MODULE_TO_REMOVE": _expanded(removed[0], load) if removed else "",
        "WORKER_IMAGE": images[0] if len(images) > 1 else "",
    }
    if any("$" in value for value in (image.removesuffix(f":{_KERNEL}"), variables["KERNEL_MODULE"])):
        name = document["metadata"]["name"].text()
        raise Malformed(f"{KIND} {name}: the scripts of {_UNIT} compute the image's name")
    appends = image.endswith(f":{_KERNEL}")
    return _kmod(document, variables, image.removesuffix(f":{_KERNEL}"), appends)


def _expanded(word: str, script: str) -> str:
    """Return the word of a script with the variables that the script sets to constants."""
    values = {name: value.strip("\"'") for name, value in _SET.findall(script)}
    word = word.strip("\"'")
    for _ in range(5):  # a variable may hold another variable
        word = _USE.sub(lambda use: values.get(use[1] or use[2], use[0]), word)
    return word
