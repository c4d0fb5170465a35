"""The kernel that an OS image's own package lists name, read from the small layers at its top and from no other.

A node image ends with a layer that lists its packages. An extensions image ends with a layer that lists its RPMs;
older ones have the RPMs themselves (docs/reference/openshift.md 3.1, 3.2). A layer on top of a list may have changed
the kernel, so that such a list is not believed.
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
"""The files whose bytes are read."""

NODE_LAYER_BYTES = 8 << 20
# The RPMs are one layer of some 300 MB: until 4.18 nothing else names them, and some builds put the list in with them.
EXTENSIONS_LAYER_BYTES = 512 << 20
LAYERS = 4
LIST_BYTES = 4 << 20
PACKAGES = 20_000
_RPMS = ("usr/share/rpm-ostree/extensions", "extensions")  # the second in machine-os-content
# What Red Hat's builds say of themselves; those of 4.22 say it behind the list of packages (openshift/os#1938).
_METADATA = ("usr/share/buildinfo/", "root/buildinfo/", "usr/share/openshift/")
_EPOCH = re.compile(r"\d+:")


class NotListed(Exception):
    """No list at the top of the image names one kernel; why is a sentence part with got and expected."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


@dataclass(frozen=True)
class ListedKernel:
    """version-release.arch of a kernel's package, and the path that names it. A flavour's suffix is no part of it."""

    version: str
    place: str


def node_kernel(image: Image) -> ListedKernel:
    """The kernel of a node image: kernel-core of its package list. NotListed, Malformed, or what reading raises."""
    for number, index in _top_layers(image, NODE_LAYER_BYTES, NODE_LIST):
        if entry := index.find(NODE_LIST):
            return _one(_parsed(image, entry, number, _node_versions), "kernel-core", NODE_LIST)
        _refuse_content(index, NODE_LIST)
    raise NotListed(f"got no layer with /{NODE_LIST}, expected one at its top")


def extension_kernel(image: Image, package: str) -> ListedKernel:
    """The kernel of a package that an extensions image offers. NotListed, Malformed, or what reading raises."""
    for number, index in _top_layers(image, EXTENSIONS_LAYER_BYTES, EXTENSIONS_LIST):
        if entry := index.find(EXTENSIONS_LIST):
            versions = _parsed(image, entry, number, partial(extension_versions, package=package))
            return _one(versions, package, EXTENSIONS_LIST)
        for folder in _RPMS:
            if names := [one.path.rpartition("/")[2] for one in index.below(folder) if one.path.endswith(".rpm")]:
                return _one(rpm_versions(names, package), package, folder)
        _refuse_content(index, EXTENSIONS_LIST)
    raise NotListed(f"got no layer with /{EXTENSIONS_LIST} or RPMs, expected one at its top")


def _node_versions(document: Field) -> set[str]:
    return package_versions(document, "kernel-core") or package_versions(document, "kernel")


def package_versions(document: Field, package: str) -> set[str]:
    """The versions of a package in meta.json. Malformed for another shape, BoundExceeded for too many packages."""
    packages = document["rpmdb.pkglist"].present("a list of packages")
    if len(packages.items()) > PACKAGES:
        raise BoundExceeded(f"{packages.path}: more than {PACKAGES} packages")
    found = set()
    for one in packages:
        parts = one.items()
        if len(parts) != 5:
            raise one.refuse("name, epoch, version, release and architecture")
        name, _, version, release, arch = parts  # the epoch, text or number, is no part of a kernel's name
        if name.text() == package:
            found.add(f"{version.text()}-{release.text()}.{arch.text()}")
    return found


def extension_versions(document: Field, package: str) -> set[str]:
    """The version of a package in extensions.json, [epoch:]version-release.arch; Malformed when it is no text."""
    version = document[package].text()
    return {_EPOCH.sub("", version, count=1)} if version else set()


def rpm_versions(names: list[str], package: str) -> set[str]:
    """The versions of a package by the names of RPM files; kernel-rt-core-debug is another package."""
    start = f"{package}-"
    versions = (name.removeprefix(start).removesuffix(".rpm") for name in names if name.startswith(start))
    return {version for version in versions if looks_like_kernel(version)}


def _one(versions: set[str], package: str, place: str) -> ListedKernel:
    if len(versions) != 1:
        raise NotListed(f"got {listed(sorted(versions))} as {package} in /{place}, expected one kernel")
    (version,) = versions
    if not looks_like_kernel(version):
        raise NotListed(f"got {version[:80]!r} as {package} in /{place}, expected a kernel version")
    return ListedKernel(version, place)


def _top_layers(image: Image, most: int, expected: str) -> Iterator[tuple[int, LayerIndex]]:
    """Layers from the top (0) as long as they are small; NotListed for one of more bytes in transfer, unread."""
    for number, descriptor in enumerate(reversed(image.resolved.manifest.layers[-LAYERS:])):
        if descriptor.size > most:
            size = f"{descriptor.size / (1 << 20):.0f} MiB"
            raise NotListed(f"got a layer of {size} at its top, which is not read, expected one with /{expected}")
        yield number, image.open_layer(descriptor)


def _refuse_content(index: LayerIndex, expected: str) -> None:
    """NotListed unless the layer has nothing that could make another image of the one below it."""
    for entry in index.below(""):
        hides = entry.path.rpartition("/")[2].startswith(WHITEOUT)
        if hides or (entry.kind is not EntryKind.FOLDER and not entry.path.startswith(_METADATA)):
            raise NotListed(f"got a layer with /{entry.path[:200]} at its top, expected one with /{expected}")


def _parsed(image: Image, entry: LayerEntry, layer: int, versions: Callable[[Field], set[str]]) -> set[str]:
    """What a list names; NotListed when it is none that is read, Malformed with its name when it is damaged."""
    if entry.kind is not EntryKind.FILE or entry.size > LIST_BYTES:
        raise NotListed(f"got no file of at most {LIST_BYTES >> 20} MiB as /{entry.path}, expected a list")
    body = image.content(Located(entry.path, entry, layer)).read_bytes()
    try:
        return versions(parse_json(body, "document"))
    except Malformed as exc:
        raise Malformed(f"/{entry.path} of image {image.resolved.name}: {exc.message}") from exc
