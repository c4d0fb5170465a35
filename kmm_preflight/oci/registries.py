"""The registry settings of a cluster's nodes: mirrors, allowed, blocked and insecure registries, and CAs."""

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
    """The registry settings of nodes. The defaults are for a run without a cluster: no mirrors, no limits, no CAs."""

    mirrors: Mirrors = field(default_factory=Mirrors)
    """The mirrors."""
    allowed: tuple[str, ...] = ()
    """Scopes of allowed names; if empty, every name is allowed."""
    blocked: tuple[str, ...] = ()
    """Scopes of blocked names."""
    insecure: tuple[str, ...] = ()
    """Scopes that allow plain HTTP and any certificate."""
    authorities: Mapping[str, str] = field(default_factory=dict)
    """CAs in PEM by host[:port]."""

    def refusal(self, reference: Reference) -> str | None:
        """Return why no node pulls this name, even from a mirror, or None."""
        scope = next((scope for scope in self.blocked if in_scope(scope, reference)), None)
        if scope:
            return f"image {reference}: {scope} is in blockedRegistries of image.config.openshift.io/cluster"
        if self.allowed and not any(in_policy_scope(scope, reference) for scope in self.allowed):
            allowed = f"allowedRegistries of image.config.openshift.io/cluster ({listed(list(self.allowed))})"
            return f"image {reference}: the name is not in {allowed}"
        return None

    def mirror_refusal(self, source: PullSource) -> str | None:
        """Return why nodes do not pull from this mirror, or None. None for the name itself."""
        if not source.mirror:
            return None
        scopes = [scope for scope in self.blocked if in_scope(scope, source.reference)]
        if never := self.mirrors.never(source.reference):
            scopes.append(never)
        if not scopes:
            return None
        return f"image {source.reference}: the mirror is in {scopes[0]}, from which nodes do not pull"

    def tls(self, source: PullSource, of_image: RegistryTLS) -> RegistryTLS:
        """Return the TLS settings for a source. The settings of the image apply to its own name, not to mirrors."""
        if any(in_scope(scope, source.reference) for scope in self.insecure):
            return _ANY
        return VERIFIED_HTTPS if source.mirror else of_image


def parse_registries(
    mirrors: Iterable[Manifest], config: Manifest | None, config_maps: Mapping[tuple[str, str], Manifest]
) -> Registries:
    """Parse IDMS, ITMS and ICSP objects and image.config.openshift.io/cluster. Raise UsageProblem."""
    rules = tuple(rule for manifest in mirrors for rule in _parsed(manifest, parse_mirrors))
    registries = Registries(Mirrors(rules))
    if config is None:
        return registries
    allowed, blocked, insecure = _parsed(config, _sources)
    name = _parsed(config, _trusted)
    trusted = config_maps.get((CONFIG_NAMESPACE, name)) if name else None
    return Registries(registries.mirrors, allowed, blocked, insecure, _authorities(trusted or {}))


def _parsed(manifest: Manifest, parse: Callable[[Manifest], _T]) -> _T:
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


def _trusted(config: Manifest) -> str | None:
    return Field(config).walk("spec", "additionalTrustedCA", "name").optional_text()


def _authorities(config_map: Manifest) -> dict[str, str]:
    """Return PEM by host[:port]."""
    # The key of a ConfigMap cannot contain a colon.
    return {key.replace("..", ":"): pem for key, pem in authorities(config_map).items()}
