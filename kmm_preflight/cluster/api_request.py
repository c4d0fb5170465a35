"""A request to a Kubernetes API server: method, path, query and body."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from kmm_preflight.cluster.api import ResourceKind
from kmm_preflight.model import Manifest

JSON = "application/json"


@dataclass(frozen=True)
class ApiRequest:
    """A request to the API server."""

    verb: str
    """The verb in RBAC rules, such as list."""
    kind: ResourceKind
    """The resource."""
    method: str
    """The HTTP method."""
    path: str
    """The path of the URL."""
    query: tuple[tuple[str, str], ...] = ()
    """Parameters of the URL."""
    body: Manifest | None = None
    """The object to send."""
    accept: str = JSON
    """Accepted media types of the answer."""
    subresource: str | None = None
    """The subresource in RBAC rules, such as log."""

    @property
    def words(self) -> str:
        """Verb and resource, as in RBAC rules."""
        subresource = f"/{self.subresource}" if self.subresource else ""
        return f"{self.verb} {self.kind.resource}{subresource}"


def group_path(kind: ResourceKind) -> str:
    """Return the path of the resource's group and version."""
    return f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"


def object_path(kind: ResourceKind, namespace: str | None, name: str | None = None) -> str:
    """Return the path of an object. Without a name, return the path of all objects."""
    in_namespace = f"/namespaces/{quote(namespace, safe='')}" if kind.namespaced and namespace else ""
    return f"{group_path(kind)}{in_namespace}/{kind.plural}" + (f"/{quote(name, safe='')}" if name else "")
