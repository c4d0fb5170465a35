"""The inventory of a live cluster: all its Modules, and of the rest only what they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from kmm_preflight.cluster.api import (
    CONFIG_MAPS,
    CONTENT_POLICIES,
    DIGEST_MIRRORS,
    IMAGE_CONFIGS,
    MODULES,
    SECRETS,
    SERVICE_ACCOUNTS,
    TAG_MIRRORS,
    Api,
    Forbidden,
    Kind,
)
from kmm_preflight.cluster.inventory import NODE_ACCOUNT, PULL_SECRET, Inventory, Key, Refused
from kmm_preflight.errors import Malformed
from kmm_preflight.fields import Field
from kmm_preflight.model import Manifest, ModuleName
from kmm_preflight.module import Module, parse_module

_CONFIG_NAMESPACE = "openshift-config"
_T = TypeVar("_T")


def read_cluster(api: Api) -> Inventory:
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
    return _with_trust(api, _with_mirrors(api, inventory))


def _parsed(listed: Iterable[Manifest]) -> tuple[tuple[Module, ...], tuple[Refused, ...]]:
    modules, refused = [], []
    for manifest in listed:
        try:
            modules.append(parse_module(manifest, ""))
        except Malformed as exc:
            metadata = Field(manifest)["metadata"]
            name = ModuleName(metadata["namespace"].text(), metadata["name"].text())
            refused.append(Refused(name, exc.message, metadata["deletionTimestamp"].given))
    return tuple(sorted(modules, key=lambda one: one.name)), tuple(sorted(refused, key=lambda one: one.name))


def _accounts(api: Api, namespaces: set[str]) -> dict[Key, Manifest]:
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


def _secrets(api: Api, keys: Iterable[Key]) -> dict[Key, Manifest]:
    read = ((key, api.get(SECRETS, key[1], key[0])) for key in keys)
    return {key: secret for key, secret in read if secret}


def _with_mirrors(api: Api, inventory: Inventory) -> Inventory:
    for kind in (DIGEST_MIRRORS, TAG_MIRRORS, CONTENT_POLICIES):
        found, assumed = _optional(partial(api.list, kind), kind, "no such mirrors")
        inventory = replace(
            inventory,
            mirrors=(*inventory.mirrors, *(found or ())),
            assumed=(*inventory.assumed, *assumed),
        )
    return inventory


def _with_trust(api: Api, inventory: Inventory) -> Inventory:
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


def _trusted(config: Manifest) -> str:
    try:
        return Field(config).walk("spec", "additionalTrustedCA", "name").text()
    except Malformed as exc:
        raise Malformed(f"{IMAGE_CONFIGS.resource} cluster: {exc.message}") from exc


def _optional(ask: Callable[[], _T], kind: Kind, instead: str) -> tuple[_T | None, tuple[str, ...]]:
    """What was asked for; None with words when the account may not ask for it."""
    try:
        return ask(), ()
    except Forbidden as exc:
        return None, (f"{instead}, because {kind.resource} could not be read: {exc.message}",)


def _key(manifest: Manifest) -> Key:
    metadata = Field(manifest)["metadata"]
    return metadata["namespace"].text(), metadata["name"].text()
