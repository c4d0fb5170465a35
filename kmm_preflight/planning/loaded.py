"""NodeModulesConfig: the image that KMM wants on a node for each Module (docs/reference/kmm.md 30)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.model import Manifest, ModuleName, RegistryTLS, TargetKernel
from kmm_preflight.planning import findings
from kmm_preflight.planning.container import Container, KernelMapping, parse_container
from kmm_preflight.planning.mapping import merge
from kmm_preflight.planning.module import Module
from kmm_preflight.planning.plan import Case, Unresolved
from kmm_preflight.planning.planner import make_plan, resolve

_NO_MAPPING = (findings.NO_MAPPING.id, findings.MAPPING_LOST.id)


@dataclass(frozen=True)
class LoadedModule:
    """An entry of a NodeModulesConfig: a Module in the version that a node runs."""

    module: ModuleName
    """Namespace and name of the Module."""
    container: Container
    """The image and the modprobe settings. It has no kernel mappings."""
    version: str | None = None
    """The version of the Module, or None without ordered upgrades."""
    kernel: str | None = None
    """The kernel whose folder KMM's worker copies from the image, or None if unknown."""
    secret: str | None = None
    """Name of the imageRepoSecret, in the Module's namespace."""
    account: str | None = None
    """Name of the account of the Pod that pulls the image, or None."""


def parse_node_modules(manifest: Manifest) -> tuple[str, tuple[LoadedModule, ...]]:
    """Return the node of a NodeModulesConfig, and its entries. Raise Malformed if a field has another type."""
    document = Field(manifest)
    entries = tuple(_entry(item) for item in document["spec"]["modules"])
    return document["metadata"]["name"].name(), entries


def _entry(field: Field) -> LoadedModule:
    config = field["config"]
    container = parse_container(config)
    if config["insecurePull"].flag():
        container = replace(container, registry_tls=RegistryTLS(insecure=True, insecure_skip_tls_verify=True))
    return LoadedModule(
        ModuleName(field["namespace"].text(), field["name"].text()),
        container,
        version=field["version"].optional_text(),
        kernel=config["kernelVersion"].optional_text(),
        secret=field["imageRepoSecret"]["name"].optional_text(),
        account=field["serviceAccountName"].optional_text(),
    )


def make_loaded_plan(module: Module, loaded: LoadedModule, kernel: TargetKernel, today: tuple[str, ...]) -> Case:
    """Return the plan for nodes that keep the image of their NodeModulesConfig on a new kernel.

    If no mapping of the Module matches the kernel, KMM deletes the entry, so the nodes lose the kmod.
    """
    assert module.container  # a Module without a moduleLoader has no case
    own = make_plan(module, module.container, kernel, today)
    if kernel.problem or (isinstance(own, Unresolved) and own.finding.id in _NO_MAPPING):
        return own
    mapping = merge(loaded.container, KernelMapping())
    puller = replace(module, secret=loaded.secret, account=loaded.account or module.account)
    return resolve(puller, loaded.container, mapping, kernel)
