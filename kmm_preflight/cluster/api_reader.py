"""Read the inventory of a live cluster: all Modules, and the other objects that the Modules need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.api import (
    CLUSTER_IMAGE_POLICIES,
    CONFIG_MAPS,
    CONTENT_POLICIES,
    DIGEST_MIRRORS,
    IMAGE_CONFIGS,
    IMAGE_POLICIES,
    MODULES,
    OLDER_CLUSTER_IMAGE_POLICIES,
    OLDER_IMAGE_POLICIES,
    PROXIES,
    SECRETS,
    SERVICE_ACCOUNTS,
    TAG_MIRRORS,
    Forbidden,
    ReadApi,
    ResourceKind,
)
from kmm_preflight.cluster.fleet import read_day1, read_fleet
from kmm_preflight.cluster.inventory import (
    BUILD_ACCOUNT,
    NODE_ACCOUNT,
    OPERATOR_ACCOUNT,
    OPERATOR_NAMESPACES,
    PULL_SECRET,
    Inventory,
    Key,
)
from kmm_preflight.cluster.kmod_sources import read_other_sources, with_day1
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.model import Manifest, ModuleName
from kmm_preflight.nodes.day1 import Day1Kmods
from kmm_preflight.oci.cluster_proxy import trusted_config_maps
from kmm_preflight.oci.signature_policy import CLUSTER_POLICY, NAMESPACE_POLICY
from kmm_preflight.planning.day1_machine_config import KIND as MACHINE_CONFIG
from kmm_preflight.planning.module import Module, RefusedModule, parse_module, refused_module
from kmm_preflight.planning.source import KmodSource, has_case

_CONFIG_NAMESPACE = "openshift-config"
_POLICIES = (
    (CLUSTER_IMAGE_POLICIES, OLDER_CLUSTER_IMAGE_POLICIES, CLUSTER_POLICY),
    (IMAGE_POLICIES, OLDER_IMAGE_POLICIES, NAMESPACE_POLICY),
)
_T = TypeVar("_T")


def read_cluster(api: ReadApi) -> Inventory:
    """Read all objects that bring kmods, except MachineConfigs, and the objects that a pull of their images needs.

    If no object brings a kmod, read no more. `assumed` names optional objects that are forbidden.
    """
    manifests = api.list(MODULES)
    inventory = Inventory(source=f"the cluster {api.server}", live=True)
    if manifests is None:
        absent = f"{inventory.source} serves no {MODULES.resource}: KMM is not installed there"
        inventory = replace(inventory, assumed=(absent,))
    modules, refused = _parse_modules(manifests or ())
    found = read_other_sources(api)
    inventory = replace(
        inventory,
        modules=modules,
        refused=refused,
        other_sources=found.sources,
        not_judged=found.not_judged,
        assumed=(*inventory.assumed, *found.assumed),
    )
    return _with_pull_objects(api, inventory) if any(map(_is_pulled, inventory.judged())) else inventory


def _is_pulled(source: KmodSource) -> bool:
    return not isinstance(source, RefusedModule)


def _with_pull_objects(api: ReadApi, inventory: Inventory) -> Inventory:
    """Return the inventory with ServiceAccounts, the Secrets of pulls, mirrors, certificates and the proxy."""
    loading = [module for module in inventory.modules_of_all_kinds() if has_case(module)]
    accounts, assumed = _accounts(api, loading)
    secrets = _secrets(api, _pull_secrets(loading, accounts))
    inventory = replace(inventory, service_accounts=accounts, secrets=secrets, assumed=(*inventory.assumed, *assumed))
    return _with_proxy(api, _with_trust(api, _with_policies(api, _with_mirrors(api, inventory))))


def with_fleet(api: ReadApi, inventory: Inventory) -> Inventory:
    """Return the inventory with nodes and pools, and with the kmods of MachineConfigs."""
    ordered = any(module.version is not None for module in inventory.modules if has_case(module))
    fleet = read_fleet(api, ordered) if inventory.judged() else None
    found = with_boot_configs(api, inventory, fleet.day1 if fleet else read_day1(api))
    found = replace(found, fleet=fleet or (read_fleet(api, ordered) if found.judged() else None))
    return with_sources(api, found, (), secrets_of_kept_versions(found))


def with_boot_configs(api: ReadApi, inventory: Inventory, day1: Day1Kmods | None = None) -> Inventory:
    """Return the inventory with the kmods of MachineConfigs. If they are not given, read them."""
    found = with_day1(inventory, day1 or read_day1(api))
    pulls = any(map(_is_pulled, inventory.judged()))
    return found if pulls or not found.judged() else _with_pull_objects(api, found)


def secrets_of_kept_versions(inventory: Inventory) -> set[Key]:
    """Return the Secrets with which nodes pull the versions of Modules that they keep in an ordered upgrade."""
    ordered = {module.name for module in inventory.modules if module.version is not None and has_case(module)}
    loaded = [entry for entries in (inventory.fleet.loaded if inventory.fleet else {}).values() for entry in entries]
    return {(entry.module.namespace, entry.secret) for entry in loaded if entry.secret and entry.module in ordered}


def with_sources(api: ReadApi, inventory: Inventory, config_maps: Iterable[Key], secrets: Iterable[Key]) -> Inventory:
    """Return the inventory with these ConfigMaps and Secrets, each read once."""
    read = {key: api.get(CONFIG_MAPS, key[1], key[0]) for key in sorted(set(config_maps) - set(inventory.config_maps))}
    more_maps = {key: config_map for key, config_map in read.items() if config_map}
    more_secrets = _secrets(api, sorted(set(secrets) - set(inventory.secrets)))
    return replace(
        inventory,
        config_maps={**inventory.config_maps, **more_maps},
        secrets={**inventory.secrets, **more_secrets},
    )


def with_builders(api: ReadApi, inventory: Inventory, namespaces: Collection[str]) -> Inventory:
    """Return the inventory with the accounts of builds in these namespaces, and the Secrets of these accounts."""
    accounts: dict[Key, Manifest] = {}
    for namespace in sorted(namespaces):
        read = partial(api.get, SERVICE_ACCOUNTS, BUILD_ACCOUNT, namespace)
        account, assumed = _optional(read, SERVICE_ACCOUNTS, f"builds in namespace {namespace} have no login")
        inventory = replace(inventory, assumed=(*inventory.assumed, *assumed))
        accounts |= {(namespace, BUILD_ACCOUNT): account} if account else {}
    names = {
        (namespace, name)
        for (namespace, _), account in accounts.items()
        for part in ("imagePullSecrets", "secrets")
        for item in Field(account)[part]
        if (name := item["name"].text())
    }
    secrets = _secrets(api, sorted(names - set(inventory.secrets)))
    return replace(
        inventory,
        service_accounts={**inventory.service_accounts, **accounts},
        secrets={**inventory.secrets, **secrets},
    )


@dataclass(frozen=True)
class ModuleChanges:
    """Changes of Modules since they were listed."""

    appeared: tuple[ModuleName, ...] = ()
    """New Modules, and Modules that must be checked now and did not before."""
    changed: Mapping[ModuleName, int] = field(default_factory=dict)
    """Modules with a new generation, and the generation."""
    leaving: frozenset[ModuleName] = frozenset()
    """Modules that still exist and need no check any more, for example because they are being deleted."""
    gone: frozenset[ModuleName] = frozenset()
    """Modules that do not exist any more."""


def changes_since(api: ReadApi, inventory: Inventory) -> ModuleChanges:
    """Compare the objects of the cluster that bring kmods, except MachineConfigs, with those of the inventory."""
    before = {source.name: source for source in inventory.sources() if source.name.kind != MACHINE_CONFIG}
    now = {source.name: source for source in _listed(api).sources()}
    judged_now = {name for name, module in now.items() if has_case(module)}
    judged_before = {name for name, module in before.items() if has_case(module)}
    both = judged_before & judged_now
    return ModuleChanges(
        appeared=tuple(sorted(judged_now - judged_before)),
        changed={
            name: now[name].generation for name in sorted(both) if _identity(before[name]) != _identity(now[name])
        },
        leaving=frozenset((judged_before & set(now)) - judged_now),
        gone=frozenset(set(before) - set(now)),
    )


Snapshot = dict[str, str | None]
"""Versions of objects by kind and name, such as "Module ns/a". None for an object that does not exist."""


def snapshot(api: ReadApi, unverified: Collection[ModuleName]) -> Snapshot:
    """Return the versions of all objects that can change a verdict.

    The objects are all Modules, and the ConfigMaps and Secrets that unverified Modules name.
    """
    listed = _listed(api)
    versions: Snapshot = {
        f"Module {source.name}": f"{source.uid} {source.generation} {has_case(source)}" for source in listed.sources()
    }
    modules = listed.modules_of_all_kinds()
    watched = [module for module in modules if module.name in unverified and has_case(module)]
    if not watched:
        return versions
    accounts, _ = _accounts(api, watched)
    of_sections = (key for module in watched for key in module.build_and_sign_secrets())
    secrets = {*_pull_secrets(watched, accounts), *of_sections}
    config_maps = {key for module in watched for key in module.dockerfiles()}
    for kind, word, keys in ((SECRETS, "Secret", secrets), (CONFIG_MAPS, "ConfigMap", config_maps)):
        with suppress(Forbidden):  # watch the other kind
            versions |= {f"{word} {'/'.join(key)}": _version(api, kind, key) for key in sorted(keys)}
    return versions


def _version(api: ReadApi, kind: ResourceKind, key: Key) -> str | None:
    manifest = api.get(kind, key[1], key[0], metadata_only=True)
    return Field(manifest)["metadata"]["resourceVersion"].text() if manifest else None


def _listed(api: ReadApi) -> Inventory:
    """Return the objects that bring kmods now, except MachineConfigs."""
    modules, refused = _parse_modules(api.list(MODULES) or ())
    return Inventory(modules, refused=refused, other_sources=read_other_sources(api).sources)


def _identity(module: KmodSource) -> tuple[str | None, int]:
    return module.uid, module.generation


def _parse_modules(manifests: Iterable[Manifest]) -> tuple[tuple[Module, ...], tuple[RefusedModule, ...]]:
    modules, refused = [], []
    for manifest in manifests:
        try:
            modules.append(parse_module(manifest, ""))
        except (Malformed, BoundExceeded) as exc:
            refused.append(refused_module(manifest, exc))
    return (
        tuple(sorted(modules, key=lambda module: module.name)),
        tuple(sorted(refused, key=lambda module: module.name)),
    )


def _accounts(api: ReadApi, modules: Iterable[Module]) -> tuple[dict[Key, Manifest], tuple[str, ...]]:
    """Return the accounts of the Pods that pull for Modules without a Secret, and sentences about forbidden accounts.

    List all accounts of a name in one request.
    """
    keys = {(module.name.namespace, module.account or _account(module)) for module in modules if not module.secret}
    found: dict[Key, Manifest] = {}
    assumed: tuple[str, ...] = ()
    for name in sorted({name for _, name in keys}):
        read = partial(api.list, SERVICE_ACCOUNTS, name=name)
        if name == NODE_ACCOUNT:
            accounts = read()
        else:
            instead = f"ServiceAccount {name} is assumed to have no imagePullSecrets"
            accounts, forbidden = _optional(read, SERVICE_ACCOUNTS, instead)
            assumed += forbidden
        found |= {_key(manifest): manifest for manifest in accounts or ()}
    return {key: manifest for key, manifest in found.items() if key in keys}, assumed


def _account(module: Module) -> str:
    return OPERATOR_ACCOUNT if module.name.namespace in OPERATOR_NAMESPACES else NODE_ACCOUNT


def _pull_secrets(modules: Iterable[Module], accounts: dict[Key, Manifest]) -> list[Key]:
    """Return the nodes' pull secret, then the Secrets that Modules and accounts name."""
    of_modules = {(module.name.namespace, module.secret) for module in modules if module.secret}
    of_accounts = {
        (namespace, name)
        for (namespace, _), account in accounts.items()
        for item in Field(account)["imagePullSecrets"]
        if (name := item["name"].text())
    }
    return [PULL_SECRET, *sorted((of_modules | of_accounts) - {PULL_SECRET})]


def _secrets(api: ReadApi, keys: Iterable[Key]) -> dict[Key, Manifest]:
    read = ((key, api.get(SECRETS, key[1], key[0])) for key in keys)
    return {key: secret for key, secret in read if secret}


def _with_mirrors(api: ReadApi, inventory: Inventory) -> Inventory:
    for kind in (DIGEST_MIRRORS, TAG_MIRRORS, CONTENT_POLICIES):
        mirrors, assumed = _optional(partial(api.list, kind), kind, "no such mirrors are assumed")
        inventory = replace(
            inventory,
            mirrors=(*inventory.mirrors, *(mirrors or ())),
            assumed=(*inventory.assumed, *assumed),
        )
    return inventory


def _with_policies(api: ReadApi, inventory: Inventory) -> Inventory:
    """Return the inventory with the policies that require signatures of images, in the version that is served."""
    for kind, older, name in _POLICIES:
        policies, assumed = _optional(partial(api.list, kind), kind, f"no {name} is assumed")
        if policies is None and not assumed:
            policies, assumed = _optional(partial(api.list, older), older, f"no {name} is assumed")
        inventory = replace(
            inventory,
            image_policies=(*inventory.image_policies, *({**policy, "kind": name} for policy in policies or ())),
            assumed=(*inventory.assumed, *assumed),
        )
    return inventory


def _with_trust(api: ReadApi, inventory: Inventory) -> Inventory:
    """Return the inventory with the image configuration and the ConfigMap of certificates that it names."""
    read = partial(api.get, IMAGE_CONFIGS, "cluster")
    config, assumed = _optional(read, IMAGE_CONFIGS, "no registry settings are assumed")
    inventory = replace(inventory, image_config=config, assumed=(*inventory.assumed, *assumed))
    name = _trusted_config_map(config) if config else None
    return _with_authorities(api, inventory, name, "no additional certificate authorities") if name else inventory


def _with_proxy(api: ReadApi, inventory: Inventory) -> Inventory:
    """Return the inventory with the proxy, and the ConfigMaps of certificates for every registry."""
    read = partial(api.get, PROXIES, "cluster")
    proxy, assumed = _optional(read, PROXIES, "no proxy of the nodes and no trustedCA are assumed")
    inventory = replace(inventory, proxy=proxy, assumed=(*inventory.assumed, *assumed))
    for name in trusted_config_maps(proxy) if proxy else ():  # every OpenShift cluster has one proxy object
        if (_CONFIG_NAMESPACE, name) not in inventory.config_maps:
            inventory = _with_authorities(api, inventory, name, "no certificate authorities for every registry")
    return inventory


def _with_authorities(api: ReadApi, inventory: Inventory, name: str, instead: str) -> Inventory:
    """Return the inventory with a ConfigMap of certificate authorities."""
    read = partial(api.get, CONFIG_MAPS, name, _CONFIG_NAMESPACE)
    config_map, assumed = _optional(read, CONFIG_MAPS, f"{instead} are assumed")
    more = {(_CONFIG_NAMESPACE, name): config_map} if config_map else {}
    return replace(inventory, config_maps={**inventory.config_maps, **more}, assumed=(*inventory.assumed, *assumed))


def _trusted_config_map(config: Manifest) -> str | None:
    try:
        return Field(config).walk("spec", "additionalTrustedCA", "name").optional_text()
    except Malformed as exc:
        raise Malformed(f"{IMAGE_CONFIGS.resource} cluster: {exc.message}") from exc


def _optional(read: Callable[[], _T], kind: ResourceKind, instead: str) -> tuple[_T | None, tuple[str, ...]]:
    """Return what was read. If it is forbidden, return None and a sentence about the assumption."""
    try:
        return read(), ()
    except Forbidden as exc:
        return None, (f"{instead}, because {kind.resource} could not be read: {exc.message}",)


def _key(manifest: Manifest) -> Key:
    metadata = Field(manifest)["metadata"]
    return metadata["namespace"].text(), metadata["name"].text()
