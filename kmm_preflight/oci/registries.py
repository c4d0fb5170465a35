"""How the nodes of a cluster reach registries: mirrors, what is forbidden, what may be insecure, whom to trust."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.model import VERIFIED_HTTPS, Manifest, RegistryTLS
from kmm_preflight.oci.authorities import authorities
from kmm_preflight.oci.mirror_scope import in_policy_scope, in_scope, parse_scope
from kmm_preflight.oci.mirrors import Mirrors, PullSource, parse_mirrors
from kmm_preflight.oci.reference import Reference
from kmm_preflight.text import listed

CONFIG_NAMESPACE = "openshift-config"

_T = TypeVar("_T")
_ANY = RegistryTLS(insecure=True, insecure_skip_tls_verify=True)


@dataclass(frozen=True)
class Registries:
    """Without a cluster: no mirrors, nothing forbidden, nobody trusted in addition. authorities are PEM by host[:port].

    allowed counts only where it holds something.
    """

    mirrors: Mirrors = field(default_factory=Mirrors)
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    authorities: Mapping[str, str] = field(default_factory=dict)

    def refusal(self, reference: Reference) -> str:
        """Why no node pulls this name, wherever a mirror has it; "" when it may."""
        scope = next((scope for scope in self.blocked if in_scope(scope, reference)), "")
        if scope:
            return f"image {reference}: {scope} is in blockedRegistries of image.config.openshift.io/cluster"
        if self.allowed and not any(in_policy_scope(scope, reference) for scope in self.allowed):
            allowed = f"allowedRegistries of image.config.openshift.io/cluster ({listed(list(self.allowed))})"
            return f"image {reference}: the name is not in {allowed}"
        return ""

    def mirror_refusal(self, source: PullSource) -> str:
        """Why nodes do not ask this mirror, although it is one; "" when they do."""
        if not source.mirror:
            return ""
        scopes = [scope for scope in self.blocked if in_scope(scope, source.reference)]
        if never := self.mirrors.never(source.reference):
            scopes.append(never)
        return f"image {source.reference}: the mirror lies in {scopes[0]}, which nodes do not ask" if scopes else ""

    def tls(self, source: PullSource, of_module: RegistryTLS) -> RegistryTLS:
        """How the place may be asked: the Module's settings are for the name that it gives, and not for mirrors."""
        if any(in_scope(scope, source.reference) for scope in self.insecure):
            return _ANY
        return VERIFIED_HTTPS if source.mirror else of_module


def parse_registries(
    mirrors: Iterable[Manifest], config: Manifest | None, config_maps: Mapping[tuple[str, str], Manifest]
) -> Registries:
    """From IDMS, ITMS and ICSP objects and image.config.openshift.io/cluster; UsageProblem names object and field."""
    rules = tuple(rule for manifest in mirrors for rule in _of(manifest, parse_mirrors))
    registries = Registries(Mirrors(rules))
    if config is None:
        return registries
    allowed, blocked, insecure = _of(config, _sources)
    name = _of(config, _trusted)
    trusted = config_maps.get((CONFIG_NAMESPACE, name)) if name else None
    return Registries(registries.mirrors, allowed, blocked, insecure, _authorities(trusted or {}))


def _of(manifest: Manifest, parse: Callable[[Manifest], _T]) -> _T:
    try:
        return parse(manifest)
    except Malformed as exc:
        raise UsageProblem(f"{manifest.get('kind')} {_name(manifest)}: {exc.message}") from exc


def _name(manifest: Manifest) -> object:
    metadata = manifest.get("metadata")
    return metadata.get("name") if isinstance(metadata, dict) else "without a name"


def _sources(config: Manifest) -> tuple[tuple[str, ...], ...]:
    sources = Field(config).walk("spec", "registrySources")
    keys = ("allowedRegistries", "blockedRegistries", "insecureRegistries")
    return tuple(tuple(parse_scope(item) for item in sources[key]) for key in keys)


def _trusted(config: Manifest) -> str:
    return Field(config).walk("spec", "additionalTrustedCA", "name").text()


def _authorities(config_map: Manifest) -> dict[str, str]:
    """PEM by host[:port]."""
    # A colon cannot stand in a ConfigMap's key.
    return {key.replace("..", ":"): pem for key, pem in authorities(config_map).items()}
