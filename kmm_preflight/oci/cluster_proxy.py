"""What proxy.config.openshift.io/cluster gives the nodes: a proxy, and certificate authorities for every registry."""

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
"""The additionalTrustBundle of the installation; nodes trust it whether trustedCA names it or not (MCO, sync.go)."""

_BUNDLE = "ca-bundle.crt"
# What oc's must-gather writes in place of a proxy's password.
_ELIDED = b":****"


def trusted_config_maps(proxy: Manifest | None) -> tuple[str, ...]:
    """The ConfigMaps of openshift-config whose authorities nodes trust, trustedCA's last; Malformed names the field."""
    named = _text(proxy or {}, "spec", "trustedCA", "name")
    return tuple(dict.fromkeys((INSTALLED_BUNDLE, named or INSTALLED_BUNDLE)))


def with_cluster_proxy(
    network: Network, proxy: Manifest | None, config_maps: Mapping[tuple[str, str], Manifest]
) -> tuple[Network, tuple[str, ...]]:
    """The network with what the cluster's nodes trust, and with their proxy where the environment names none.

    With it come words about what was taken, or could not be. UsageProblem names the field of an address that is none.
    """
    try:
        trusted, missed = _trusted(trusted_config_maps(proxy), config_maps)
        proxies, taken = ({}, ()) if proxy is None or network.sets_proxies else _proxies(proxy)
    except Malformed as exc:
        raise UsageProblem(exc.message) from exc
    return replace(network, authorities=trusted, proxies={**network.proxies, **proxies}), (*missed, *taken)


def _trusted(names: Iterable[str], config_maps: Mapping[tuple[str, str], Manifest]) -> tuple[str, tuple[str, ...]]:
    """PEM of all that is trusted; words for a ConfigMap that should give some and does not."""
    trusted, missed = "", []
    for name in names:
        config_map = config_maps.get((CONFIG_NAMESPACE, name))
        pem = authorities(config_map or {}).get(_BUNDLE, "")
        trusted += pem
        subject = f"nobody is trusted for ConfigMap {CONFIG_NAMESPACE}/{name}"
        if config_map and not pem:
            missed.append(f"{subject}: its {_BUNDLE} has no PEM certificate")
        elif not pem and name != INSTALLED_BUNDLE:
            missed.append(f"{subject}, the trustedCA of {OBJECT}: it is not at hand")
    return trusted, tuple(missed)


def _proxies(config: Manifest) -> tuple[dict[str, str], tuple[str, ...]]:
    """Proxies as the environment would name them. The status is what nodes have; without one, the spec is taken."""
    section = "spec" if config.get("status") is None else "status"
    address = _text(config, section, "httpsProxy")
    if not address:
        return {}, ()
    try:
        proxy = Proxy.parse(address)
    except Malformed as exc:
        raise Malformed(f"{OBJECT}, {section}.httpsProxy: {exc.message}") from exc
    elided = "; its password is elided there, so name the proxy in HTTPS_PROXY" if proxy.login.endswith(_ELIDED) else ""
    said = (
        f"registries are asked through the proxy {proxy.host}, taken from {OBJECT} since the environment names none "
        f"(NO_PROXY=* switches it off){elided}"
    )
    return {"https": address, "no": _text(config, section, "noProxy")}, (said,)


def _text(config: Manifest, *keys: str) -> str:
    """The text of a field, "" when absent; its refusal does not show what stands there, unlike Field's."""
    value: object = config
    for depth, key in enumerate(keys):
        if not isinstance(value, dict | None):
            raise Malformed(f"{OBJECT}, {'.'.join(keys[:depth])}: got something that is no mapping, expected one")
        value = (value or {}).get(key)
    if not isinstance(value, str | None):
        raise Malformed(f"{OBJECT}, {'.'.join(keys)}: got something that is no text, expected text")
    return value or ""
