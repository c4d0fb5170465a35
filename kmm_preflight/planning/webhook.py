"""Rules for moduleLoader.container that the CRD and KMM's webhook (since 1.1) enforce."""

from __future__ import annotations

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed
from kmm_preflight.planning.container import Container, KernelMapping
from kmm_preflight.planning.regexp import compile_pattern


def check_container(field: Field, container: Container) -> None:
    """Raise Malformed if the CRD of any KMM version, or the webhook, would refuse the container."""
    if not field["kernelMappings"].present("at least one kernel mapping").items():
        raise field["kernelMappings"].refuse("at least one kernel mapping")
    modprobe = field["modprobe"].present("what modprobe loads")
    for item, mapping in zip(field["kernelMappings"], container.mappings, strict=True):
        _check_mapping(item, mapping, container)
    for section in (field, *field["kernelMappings"]):
        _check_sections(section)
        _check_removal(section, field)
    _check_modprobe(modprobe)


def _check_mapping(field: Field, mapping: KernelMapping, container: Container) -> None:
    if mapping.literal and mapping.regexp:
        raise Malformed(f"{field.path}: got both literal and regexp, expected one of them")
    if not mapping.literal and not mapping.regexp:
        raise Malformed(f"{field.path}: got neither literal nor regexp, expected one of them")
    if mapping.regexp:
        try:
            compile_pattern(mapping.regexp)
        except Malformed as exc:
            raise Malformed(f"{field.path}.regexp: {exc.message}") from exc
    if not mapping.container_image and not container.container_image:
        raise field["containerImage"].refuse("an image here or in moduleLoader.container")


def _check_sections(field: Field) -> None:
    """Check the required fields of build and sign sections."""
    build, sign = field["build"], field["sign"]
    if build.given:
        build["dockerfileConfigMap"].present("the ConfigMap that holds the Dockerfile")
        for arg in build["buildArgs"]:
            arg["name"].present("the argument's name")
            arg["value"].present("the argument's value")
    if sign.given:
        sign["keySecret"].present("the Secret that holds the key")
        sign["certSecret"].present("the Secret that holds the certificate")


def _check_removal(field: Field, container: Field) -> None:
    """Refuse old and new spelling together, within a section or between a mapping and its container."""
    old, new = "inTreeModuleToRemove", "inTreeModulesToRemove"
    for first, second in ((field, field), (field, container), (container, field)):
        if first[old].text() and second[new].given:
            raise first[old].refuse(f"either this or {second[new].path}")


def _check_modprobe(field: Field) -> None:
    name, raw, order = field["moduleName"].text(), field["rawArgs"], field["modulesLoadingOrder"].texts()
    _check_arguments(field)
    load, unload = raw["load"].given, raw["unload"].given
    if name and (load or unload):
        raise raw.refuse("either moduleName or rawArgs")
    if not name and not (load and unload):
        raise field["moduleName"].refuse("a name, or rawArgs with both load and unload")
    if "/" in name or name.strip() != name:
        raise field["moduleName"].refuse("a module's name, not a path")
    ordered = len(order) > 1 and order[0] == name and len(set(order)) == len(order)
    if field["modulesLoadingOrder"].given and not ordered:
        raise field["modulesLoadingOrder"].refuse("two or more different names that begin with moduleName")


def _check_arguments(field: Field) -> None:
    for section in ("args", "rawArgs"):
        for key in ("load", "unload"):
            if field[section][key].given and not field[section][key].texts():
                raise field[section][key].refuse("at least one argument")
    field["parameters"].texts()
