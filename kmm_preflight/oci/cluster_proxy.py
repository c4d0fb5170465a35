"""proxy.config.openshift.io/cluster: the proxy of the nodes, and the CAs that nodes trust for every registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.model import Manifest
from kmm_preflight.oci.authorities import authorities
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.proxy import Proxy
from kmm_preflight.oci.registries import CONFIG_NAMESPACE

OBJECT = "proxy.config.openshift.io cluster"
INSTALLED_BUNDLE = "user-ca-bundle"
"""The additionalTrustBundle of the installation. Nodes trust it even if trustedCA does not name it (MCO, sync.go)."""

_BUNDLE = "ca-bundle.crt"
# oc's must-gather writes this instead of a proxy's password.
_ELIDED = b":****"


def trusted_config_maps(proxy: Manifest | None) -> tuple[str, ...]:
    """Return the ConfigMaps of openshift-config whose CAs nodes trust, trustedCA's last. Raise Malformed."""
    name = _text(proxy or {}, "spec", "trustedCA", "name")
    return tuple(dict.fromkeys((INSTALLED_BUNDLE, name or INSTALLED_BUNDLE)))


def with_cluster_proxy(
    network: Network, proxy: Manifest | None, config_maps: Mapping[tuple[str, str], Manifest]
) -> tuple[Network, tuple[str, ...]]:
    """Return the network with the CAs of the cluster's nodes, and with their proxy if the environment sets no proxy.

    Also return notes: the proxy that is used, and CAs that are missing. Raise UsageProblem with the field of an
    invalid address.
    """
    try:
        trusted, missing = _trusted(trusted_config_maps(proxy), config_maps)
        proxies, notes = ({}, ()) if proxy is None or network.sets_proxies else _proxies(proxy)
    except Malformed as exc:
        raise UsageProblem(exc.message) from exc
    return replace(network, authorities=trusted, proxies={**network.proxies, **proxies}), (*missing, *notes)


def _trusted(names: Iterable[str], config_maps: Mapping[tuple[str, str], Manifest]) -> tuple[str, tuple[str, ...]]:
    """Return the trusted CAs as PEM, and notes about ConfigMaps that should have CAs and have no CA."""
    trusted, missing = "", []
    for name in names:
        config_map = config_maps.get((CONFIG_NAMESPACE, name))
        pem = authorities(config_map or {}).get(_BUNDLE, "")
        trusted += pem
        subject = f"no CA is trusted from ConfigMap {CONFIG_NAMESPACE}/{name}"
        if config_map and not pem:
            missing.append(f"{subject}: its {_BUNDLE} has no PEM certificate")
        elif not pem and name != INSTALLED_BUNDLE:
            missing.append(f"{subject}, the trustedCA of {OBJECT}: it was not given")
    return trusted, tuple(missing)


def _proxies(config: Manifest) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return proxies by the keys of the environment, and notes. Read the status, or the spec if there is no status."""
    section = "spec" if config.get("status") is None else "status"
    address = _text(config, section, "httpsProxy")
    if not address:
        return {}, ()
    try:
        proxy = Proxy.parse(address)
    except Malformed as exc:
        raise Malformed(f"{OBJECT}, {section}.httpsProxy: {exc.message}") from exc
    elided = proxy.login is not None and proxy.login.endswith(_ELIDED)
    note = (
        f"requests to registries use the proxy {proxy.host} of {OBJECT}, since the environment sets no proxy "
        f"(NO_PROXY=* switches it off){'; its password is elided there, so set HTTPS_PROXY' if elided else ''}"
    )
    return {"https": address, "no": _text(config, section, "noProxy")}, (note,)


def _text(config: Manifest, *keys: str) -> str:
    """Return the text of a field, empty if absent. Unlike errors of Field, the error here does not show the value."""
    value: object = config
    for depth, key in enumerate(keys):
        if not isinstance(value, dict | None):
            raise Malformed(f"{OBJECT}, {'.'.join(keys[:depth])}: the value is not a mapping")
        value = (value or {}).get(key)
    if not isinstance(value, str | None):
        raise Malformed(f"{OBJECT}, {'.'.join(keys)}: the value is not text")
    return value or ""
