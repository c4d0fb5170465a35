"""OS images as in releases: package lists in small layers above a large layer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from kmm_preflight.release.driver_toolkit import TOOLKIT_RELEASE
from kmm_preflight.release.image_references import IMAGE_REFERENCES
from kmm_preflight.release.os_image import SOURCE, STREAM_LABEL
from kmm_preflight.release.packages import EXTENSIONS_LIST, NODE_LIST

from .real.layout import Blob, Image, Member, image, layer

METALAYER = {"io.openshift.metalayer": "true"}
RPMS = "usr/share/rpm-ostree/extensions"
OS = layer([("usr/lib/os-release", b"ID=rhel\n"), ("usr/lib/modules/k/vmlinuz", b"vmlinuz" * 999)])
"""The layer below the lists. No test needs its bytes."""
Tags = Mapping[str, str]


def references(tags: Tags, sources: Tags = {}) -> bytes:  # noqa: B006
    """Return image-references with the tags. sources has the source repository of some tags."""
    listed = [
        {"name": name, "annotations": {SOURCE: sources.get(name, "")}, "from": {"kind": "DockerImage", "name": spec}}
        for name, spec in {"etcd": "x", **tags}.items()
    ]
    return json.dumps({"kind": "ImageStream", "metadata": {"name": "4.99.0"}, "spec": {"tags": listed}}).encode()


def release(tags: Tags, sources: Tags = {}, architecture: str = "amd64") -> Image:  # noqa: B006
    """Return a release image with these tags."""
    return image([layer([(IMAGE_REFERENCES, references(tags, sources))])], architecture)


def toolkit(kernel: str, rt: str = "", stream: str = "", architecture: str = "amd64", *more: Member) -> Image:
    """Return a driver toolkit of a kernel."""
    rhel = kernel.partition(".el")[2][:1].replace("1", "10") + ".6"
    named = json.dumps({"KERNEL_VERSION": kernel, "RT_KERNEL_VERSION": rt, "RHEL_VERSION": rhel}).encode()
    labels = {STREAM_LABEL: stream} if stream else {}
    return image([layer([Member(TOOLKIT_RELEASE, named), *more])], architecture, labels)


def package_list(*kernels: str, package: str = "kernel-core") -> bytes:
    """Return meta.json with these versions of a package and another package, as rpm lists them.

    An epoch is a text. If a package has no epoch, rpm writes the number 0.
    """
    packages: list[list[object]] = [["NetworkManager", "1", "1.52.0", "3.el9_6", "x86_64"]]
    for kernel in kernels:
        version, _, rest = kernel.partition("-")
        release, _, arch = rest.rpartition(".")
        packages.append([package, 0, version, release, arch])
    return json.dumps({"rpmdb.pkglist": packages}).encode()


def node_image(*layers: Blob, stream: str = "", architecture: str = "amd64", **labels: str) -> Image:
    """Return a node image with these layers above its OS. Write the name of a label with _ for its points."""
    all_labels = {name.replace("_", "."): value for name, value in labels.items()} | METALAYER
    all_labels |= {STREAM_LABEL: stream, "containers.bootc": "1"} if stream else {}
    return image([OS, *layers], architecture, all_labels)


def node_list(*kernels: str) -> Blob:
    """Return the last layer of a node image."""
    return layer([(NODE_LIST, package_list(*kernels))])


def extensions_image(*layers: Blob, stream: str = "", architecture: str = "amd64") -> Image:
    """Return an extensions image with these layers above its RPMs."""
    labels = {STREAM_LABEL: stream, "io.openshift.os.extensions": "true"} if stream else {}
    return image([OS, rpm_layer("usbguard-1.0.0-16.el9.x86_64"), *layers], architecture, labels)


def extensions_list(**packages: str) -> Blob:
    """Return the last layer of an extensions image. Write the name of a package with _ for its hyphens."""
    listed = {name.replace("_", "-"): version for name, version in packages.items()}
    return layer([(EXTENSIONS_LIST, json.dumps({"usbguard": "1.0.0-16.el9.x86_64", **listed}).encode())])


def rpm_layer(*names: str, folder: str = RPMS) -> Blob:
    """Return a layer with RPM files and the metadata of their repository."""
    members: Sequence[Member] = [Member(f"{folder}/{name}.rpm", b"rpm") for name in names]
    return layer([*members, (f"{folder}/repodata/repomd.xml", b"<repomd/>")])
