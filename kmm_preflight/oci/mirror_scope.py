"""Scopes in a cluster's registry settings: host[:port][/path[:tag or @digest]], or *.host."""

from __future__ import annotations

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.oci.reference import Reference

WILDCARD = "*."


def parse_scope(field: Field, wildcard: bool = True) -> str:
    """Return the scope in a field. Raise Malformed."""
    expected = "host[:port][/path]" + (", or *.host" if wildcard else "")
    text = field.present(expected).text()
    name = text.removeprefix(WILDCARD) if wildcard else text
    if not name or "*" in name or name.strip() != name or name[0] in "/:" or (name != text and "/" in name):
        raise field.refuse(expected)
    return text.rstrip("/")


def in_scope(scope: str, reference: Reference) -> bool:
    """True if the name is in a scope of registries.conf. *.host means subdomains of any depth, but not host itself.

    host includes all its ports: containers' sysregistriesv2 does this, and calls it unintended.
    """
    if scope.startswith(WILDCARD):
        return bare_host(reference).endswith(scope[1:])
    name = str(reference)
    return name == scope or name.startswith((f"{scope}/", f"{scope}:", f"{scope}@"))


def in_policy_scope(scope: str, reference: Reference) -> bool:
    """True if the name is in a scope of policy.json. There a host with a port is a different host."""
    return in_scope(scope, reference) and not (scope == bare_host(reference) != reference.host)


def bare_host(reference: Reference) -> str:
    """Return the host without its port."""
    host, colon, port = reference.host.rpartition(":")
    return host if colon and port.isdigit() else reference.host


def weight(scope: str) -> tuple[bool, int]:
    """Return the precision of a scope, for comparisons. A wildcard is least precise, a longer scope more precise."""
    return not scope.startswith(WILDCARD), len(scope)
