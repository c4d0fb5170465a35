"""API server in memory, for rules that need few objects and no server's behaviour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.api import Conflict, ResourceKind
from kmm_preflight.model import Manifest


class MemoryApi:
    """Objects by kind, namespace and name. Reads, creates and lists; the methods of Pods and patches are absent."""

    server = "https://memory.example:6443"

    def __init__(self, *served: ResourceKind) -> None:
        self.objects: dict[tuple[str, str, str], Manifest] = {}
        self._served = served

    def add(self, kind: ResourceKind, manifest: Manifest) -> None:
        """Store an object."""
        self.objects[self._key(kind, manifest)] = manifest

    def serves(self, kind: ResourceKind) -> bool:
        """True if the kind was named when the server was made."""
        return kind in self._served

    def list(
        self, kind: ResourceKind, namespace: str | None = None, name: str | None = None, labels: str | None = None
    ) -> tuple[Manifest, ...] | None:
        """Return the objects of a kind, of a namespace or a name."""
        assert not labels
        return tuple(
            manifest
            for (resource, in_namespace, called), manifest in self.objects.items()
            if resource == kind.resource and namespace in (None, in_namespace) and name in (None, called)
        )

    def get(
        self, kind: ResourceKind, name: str, namespace: str | None = None, metadata_only: bool = False
    ) -> Manifest | None:
        """Return an object, or None."""
        return self.objects.get((kind.resource, namespace or "", name))

    def create(self, kind: ResourceKind, manifest: Manifest, namespace: str | None = None) -> Manifest:
        """Store a new object with a uid. Raise Conflict if the name is taken."""
        key = self._key(kind, manifest)
        if key in self.objects:
            raise Conflict(f"{kind.resource} {key[2]} exists")
        metadata = Field(manifest)["metadata"].mapping()
        created = {**manifest, "metadata": {**metadata, "uid": f"uid-{key[2]}"}}
        self.objects[key] = created
        return created

    def delete(self, kind: ResourceKind, name: str, namespace: str | None = None, uid: str | None = None) -> None:
        """Delete an object."""
        self.objects.pop((kind.resource, namespace or "", name), None)

    def log(
        self, pod: str, namespace: str, most: int, last_lines: int | None = None, container: str | None = None
    ) -> bytes:
        """Raise: no Pod runs here."""
        raise NotImplementedError

    def execute(
        self, pod: str, namespace: str, command: Sequence[str], most: int, container: str | None = None
    ) -> Iterator[bytes]:
        """Raise: no Pod runs here."""
        raise NotImplementedError

    def patch(
        self, kind: ResourceKind, name: str, body: Manifest, subresource: str | None = None, dry_run: bool = False
    ) -> Manifest:
        """Raise: a merge patch needs a server."""
        raise NotImplementedError

    def _key(self, kind: ResourceKind, manifest: Manifest) -> tuple[str, str, str]:
        metadata = Field(manifest)["metadata"]
        return kind.resource, metadata["namespace"].text(), metadata["name"].text()
