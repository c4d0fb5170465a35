"""Layers of an OS image with the files of a real kernel: plain layers, or layers of an ostree container."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial

from .kernels import in_tree, vmlinuz
from .kmod import headers
from .layout import OCI_LAYER, Blob, Member, hardlink, layer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": partial(gzip.compress, compresslevel=1),
    "xz": partial(lzma.compress, preset=0),
    "zst": zstd.compress,
}


@cache
def kernel_files(release: str, form: str = "gz") -> Mapping[str, bytes]:
    """Map paths below usr/lib/modules/RELEASE to a kernel's own files.

    form: the suffix of the compressed Module.symvers.
    """
    lists = sorted(in_tree(release).glob("modules.*"))
    kmods = sorted(in_tree(release).glob("kernel/lib/*.ko*"))[:2]
    symvers = (headers(release) / "Module.symvers").read_bytes()
    return {
        "vmlinuz": vmlinuz(release).read_bytes(),
        "config": (vmlinuz(release).parent / f"config-{release}").read_bytes(),
        f"symvers.{form}": PACKED[form](symvers),
        **{str(path.relative_to(in_tree(release))): path.read_bytes() for path in (*lists, *kmods)},
    }


def plain_layer(release: str, files: Mapping[str, bytes]) -> Blob:
    """Return a layer with the files under their own names."""
    return layer([Member(f"usr/lib/modules/{release}/{name}", content) for name, content in files.items()], OCI_LAYER)


def ostree_layer(release: str, files: Mapping[str, bytes]) -> Blob:
    """Return a layer with the files as objects of an ostree repository, each followed by a hard link with its name."""
    members = []
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        place = f"sysroot/ostree/repo/objects/{digest[:2]}/{digest[2:]}.file"
        members += [Member(place, content), hardlink(f"usr/lib/modules/{release}/{name}", place)]
    return layer(members, OCI_LAYER)
