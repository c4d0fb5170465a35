"""Scopes as a cluster's registry settings have them: host[:port][/path[:tag or @digest]], or *.host."""

from __future__ import annotations

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.oci.reference import Reference

WILDCARD = "*."


def parse_scope(field: Field, wildcard: bool = True) -> str:
    """The scope in a field; Malformed when it is none."""
    expected = "host[:port][/path]" + (", or *.host" if wildcard else "")
    text = field.present(expected).text()
    name = text.removeprefix(WILDCARD) if wildcard else text
    if not name or "*" in name or name.strip() != name or name[0] in "/:" or (name != text and "/" in name):
        raise field.refuse(expected)
    return text.rstrip("/")


def in_scope(scope: str, reference: Reference) -> bool:
    """Whether the name lies in a scope of registries.conf; *.host means subdomains of any depth, and not host itself.

    host means every port of it, too: containers' sysregistriesv2 calls that unintended, and does it.
    """
    if scope.startswith(WILDCARD):
        return bare_host(reference).endswith(scope[1:])
    name = str(reference)
    return name == scope or name.startswith((f"{scope}/", f"{scope}:", f"{scope}@"))


def in_policy_scope(scope: str, reference: Reference) -> bool:
    """Whether the name lies in a scope of policy.json, where a host with a port is another host."""
    return in_scope(scope, reference) and not (scope == bare_host(reference) != reference.host)


def bare_host(reference: Reference) -> str:
    """The host without its port."""
    host, colon, port = reference.host.rpartition(":")
    return host if colon and port.isdigit() else reference.host


def weight(scope: str) -> tuple[bool, int]:
    """How exact a scope is, to be compared: any other one before a wildcard, then the longer one."""
    return not scope.startswith(WILDCARD), len(scope)
