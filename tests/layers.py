"""Layers of an image without a registry: their file system, and the bytes of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.document import Descriptor
from kmm_preflight.oci.filesystem import FileSystem, Layer, Located
from kmm_preflight.oci.index import LayerIndex
from kmm_preflight.oci.layers import KeepRules, ReadBudget, scan
from kmm_preflight.worker.program import ImageFiles

from .real.layout import OCI_LAYER, Member, layer


def image_files(layers: Sequence[Sequence[Member]], folder: Path, search_path: str | None = None) -> ImageFiles:
    """Return the image of these layers, base first. folder: a cache for the layers."""
    cache = Cache(folder)
    opened = [_opened(members, cache) for members in layers]

    def content(located: Located) -> Path:
        assert located.entry.content, located
        path = cache.file(located.entry.content)
        assert path, located
        return path

    return ImageFiles(FileSystem([_layer(index) for index in reversed(opened)]), content, search_path)


def _layer(index: LayerIndex) -> Layer:
    return Layer(lambda: index)


def _opened(members: Sequence[Member], cache: Cache) -> LayerIndex:
    blob, names = layer(members, OCI_LAYER), {member.name.strip("/") for member in members}
    descriptor = Descriptor(blob.media_type, blob.digest, len(blob.data))
    return scan(descriptor, iter([blob.data]), KeepRules(frozenset(names)), cache, ReadBudget())
