"""Layers as the suite reads them, without a registry: the file system that they make, and the bytes of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.document import Descriptor
from kmm_preflight.oci.filesystem import FileSystem, Layer, Located
from kmm_preflight.oci.index import LayerIndex
from kmm_preflight.oci.layers import KeepRules, ReadBudget, scan
from kmm_preflight.worker.program import ImageFiles

from .real.layout import OCI_LAYER, Blob, Member, layer


def image_files(layers: Sequence[Sequence[Member]], folder: Path, search_path: str = "") -> ImageFiles:
    """The image of layers, base first; the folder takes what is kept of them."""
    cache = Cache(folder)
    opened = [_opened(layer(members, OCI_LAYER), {one.name.strip("/") for one in members}, cache) for members in layers]

    def content(located: Located) -> Path:
        path = cache.file(located.entry.content)
        assert path, located
        return path

    return ImageFiles(FileSystem([_layer(index) for index in reversed(opened)]), content, search_path)


def _layer(index: LayerIndex) -> Layer:
    return Layer(lambda: index)


def _opened(blob: Blob, names: set[str], cache: Cache) -> LayerIndex:
    descriptor = Descriptor(blob.media_type, blob.digest, len(blob.data))
    return scan(descriptor, iter([blob.data]), KeepRules(frozenset(names)), cache, ReadBudget())
