"""The inventory of a live cluster: all its Modules, and of the rest only what they need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.api import (
    CONFIG_MAPS,
    CONTENT_POLICIES,
    DIGEST_MIRRORS,
    IMAGE_CONFIGS,
    MODULES,
    PROXIES,
    SECRETS,
    SERVICE_ACCOUNTS,
    TAG_MIRRORS,
    Forbidden,
    ReadApi,
    ResourceKind,
)
from kmm_preflight.cluster.fleet import read_fleet
from kmm_preflight.cluster.inventory import BUILD_ACCOUNT, NODE_ACCOUNT, PULL_SECRET, Inventory, Key
from kmm_preflight.errors import Malformed
from kmm_preflight.model import Manifest, ModuleName
from kmm_preflight.oci.cluster_proxy import trusted_config_maps
from kmm_preflight.planning.module import Module, RefusedModule, has_case, parse_module

_CONFIG_NAMESPACE = "openshift-config"
_T = TypeVar("_T")


def read_cluster(api: ReadApi) -> Inventory:
    """The inventory: pages of Modules and accounts, then each Secret that they name once, mirrors and trust.

    Where no Module loads a kmod only the Modules are asked for. What is optional and forbidden is told in `assumed`.
    """
    listed = api.list(MODULES)
    inventory = Inventory(source=f"the cluster {api.server}", live=True)
    if listed is None:
        said = f"{inventory.source} serves no {MODULES.resource}: KMM is not installed there"
        return replace(inventory, assumed=(said,))
    modules, refused = _parsed(listed)
    inventory = replace(inventory, modules=modules, refused=refused)
    judged = [module for module in modules if module.container and not module.deleting]
    if not judged:
        return inventory
    accounts = _accounts(api, {module.name.namespace for module in judged if not module.secret})
    inventory = replace(inventory, service_accounts=accounts, secrets=_secrets(api, _named(judged, accounts)))
    return _with_proxy(api, _with_trust(api, _with_mirrors(api, inventory)))


def with_fleet(api: ReadApi, inventory: Inventory) -> Inventory:
    """The inventory with nodes and pools, where a Module has a case: else nothing depends on them."""
    if not any(has_case(one) for one in inventory.every()):
        return inventory
    return replace(inventory, fleet=read_fleet(api))


def with_sources(api: ReadApi, inventory: Inventory, config_maps: Iterable[Key], secrets: Iterable[Key]) -> Inventory:
    """The inventory with these ConfigMaps and Secrets too, each asked for once."""
    maps = {key: api.get(CONFIG_MAPS, key[1], key[0]) for key in sorted(set(config_maps) - set(inventory.config_maps))}
    found = {key: one for key, one in maps.items() if one}
    more = _secrets(api, sorted(set(secrets) - set(inventory.secrets)))
    return replace(inventory, config_maps={**inventory.config_maps, **found}, secrets={**inventory.secrets, **more})


def with_builders(api: ReadApi, inventory: Inventory, namespaces: Collection[str]) -> Inventory:
    """The inventory with the accounts of builds of these namespaces, where they have one, and their Secrets."""
    accounts: dict[Key, Manifest] = {}
    for namespace in sorted(namespaces):
        ask = partial(api.get, SERVICE_ACCOUNTS, BUILD_ACCOUNT, namespace)
        found, assumed = _optional(ask, SERVICE_ACCOUNTS, f"no login of builds in namespace {namespace}")
        inventory = replace(inventory, assumed=(*inventory.assumed, *assumed))
        accounts |= {(namespace, BUILD_ACCOUNT): found} if found else {}
    named = {
        (namespace, name)
        for (namespace, _), account in accounts.items()
        for part in ("imagePullSecrets", "secrets")
        for item in Field(account)[part]
        if (name := item["name"].text())
    }
    secrets = _secrets(api, sorted(named - set(inventory.secrets)))
    return replace(
        inventory,
        service_accounts={**inventory.service_accounts, **accounts},
        secrets={**inventory.secrets, **secrets},
    )


@dataclass(frozen=True)
class ModuleChanges:
    """What became of Modules that have a case, since they were listed; changed has the generation of now.

    leaving ones are still there, and being deleted.
    """

    appeared: tuple[ModuleName, ...] = ()
    changed: Mapping[ModuleName, int] = field(default_factory=dict)
    leaving: frozenset[ModuleName] = frozenset()
    gone: frozenset[ModuleName] = frozenset()


def changes_since(api: ReadApi, inventory: Inventory) -> ModuleChanges:
    """The Modules of the cluster against those of the inventory."""
    modules, refused = _parsed(api.list(MODULES) or ())
    before = {one.name: one for one in inventory.every()}
    now = {one.name: one for one in Inventory(modules, refused=refused).every()}
    loading = {name for name, one in now.items() if has_case(one)}
    judged = {name for name, one in before.items() if has_case(one)}
    same = {name for name in judged & loading if _identity(before[name]) == _identity(now[name])}
    return ModuleChanges(
        appeared=tuple(sorted(loading - judged)),
        changed={name: now[name].generation for name in sorted(judged & loading - same)},
        leaving=frozenset((judged & set(now)) - loading),
        gone=frozenset(set(before) - set(now)),
    )


Snapshot = dict[str, str]
"""Versions by kind and name, such as "Module ns/a"; "" for what is not there."""


def snapshot(api: ReadApi, unverified: Collection[ModuleName]) -> Snapshot:
    """What verdicts may change with: all Modules, and the ConfigMaps and Secrets that the unverified ones name."""
    modules, refused = _parsed(api.list(MODULES) or ())
    every = Inventory(modules, refused=refused).every()
    seen = {f"Module {one.name}": f"{one.uid} {one.generation} {has_case(one)}" for one in every}
    watched = [module for module in modules if module.name in unverified and has_case(module)]
    if not watched:
        return seen
    accounts = _accounts(api, {module.name.namespace for module in watched if not module.secret})
    secrets = {*_named(watched, accounts), *(key for module in watched for key in module.build_and_sign_secrets())}
    config_maps = {key for module in watched for key in module.dockerfiles()}
    for kind, word, keys in ((SECRETS, "Secret", secrets), (CONFIG_MAPS, "ConfigMap", config_maps)):
        with suppress(Forbidden):  # what may be read is looked at all the same
            seen |= {f"{word} {'/'.join(key)}": _version(api, kind, key) for key in sorted(keys)}
    return seen


def _version(api: ReadApi, kind: ResourceKind, key: Key) -> str:
    manifest = api.get(kind, key[1], key[0], metadata_only=True)
    return Field(manifest)["metadata"]["resourceVersion"].text() if manifest else ""


def _identity(module: Module | RefusedModule) -> tuple[str | None, int]:
    return module.uid, module.generation


def _parsed(listed: Iterable[Manifest]) -> tuple[tuple[Module, ...], tuple[RefusedModule, ...]]:
    modules, refused = [], []
    for manifest in listed:
        try:
            modules.append(parse_module(manifest, ""))
        except Malformed as exc:
            metadata = Field(manifest)["metadata"]
            name = ModuleName(metadata["namespace"].text(), metadata["name"].text())
            uid, generation = metadata["uid"].text(), metadata["generation"].number()
            refused.append(RefusedModule(name, exc.message, metadata["deletionTimestamp"].given, uid, generation))
    return tuple(sorted(modules, key=lambda one: one.name)), tuple(sorted(refused, key=lambda one: one.name))


def _accounts(api: ReadApi, namespaces: set[str]) -> dict[Key, Manifest]:
    """The accounts of these namespaces: asked by one list of that name, whatever their number."""
    if not namespaces:
        return {}
    found = ((_key(manifest), manifest) for manifest in api.list(SERVICE_ACCOUNTS, name=NODE_ACCOUNT) or ())
    return {key: manifest for key, manifest in found if key[0] in namespaces}


def _named(modules: Iterable[Module], accounts: dict[Key, Manifest]) -> list[Key]:
    """The Secrets to read: the nodes' own, then those that Modules and accounts name, each once."""
    own = {(module.name.namespace, module.secret) for module in modules if module.secret}
    theirs = {
        (namespace, name)
        for (namespace, _), account in accounts.items()
        for item in Field(account)["imagePullSecrets"]
        if (name := item["name"].text())
    }
    return [PULL_SECRET, *sorted((own | theirs) - {PULL_SECRET})]


def _secrets(api: ReadApi, keys: Iterable[Key]) -> dict[Key, Manifest]:
    read = ((key, api.get(SECRETS, key[1], key[0])) for key in keys)
    return {key: secret for key, secret in read if secret}


def _with_mirrors(api: ReadApi, inventory: Inventory) -> Inventory:
    for kind in (DIGEST_MIRRORS, TAG_MIRRORS, CONTENT_POLICIES):
        found, assumed = _optional(partial(api.list, kind), kind, "no such mirrors")
        inventory = replace(
            inventory,
            mirrors=(*inventory.mirrors, *(found or ())),
            assumed=(*inventory.assumed, *assumed),
        )
    return inventory


def _with_trust(api: ReadApi, inventory: Inventory) -> Inventory:
    """The image configuration of the cluster, and the ConfigMap of certificate authorities that it names."""
    config, assumed = _optional(partial(api.get, IMAGE_CONFIGS, "cluster"), IMAGE_CONFIGS, "no registry settings")
    inventory = replace(inventory, image_config=config, assumed=(*inventory.assumed, *assumed))
    name = _trusted(config) if config else ""
    if not name:
        return inventory
    ask = partial(api.get, CONFIG_MAPS, name, _CONFIG_NAMESPACE)
    found, assumed = _optional(ask, CONFIG_MAPS, "no additional certificate authorities")
    config_maps = {(_CONFIG_NAMESPACE, name): found} if found else {}
    return replace(inventory, config_maps=config_maps, assumed=(*inventory.assumed, *assumed))


def _with_proxy(api: ReadApi, inventory: Inventory) -> Inventory:
    """The proxy of the nodes, and the ConfigMaps of certificate authorities that they trust for every registry."""
    proxy, assumed = _optional(partial(api.get, PROXIES, "cluster"), PROXIES, "no proxy of the nodes, and no trustedCA")
    inventory = replace(inventory, proxy=proxy, assumed=(*inventory.assumed, *assumed))
    for name in trusted_config_maps(proxy) if proxy else ():  # every OpenShift has one
        key = (_CONFIG_NAMESPACE, name)
        if key not in inventory.config_maps:
            ask = partial(api.get, CONFIG_MAPS, name, _CONFIG_NAMESPACE)
            found, assumed = _optional(ask, CONFIG_MAPS, "no certificate authorities for every registry")
            config_maps = {**inventory.config_maps, **({key: found} if found else {})}
            inventory = replace(inventory, config_maps=config_maps, assumed=(*inventory.assumed, *assumed))
    return inventory


def _trusted(config: Manifest) -> str:
    try:
        return Field(config).walk("spec", "additionalTrustedCA", "name").text()
    except Malformed as exc:
        raise Malformed(f"{IMAGE_CONFIGS.resource} cluster: {exc.message}") from exc


def _optional(ask: Callable[[], _T], kind: ResourceKind, instead: str) -> tuple[_T | None, tuple[str, ...]]:
    """What was asked for; None with words when the account may not ask for it."""
    try:
        return ask(), ()
    except Forbidden as exc:
        return None, (f"{instead}, because {kind.resource} could not be read: {exc.message}",)


def _key(manifest: Manifest) -> Key:
    metadata = Field(manifest)["metadata"]
    return metadata["namespace"].text(), metadata["name"].text()
