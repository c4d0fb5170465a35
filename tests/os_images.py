"""Images of an OS as releases have them: package lists in small layers on top of a large one."""

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
"""What stands below the lists, and need not be fetched."""
Tags = Mapping[str, str]


def references(tags: Tags, sources: Tags = {}) -> bytes:  # noqa: B006
    """image-references with the tags; sources has the repository of some."""
    listed = [
        {"name": name, "annotations": {SOURCE: sources.get(name, "")}, "from": {"kind": "DockerImage", "name": spec}}
        for name, spec in {"etcd": "x", **tags}.items()
    ]
    return json.dumps({"kind": "ImageStream", "metadata": {"name": "4.99.0"}, "spec": {"tags": listed}}).encode()


def release(tags: Tags, sources: Tags = {}, architecture: str = "amd64") -> Image:  # noqa: B006
    """A release image with these tags."""
    return image([layer([(IMAGE_REFERENCES, references(tags, sources))])], architecture)


def toolkit(kernel: str, rt: str = "", stream: str = "", architecture: str = "amd64", *more: Member) -> Image:
    """A driver toolkit of a kernel."""
    rhel = kernel.partition(".el")[2][:1].replace("1", "10") + ".6"
    named = json.dumps({"KERNEL_VERSION": kernel, "RT_KERNEL_VERSION": rt, "RHEL_VERSION": rhel}).encode()
    labels = {STREAM_LABEL: stream} if stream else {}
    return image([layer([Member(TOOLKIT_RELEASE, named), *more])], architecture, labels)


def package_list(*kernels: str, package: str = "kernel-core") -> bytes:
    """meta.json with packages of these versions among others, as rpm lists them: an epoch is text, none a number."""
    packages: list[list[object]] = [["NetworkManager", "1", "1.52.0", "3.el9_6", "x86_64"]]
    for kernel in kernels:
        version, _, rest = kernel.partition("-")
        release, _, arch = rest.rpartition(".")
        packages.append([package, 0, version, release, arch])
    return json.dumps({"rpmdb.pkglist": packages}).encode()


def node_image(*layers: Blob, stream: str = "", architecture: str = "amd64", **labels: str) -> Image:
    """A node image of these layers on top of its OS; a label's name is written with _ for its points."""
    told = {name.replace("_", "."): value for name, value in labels.items()} | METALAYER
    told |= {STREAM_LABEL: stream, "containers.bootc": "1"} if stream else {}
    return image([OS, *layers], architecture, told)


def node_list(*kernels: str) -> Blob:
    """The layer that a node image ends with."""
    return layer([(NODE_LIST, package_list(*kernels))])


def extensions_image(*layers: Blob, stream: str = "", architecture: str = "amd64") -> Image:
    """An extensions image of these layers on top of its RPMs."""
    labels = {STREAM_LABEL: stream, "io.openshift.os.extensions": "true"} if stream else {}
    return image([OS, rpm_layer("usbguard-1.0.0-16.el9.x86_64"), *layers], architecture, labels)


def extensions_list(**packages: str) -> Blob:
    """The layer that an extensions image ends with; a package's name is written with _ for its hyphens."""
    listed = {name.replace("_", "-"): version for name, version in packages.items()}
    return layer([(EXTENSIONS_LIST, json.dumps({"usbguard": "1.0.0-16.el9.x86_64", **listed}).encode())])


def rpm_layer(*names: str, folder: str = RPMS) -> Blob:
    """RPM files, and their repository's metadata beside them."""
    members: Sequence[Member] = [Member(f"{folder}/{name}.rpm", b"rpm") for name in names]
    return layer([*members, (f"{folder}/repodata/repomd.xml", b"<repomd/>")])
