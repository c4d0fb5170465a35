"""moduleLoader.container of a Module: the kernel mappings, and their defaults."""

from __future__ import annotations

from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.model import VERIFIED_HTTPS, RegistryTLS
from kmm_preflight.planning.plan import Build, Sign


@dataclass(frozen=True)
class KernelMapping:
    """A kernel mapping, with literal or regexp. None means that the value of the container applies."""

    literal: str | None = None
    """The kernel version that this mapping is for."""
    regexp: str | None = None
    """The regular expression for kernel versions, in Go's syntax."""
    container_image: str | None = None
    """Template for the name of the image."""
    registry_tls: RegistryTLS | None = None
    """TLS rules for the registry of the image."""
    build: Build | None = None
    """The build section."""
    sign: Sign | None = None
    """The sign section."""
    in_tree_module_to_remove: str | None = None
    """The deprecated form of in_tree_modules_to_remove, for one kmod."""
    in_tree_modules_to_remove: tuple[str, ...] | None = None
    """Names of in-tree kmods that KMM unloads first."""


@dataclass(frozen=True)
class Container:
    """moduleLoader.container of a Module."""

    mappings: tuple[KernelMapping, ...]
    """The kernel mappings, in order."""
    container_image: str | None = None
    """Template for the name of the image, for mappings without their own."""
    registry_tls: RegistryTLS = VERIFIED_HTTPS
    """TLS rules for mappings without their own."""
    build: Build | None = None
    """The build section, merged with that of a mapping."""
    sign: Sign | None = None
    """The sign section, merged with that of a mapping."""
    in_tree_module_to_remove: str | None = None
    """The deprecated form of in_tree_modules_to_remove, for one kmod."""
    in_tree_modules_to_remove: tuple[str, ...] = ()
    """Names of in-tree kmods that KMM unloads first, for mappings without their own."""
    module_name: str | None = None
    """modprobe.moduleName. None with modprobe.rawArgs."""
    directory: str = "/opt"
    """modprobe.dirName, the parent of lib/modules in the image."""
    modules_loading_order: tuple[str, ...] = ()
    """modprobe.modulesLoadingOrder: names of kmods from the last to load to the first."""
    firmware_path: str | None = None
    """modprobe.firmwarePath, a folder of the image."""
    load_options: tuple[str, ...] = ()
    """modprobe.args.load, options of the modprobe call that loads the kmod."""
    parameters: tuple[str, ...] = ()
    """modprobe.parameters, parameters of the kmod."""
    pull_policy: str | None = None
    """imagePullPolicy, or None for Kubernetes' default."""
    raw_arguments: tuple[str, ...] = ()
    """modprobe.rawArgs.load, all arguments of the modprobe call that loads kmods."""


def parse_container(field: Field) -> Container:
    """Return the container of a manifest. Leave the rules of the webhook unchecked."""
    modprobe = field["modprobe"]
    return Container(
        mappings=tuple(parse_mapping(item) for item in field["kernelMappings"]),
        container_image=field["containerImage"].optional_text(),
        registry_tls=_tls(field["registryTLS"]),
        build=parse_build(field["build"]),
        sign=parse_sign(field["sign"]),
        in_tree_module_to_remove=field["inTreeModuleToRemove"].optional_text(),
        in_tree_modules_to_remove=field["inTreeModulesToRemove"].texts(),
        pull_policy=field["imagePullPolicy"].optional_text(),
        module_name=modprobe["moduleName"].optional_text(),
        directory=modprobe["dirName"].text() or "/opt",
        modules_loading_order=modprobe["modulesLoadingOrder"].texts(),
        firmware_path=modprobe["firmwarePath"].optional_text(),
        load_options=modprobe["args"]["load"].texts(),
        parameters=modprobe["parameters"].texts(),
        raw_arguments=modprobe["rawArgs"]["load"].texts(),
    )


def parse_mapping(field: Field) -> KernelMapping:
    """Return the kernel mapping of a manifest. Leave the rules of the webhook unchecked."""
    in_tree_modules = field["inTreeModulesToRemove"]
    return KernelMapping(
        literal=field["literal"].optional_text(),
        regexp=field["regexp"].optional_text(),
        container_image=field["containerImage"].optional_text(),
        registry_tls=_tls(field["registryTLS"]) if field["registryTLS"].given else None,
        build=parse_build(field["build"]),
        sign=parse_sign(field["sign"]),
        in_tree_module_to_remove=field["inTreeModuleToRemove"].optional_text(),
        in_tree_modules_to_remove=in_tree_modules.texts() if in_tree_modules.given else None,
    )


def parse_build(field: Field) -> Build | None:
    """Return the build section of a manifest, or None."""
    if not field.given:
        return None
    return Build(
        dockerfile_config_map=_object_name(field["dockerfileConfigMap"]),
        build_args=tuple((arg["name"].text(), arg["value"].text()) for arg in field["buildArgs"]),
        secrets=tuple(secret["name"].text() for secret in field["secrets"]),
        selector=field["selector"].text_pairs(),
        base_image_registry_tls=_tls(field["baseImageRegistryTLS"]),
    )


def parse_sign(field: Field) -> Sign | None:
    """Return the sign section of a manifest, or None."""
    if not field.given:
        return None
    return Sign(
        unsigned_image=field["unsignedImage"].optional_text(),
        key_secret=_object_name(field["keySecret"]),
        cert_secret=_object_name(field["certSecret"]),
        files_to_sign=field["filesToSign"].texts(),
        unsigned_image_registry_tls=_tls(field["unsignedImageRegistryTLS"]),
    )


def _object_name(field: Field) -> str | None:
    """Return the name in a reference to an object. An empty name still replaces that of the container."""
    return field["name"].text() if field.given else None


def _tls(field: Field) -> RegistryTLS:
    return RegistryTLS(field["insecure"].flag(), field["insecureSkipTLSVerify"].flag())
