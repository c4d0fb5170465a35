"""Media types of manifests, as containers/image takes them (docs/reference/openshift.md 5.5)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kmm_preflight.errors import Malformed

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
SIGNED_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
MANIFEST_TYPES = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, SIGNED_SCHEMA_1, SCHEMA_1)
INDEXES = (OCI_INDEX, DOCKER_LIST)
DOCKER_LAYERS = (
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
)

# Fields that only one form of a manifest has. A manifest of one type with a field of another type is refused.
_FIELDS = {
    OCI_INDEX: ("manifests",),
    DOCKER_LIST: ("manifests",),
    OCI_MANIFEST: ("config", "layers"),
    DOCKER_MANIFEST: ("config", "layers"),
    SCHEMA_1: ("fsLayers", "history"),
    SIGNED_SCHEMA_1: ("fsLayers", "history"),
}
_ALL_FIELDS = {"manifests", "config", "layers", "fsLayers", "history"}


def answered_type(content_type: str) -> str:
    """Return the media type by which a node reads a manifest with this Content-Type.

    A node takes every unknown type, also text/plain and application/json, for schema 1.
    """
    bare = content_type.partition(";")[0].strip().lower()
    return bare if bare in MANIFEST_TYPES else SIGNED_SCHEMA_1


def guessed_type(document: Mapping[str, object]) -> str:
    """Return the media type of a manifest that comes without a Content-Type: by its fields and its mediaType."""
    named = document.get("mediaType")
    if document.get("manifests") is not None:
        return DOCKER_LIST if named == DOCKER_LIST else OCI_INDEX
    if document.get("schemaVersion") == 1 and document.get("fsLayers") is not None:
        return SIGNED_SCHEMA_1
    return DOCKER_MANIFEST if named == DOCKER_MANIFEST else OCI_MANIFEST


def check_fields(given: Collection[str], media_type: str) -> None:
    """Raise Malformed if a manifest of the type has fields of another type."""
    foreign = sorted(_ALL_FIELDS & set(given) - set(_FIELDS[media_type]))
    if foreign:
        raise Malformed(f"its Content-Type is {media_type}, and it has the fields {', '.join(foreign)} of another type")
