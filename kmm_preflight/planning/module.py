"""The Module: a decoded manifest becomes a value, or is refused as the CRD or KMM's webhook would refuse it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed
from kmm_preflight.model import VERIFIED_HTTPS, Manifest, ModuleName, RegistryTLS
from kmm_preflight.planning.plan import Build, Sign
from kmm_preflight.planning.regexp import Pattern, compile_pattern
from kmm_preflight.planning.toleration import Toleration, parse_tolerations

GROUP = "kmm.sigs.x-k8s.io"
VERSION = "v1beta1"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")  # its labels may be longer


@dataclass(frozen=True)
class KernelMapping:
    """One kernel mapping; None means that the section is not there, and the container's counts."""

    literal: str = ""
    regexp: str = ""
    container_image: str = ""
    registry_tls: RegistryTLS | None = None
    build: Build | None = None
    sign: Sign | None = None
    in_tree_module_to_remove: str = ""
    in_tree_modules_to_remove: tuple[str, ...] | None = None

    def pattern(self) -> Pattern:
        """The compiled regexp; Malformed when Go would not compile it."""
        return compile_pattern(self.regexp)


@dataclass(frozen=True)
class Container:
    """moduleLoader.container: the defaults of all mappings, the mappings in order, and what modprobe is given."""

    mappings: tuple[KernelMapping, ...]
    container_image: str = ""
    registry_tls: RegistryTLS = VERIFIED_HTTPS
    build: Build | None = None
    sign: Sign | None = None
    in_tree_module_to_remove: str = ""
    in_tree_modules_to_remove: tuple[str, ...] = ()
    module_name: str = ""
    directory: str = "/opt"
    modules_loading_order: tuple[str, ...] = ()
    firmware_path: str = ""
    load_options: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    """A Module; container is None without a moduleLoader (device plugin or DRA only).

    selector has the labels of its nodes, tolerations the taints of theirs that do not keep it away. uid and generation
    are the API server's, "" and 0 in manifests that were never there.
    """

    name: ModuleName
    container: Container | None
    deleting: bool = False
    secret: str | None = None
    selector: tuple[tuple[str, str], ...] = ()
    uid: str = ""
    generation: int = 0
    tolerations: tuple[Toleration, ...] = ()

    def dockerfiles(self) -> set[tuple[str, str]]:
        """Namespace and name of the ConfigMaps that any build section names."""
        names = {build.dockerfile_config_map for build in self._builds()}
        return {(self.name.namespace, name) for name in names if name}

    def build_and_sign_secrets(self) -> set[tuple[str, str]]:
        """Namespace and name of the Secrets that any build or sign section names."""
        names = {name for build in self._builds() for name in build.secrets}
        names |= {name for sign in self._signs() for name in (sign.key_secret, sign.cert_secret) if name}
        return {(self.name.namespace, name) for name in names}

    def _builds(self) -> list[Build]:
        return [section.build for section in self._sections() if section.build]

    def _signs(self) -> list[Sign]:
        return [section.sign for section in self._sections() if section.sign]

    def _sections(self) -> list[Container | KernelMapping]:
        return [self.container, *self.container.mappings] if self.container else []


@dataclass(frozen=True)
class RefusedModule:
    """A Module that is in the cluster although KMM's webhook would refuse it; problem is a sentence."""

    name: ModuleName
    problem: str
    deleting: bool = False
    uid: str = ""
    generation: int = 0


def has_case(module: Module | RefusedModule) -> bool:
    """Whether it has a case: it loads a kmod, as far as is known, and is not being deleted."""
    return not module.deleting and (isinstance(module, RefusedModule) or module.container is not None)


def parse_module(manifest: Manifest, namespace: str) -> Module:
    """The Module of a manifest; namespace counts where the manifest has none.

    Malformed names the field that the CRD (of any KMM version) or the webhook (since 1.1) refuses. Fields that this
    suite does not know are passed over.
    """
    document = Field(manifest)
    if document["apiVersion"].text() != f"{GROUP}/{VERSION}":
        raise document["apiVersion"].refuse(f"{GROUP}/{VERSION}, the only version of Module")
    metadata, spec = document["metadata"], document["spec"].present("the Module's spec")
    selector = spec["selector"].present("a node selector").text_pairs()
    loader = spec["moduleLoader"]
    return Module(
        name=ModuleName(
            _named(metadata["namespace"], _LABEL, namespace),
            _named(metadata["name"].present("the Module's name"), _SUBDOMAIN),
        ),
        container=_container(loader["container"].present("the loader's container")) if loader.given else None,
        deleting=metadata["deletionTimestamp"].given,
        secret=spec["imageRepoSecret"]["name"].text() or None,
        selector=selector,
        uid=metadata["uid"].text(),
        generation=metadata["generation"].number(),
        tolerations=parse_tolerations(spec["tolerations"]),
    )


def is_name(text: str) -> bool:
    """Whether an object can have this name."""
    return len(text) <= 253 and bool(_SUBDOMAIN.fullmatch(text))


def is_namespace(text: str) -> bool:
    """Whether a namespace can have this name."""
    return bool(_LABEL.fullmatch(text))


def _named(field: Field, grammar: re.Pattern[str], default: str = "") -> str:
    text = field.text() or default
    if len(text) > 253 or not grammar.fullmatch(text):
        raise field.refuse("a Kubernetes name: lower case letters, digits and -")
    return text


def _container(field: Field) -> Container:
    if not field["kernelMappings"].present("at least one kernel mapping").items():
        raise field["kernelMappings"].refuse("at least one kernel mapping")
    modprobe = field["modprobe"].present("what modprobe loads")
    container = parse_container(field)
    for item, mapping in zip(field["kernelMappings"], container.mappings, strict=True):
        _check_mapping(item, mapping, container)
    for section in (field, *field["kernelMappings"]):
        _check_sections(section)
        _check_removed(section, field)
    _check_modprobe(modprobe)
    return container


def parse_container(field: Field) -> Container:
    """The container section as it stands, without what only the webhook asks for."""
    modprobe = field["modprobe"]
    return Container(
        mappings=tuple(parse_mapping(item) for item in field["kernelMappings"]),
        container_image=field["containerImage"].text(),
        registry_tls=_tls(field["registryTLS"]),
        build=parse_build(field["build"]),
        sign=parse_sign(field["sign"]),
        in_tree_module_to_remove=field["inTreeModuleToRemove"].text(),
        in_tree_modules_to_remove=field["inTreeModulesToRemove"].texts(),
        module_name=modprobe["moduleName"].text(),
        directory=modprobe["dirName"].text() or "/opt",
        modules_loading_order=modprobe["modulesLoadingOrder"].texts(),
        firmware_path=modprobe["firmwarePath"].text(),
        load_options=modprobe["args"]["load"].texts(),
        parameters=modprobe["parameters"].texts(),
    )


def parse_mapping(field: Field) -> KernelMapping:
    """One mapping as it stands."""
    several = field["inTreeModulesToRemove"]
    return KernelMapping(
        literal=field["literal"].text(),
        regexp=field["regexp"].text(),
        container_image=field["containerImage"].text(),
        registry_tls=_tls(field["registryTLS"]) if field["registryTLS"].given else None,
        build=parse_build(field["build"]),
        sign=parse_sign(field["sign"]),
        in_tree_module_to_remove=field["inTreeModuleToRemove"].text(),
        in_tree_modules_to_remove=several.texts() if several.given else None,
    )


def parse_build(field: Field) -> Build | None:
    """The build section as it stands, None when absent."""
    if not field.given:
        return None
    return Build(
        dockerfile_config_map=_reference(field["dockerfileConfigMap"]),
        build_args=tuple((arg["name"].text(), arg["value"].text()) for arg in field["buildArgs"]),
        secrets=tuple(secret["name"].text() for secret in field["secrets"]),
        selector=field["selector"].text_pairs(),
        base_image_registry_tls=_tls(field["baseImageRegistryTLS"]),
    )


def parse_sign(field: Field) -> Sign | None:
    """The sign section as it stands, None when absent."""
    if not field.given:
        return None
    return Sign(
        unsigned_image=field["unsignedImage"].optional_text(),
        key_secret=_reference(field["keySecret"]),
        cert_secret=_reference(field["certSecret"]),
        files_to_sign=field["filesToSign"].texts(),
        unsigned_image_registry_tls=_tls(field["unsignedImageRegistryTLS"]),
    )


def _reference(field: Field) -> str | None:
    return field["name"].text() if field.given else None


def _tls(field: Field) -> RegistryTLS:
    return RegistryTLS(field["insecure"].flag(), field["insecureSkipTLSVerify"].flag())


def _check_mapping(field: Field, mapping: KernelMapping, container: Container) -> None:
    if mapping.literal and mapping.regexp:
        raise Malformed(f"{field.path}: got both literal and regexp, expected one of them")
    if not mapping.literal and not mapping.regexp:
        raise Malformed(f"{field.path}: got neither literal nor regexp, expected one of them")
    if mapping.regexp:
        try:
            mapping.pattern()
        except Malformed as exc:
            raise Malformed(f"{field.path}.regexp: {exc.message}") from exc
    if not mapping.container_image and not container.container_image:
        raise field["containerImage"].refuse("an image here or in moduleLoader.container")


def _check_sections(field: Field) -> None:
    """What the CRD requires of build and sign sections wherever they stand."""
    build, sign = field["build"], field["sign"]
    if build.given:
        build["dockerfileConfigMap"].present("the ConfigMap that holds the Dockerfile")
        for arg in build["buildArgs"]:
            arg["name"].present("the argument's name")
            arg["value"].present("the argument's value")
    if sign.given:
        sign["keySecret"].present("the Secret that holds the key")
        sign["certSecret"].present("the Secret that holds the certificate")


def _check_removed(field: Field, container: Field) -> None:
    """Old and new spelling exclude each other, within a section and between a mapping and its container."""
    one, several = "inTreeModuleToRemove", "inTreeModulesToRemove"
    for first, second in ((field, field), (field, container), (container, field)):
        if first[one].text() and second[several].given:
            raise first[one].refuse(f"either this or {second[several].path}")


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
