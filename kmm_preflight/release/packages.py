"""The kernel that an OS image's package lists name. Only the small layers at the top of the image are read.

The last layer of a node image lists its packages. The last layer of an extensions image lists its RPMs, in older
images it has the RPMs themselves (docs/reference/openshift.md 3.1, 3.2). A layer above a list may change the kernel, so
the list is not used then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kernel_version import looks_like_kernel
from kmm_preflight.oci.document import parse_json
from kmm_preflight.oci.filesystem import WHITEOUT, Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.index import LayerEntry, LayerIndex
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.text import listed

NODE_LIST = "usr/share/openshift/base/meta.json"
EXTENSIONS_LIST = "usr/share/rpm-ostree/extensions.json"
LISTS = frozenset({NODE_LIST, EXTENSIONS_LIST})
"""Files whose bytes are read."""

NODE_LAYER_BYTES = 8 << 20
# The RPMs are one layer of about 300 MB. Until 4.18 only the RPMs name the kernels. Some builds add the list to their
# layer.
EXTENSIONS_LAYER_BYTES = 512 << 20
LAYERS = 4
LIST_BYTES = 4 << 20
PACKAGES = 20_000
_RPMS = ("usr/share/rpm-ostree/extensions", "extensions")  # the second in machine-os-content
# Metadata of Red Hat's builds. In 4.22 its layer is above the list of packages (openshift/os#1938).
_METADATA = ("usr/share/buildinfo/", "root/buildinfo/", "usr/share/openshift/")
_EPOCH = re.compile(r"\d+:")


class NotListed(Exception):
    """No list at the top of the image names exactly one kernel."""

    def __init__(self, reason: str) -> None:
        """Take the reason as a part of a sentence."""
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class ListedKernel:
    """The kernel that a list names."""

    version: str
    """version-release.arch of the kernel's package, without the suffix of its flavour."""
    path: str
    """The path in the image of the list, or of the folder with the RPMs."""


def node_kernel(image: Image) -> ListedKernel:
    """Return the kernel of a node image: kernel-core of its package list. Raise NotListed or Malformed."""
    for number, index in _top_layers(image, NODE_LAYER_BYTES, NODE_LIST):
        if entry := index.find(NODE_LIST):
            return _only_kernel(_read_list(image, entry, number, _node_versions), "kernel-core", NODE_LIST)
        _check_no_content(index, NODE_LIST)
    raise NotListed(f"no layer with /{NODE_LIST} at its top")


def extension_kernel(image: Image, package: str) -> ListedKernel:
    """Return the kernel of a package in an extensions image. Raise NotListed or Malformed."""
    for number, index in _top_layers(image, EXTENSIONS_LAYER_BYTES, EXTENSIONS_LIST):
        if entry := index.find(EXTENSIONS_LIST):
            versions = _read_list(image, entry, number, partial(extension_versions, package=package))
            return _only_kernel(versions, package, EXTENSIONS_LIST)
        for folder in _RPMS:
            paths = [entry.path for entry in index.below(folder) if entry.path.endswith(".rpm")]
            if paths:
                return _only_kernel(rpm_versions([path.rpartition("/")[2] for path in paths], package), package, folder)
        _check_no_content(index, EXTENSIONS_LIST)
    raise NotListed(f"no layer with /{EXTENSIONS_LIST} or RPMs at its top")


def _node_versions(document: Field) -> set[str]:
    return package_versions(document, "kernel-core") or package_versions(document, "kernel")


def package_versions(document: Field, package: str) -> set[str]:
    """Return the versions of a package in meta.json. Raise BoundExceeded for too many packages."""
    packages = document["rpmdb.pkglist"].present("a list of packages")
    if len(packages.items()) > PACKAGES:
        raise BoundExceeded(f"{packages.path}: more than {PACKAGES} packages")
    versions = set()
    for fields in packages:
        parts = fields.items()
        if len(parts) != 5:
            raise fields.refuse("name, epoch, version, release and architecture")
        name, _, version, release, arch = parts  # the name of a kernel has no epoch
        if name.text() == package:
            versions.add(f"{version.text()}-{release.text()}.{arch.text()}")
    return versions


def extension_versions(document: Field, package: str) -> set[str]:
    """Return the version of a package in extensions.json as version-release.arch. The file may add an epoch."""
    version = document[package].optional_text()
    return {_EPOCH.sub("", version, count=1)} if version else set()


def rpm_versions(names: list[str], package: str) -> set[str]:
    """Return the versions of a package by the names of RPM files. kernel-rt-core-debug is another package."""
    start = f"{package}-"
    versions = (name.removeprefix(start).removesuffix(".rpm") for name in names if name.startswith(start))
    return {version for version in versions if looks_like_kernel(version)}


def _only_kernel(versions: set[str], package: str, path: str) -> ListedKernel:
    if len(versions) != 1:
        raise NotListed(f"/{path} lists {listed(sorted(versions))} as {package}, expected one kernel")
    (version,) = versions
    if not looks_like_kernel(version):
        raise NotListed(f"/{path} lists {version[:80]!r} as {package}, expected a kernel version")
    return ListedKernel(version, path)


def _top_layers(image: Image, most: int, expected: str) -> Iterator[tuple[int, LayerIndex]]:
    """Yield layers with their numbers, from the top (0). Raise NotListed at a layer with more compressed bytes."""
    for number, descriptor in enumerate(reversed(image.resolved.manifest.layers[-LAYERS:])):
        if descriptor.size > most:
            size = f"{descriptor.size / (1 << 20):.0f} MiB"
            raise NotListed(f"a layer of {size} is at its top and was not read, expected a layer with /{expected}")
        yield number, image.open_layer(descriptor)


def _check_no_content(index: LayerIndex, expected: str) -> None:
    """Raise NotListed if the layer changes files of the layers below it. Folders and metadata are no change."""
    for entry in index.below(""):
        hides = entry.path.rpartition("/")[2].startswith(WHITEOUT)
        if hides or (entry.kind is not EntryKind.FOLDER and not entry.path.startswith(_METADATA)):
            raise NotListed(f"a layer with /{entry.path[:200]} is at its top, expected a layer with /{expected}")


def _read_list(image: Image, entry: LayerEntry, layer: int, versions: Callable[[Field], set[str]]) -> set[str]:
    """Return the versions in a list. Raise NotListed if it is not a small file, Malformed if it is damaged."""
    if entry.kind is not EntryKind.FILE or entry.size > LIST_BYTES:
        raise NotListed(f"/{entry.path} is not a file of at most {LIST_BYTES >> 20} MiB")
    body = image.content(Located(entry.path, entry, layer)).read_bytes()
    try:
        return versions(parse_json(body, "document"))
    except Malformed as exc:
        raise Malformed(f"/{entry.path} of image {image.resolved.name}: {exc.message}") from exc
