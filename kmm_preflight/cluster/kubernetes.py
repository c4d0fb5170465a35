"""A Kubernetes API server as Api: verbs become HTTP requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kmm_preflight.cluster.api import PODS, Conflict, ResourceKind
from kmm_preflight.cluster.api_errors import ListExpired
from kmm_preflight.cluster.api_request import JSON, ApiRequest, group_path, object_path
from kmm_preflight.cluster.stream import TROUBLE, StreamRefused, message_of
from kmm_preflight.cluster.transport import Transport
from kmm_preflight.errors import Malformed, NotFound, Unreachable
from kmm_preflight.model import Manifest

PAGE = 500
RESTARTS = 3
LOG_SECONDS = 5.0
# managedFields have this name for the fields that this suite wrote.
_AS_US = (("fieldManager", "kmm-preflight"),)
_METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_ANYTHING = f"{JSON}, */*"


class KubernetesApi:
    """An API server. Its methods are documented in Api."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._transport.server

    def serves(self, kind: ResourceKind) -> bool:
        """True if the server has this resource in this version."""
        try:
            answer = self._transport.read(ApiRequest("get", kind, "GET", group_path(kind)))
        except NotFound:
            return False
        return any(resource.get("name") == kind.plural for resource in answer.get("resources") or ())

    def list(
        self, kind: ResourceKind, namespace: str | None = None, name: str | None = None, labels: str | None = None
    ) -> tuple[Manifest, ...] | None:
        """Return the objects of a kind. If a list expires between two pages, read all pages again."""
        selectors = {"fieldSelector": f"metadata.name={name}" if name else None, "labelSelector": labels}
        query = tuple((key, value) for key, value in selectors.items() if value)
        for _ in range(RESTARTS):
            try:
                return self._pages(kind, namespace, query)
            except ListExpired:
                continue  # other pages would be of another snapshot
            except NotFound:
                return None
        subject = f"API server {self.server}: list {kind.resource}"
        raise Unreachable(f"{subject}: the list expired {RESTARTS} times while it was read; run again")

    def _pages(
        self, kind: ResourceKind, namespace: str | None, selectors: tuple[tuple[str, str], ...]
    ) -> tuple[Manifest, ...]:
        items: list[Manifest] = []
        query = (("limit", str(PAGE)), *selectors)
        following: str | None = None
        while True:
            of_page = (*query, ("continue", following)) if following else query
            page = self._transport.read(ApiRequest("list", kind, "GET", object_path(kind, namespace), of_page))
            # Items of a list have no apiVersion and no kind of their own.
            head = {"apiVersion": page.get("apiVersion"), "kind": str(page.get("kind", "")).removesuffix("List")}
            items += ({**head, **item} for item in page.get("items") or ())
            following = (page.get("metadata") or {}).get("continue") or None
            if following is None:
                return tuple(items)

    def get(
        self, kind: ResourceKind, name: str, namespace: str | None = None, metadata_only: bool = False
    ) -> Manifest | None:
        """Return the object, or None if it does not exist."""
        accept = _METADATA if metadata_only else JSON
        try:
            return self._transport.read(
                ApiRequest("get", kind, "GET", object_path(kind, namespace, name), accept=accept)
            )
        except NotFound:
            return None

    def create(self, kind: ResourceKind, manifest: Manifest, namespace: str | None = None) -> Manifest:
        """Create an object. Return it as the server stored it."""
        path = object_path(kind, namespace)
        return self._transport.read(ApiRequest("create", kind, "POST", path, _AS_US, manifest))

    def delete(self, kind: ResourceKind, name: str, namespace: str | None = None, uid: str | None = None) -> None:
        """Delete the object if it exists and has this uid."""
        options: dict[str, object] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        body = {**options, "preconditions": {"uid": uid}} if uid else options
        try:
            self._transport.read(ApiRequest("delete", kind, "DELETE", object_path(kind, namespace, name), body=body))
        except (NotFound, Conflict):  # the object was deleted already, or another object has its name now
            return

    def log(
        self, pod: str, namespace: str, most: int, last_lines: int | None = None, container: str | None = None
    ) -> bytes:
        """Return the first bytes of a container's log, or of its last lines."""
        lines = (("tailLines", str(last_lines)),) if last_lines else ()
        path = f"{object_path(PODS, namespace, pod)}/log"
        query = (("limitBytes", str(most)), *lines, *_container(container))
        request = ApiRequest("get", PODS, "GET", path, query, accept=_ANYTHING, subresource="log")
        try:
            return self._transport.send(request, min(LOG_SECONDS, self._transport.seconds))[:most]
        except (NotFound, Malformed):  # the Pod does not exist any more, or its container has not started
            return b""

    def execute(
        self, pod: str, namespace: str, command: Sequence[str], most: int, container: str | None = None
    ) -> Iterator[bytes]:
        """Run a command in a container. Yield pieces of its standard output."""
        words = tuple(("command", word) for word in command)
        path = f"{object_path(PODS, namespace, pod)}/exec"
        query = (("stdout", "true"), ("stderr", "true"), *_container(container), *words)
        request = ApiRequest("get", PODS, "GET", path, query, subresource="exec")
        stream = self._transport.stream(request, f"Pod {namespace}/{pod}: {' '.join(command)}")
        try:
            yield from stream.output(most)
        except StreamRefused as exc:
            raise self._transport.refusal(request, exc.status, message_of(exc.body)) from exc
        except TROUBLE as exc:
            raise self._transport.failure(exc) from exc

    def patch(
        self, kind: ResourceKind, name: str, body: Manifest, subresource: str | None = None, dry_run: bool = False
    ) -> Manifest:
        """Apply a JSON merge patch to a cluster-wide object and return the object."""
        path = object_path(kind, None, name) + (f"/{subresource}" if subresource else "")
        query = (*_AS_US, ("dryRun", "All")) if dry_run else _AS_US
        return self._transport.read(ApiRequest("patch", kind, "PATCH", path, query, body))


def _container(name: str | None) -> tuple[tuple[str, str], ...]:
    return (("container", name),) if name else ()
