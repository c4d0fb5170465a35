"""Package lists at the top of an OS image: which kernel they name, and when they are not believed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.model import VERIFIED_HTTPS
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.image import Image as Read
from kmm_preflight.oci.layers import KeepRules
from kmm_preflight.oci.reference import LayoutReference, Reference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.release.packages import (
    EXTENSIONS_LIST,
    LIST_BYTES,
    LISTS,
    NODE_LIST,
    PACKAGES,
    ListedKernel,
    NotListed,
    extension_kernel,
    extension_versions,
    node_kernel,
    package_versions,
    rpm_versions,
)

from .os_images import OS, RPMS, extensions_image, extensions_list, node_image, node_list, package_list, rpm_layer
from .real.build import buildah_image
from .real.layout import OCI_LAYER, Blob, Image, Member, folder, image, layer, symlink, write_layout
from .real.registry import Registry

KERNEL, OTHER = "5.14.0-570.19.1.el9_6.x86_64", "5.14.0-570.21.1.el9_6.x86_64"
OLD_RT = "5.14.0-284.30.1.rt14.315.el9_2.x86_64"
RT, PAGES_64K = "kernel-rt-core", "kernel-64k-core"
BUILD = layer([folder("usr"), ("usr/share/buildinfo/labels.json", b"{}"), ("root/buildinfo/sets.json", b"{}")])
LARGE = layer([("usr/share/large", os.urandom(9 << 20))], OCI_LAYER)


def _read(tmp_path: Path, one: Image, kernel: Callable[[Read], ListedKernel] = node_kernel) -> ListedKernel:
    layout = LayoutReference(write_layout(tmp_path / "layout", {"host.example/os:1": one}), "", archive=False)
    images = ImageResolver(Network(), Cache(tmp_path / "cache"), layout, KeepRules(paths=LISTS))
    return kernel(images.image(Reference.parse("host.example/os:1"), None, PullCredentials(), VERIFIED_HTTPS))


def _listed(*layers: Blob) -> Image:
    return node_image(*layers)


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(_listed(node_list(KERNEL)), id="last layer"),
        pytest.param(_listed(node_list(OTHER), node_list(KERNEL)), id="the upper of two"),
        pytest.param(_listed(node_list(KERNEL), BUILD), id="labels in a layer of their own"),
        pytest.param(_listed(node_list(KERNEL), layer([])), id="below an empty layer"),
        pytest.param(image([OS, node_list(KERNEL)]), id="without the label"),
        pytest.param(_listed(layer([(NODE_LIST, package_list(KERNEL, package="kernel"))])), id="kernel alone"),
        pytest.param(_listed(layer([Member("./" + NODE_LIST, package_list(KERNEL, KERNEL))])), id="twice the same"),
    ],
)
def test_node_kernel(tmp_path: Path, one: Image) -> None:
    assert _read(tmp_path, one) == ListedKernel(KERNEL, NODE_LIST)


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([], f"got a layer with /usr/lib/modules/k/vmlinuz at its top, expected one with /{NODE_LIST}"),
        ([layer([])] * 4, f"got no layer with /{NODE_LIST}, expected one at its top"),
        ([node_list(KERNEL), layer([("etc/motd", b"")])], "got a layer with /etc/motd at its top"),
        (
            [node_list(KERNEL), layer([("usr/share/openshift/base/.wh.meta.json", b"")])],
            "got a layer with /usr/share/openshift/base/.wh.meta.json at its top",
        ),
        ([node_list(KERNEL), LARGE], "got a layer of 9 MiB at its top, which is not read"),
        ([layer([symlink(NODE_LIST, "../x")])], f"got no file of at most 4 MiB as /{NODE_LIST}"),
        ([layer([(NODE_LIST, b" " * (LIST_BYTES + 1))])], f"got no file of at most 4 MiB as /{NODE_LIST}"),
        ([node_list(KERNEL, OTHER)], f"got {KERNEL}, {OTHER} as kernel-core in /{NODE_LIST}, expected one kernel"),
        ([node_list()], f"got nothing as kernel-core in /{NODE_LIST}, expected one kernel"),
        ([node_list("k-\x1b[2J.x")], f"got 'k-\\x1b[2J.x' as kernel-core in /{NODE_LIST}, expected a kernel version"),
    ],
    ids=["no list", "deep", "a layer added", "list removed", "large", "a link", "endless", "two", "none", "no kernel"],
)
def test_not_listed(tmp_path: Path, layers: Sequence[Blob], why: str) -> None:
    with pytest.raises(NotListed) as caught:
        _read(tmp_path, _listed(*layers))
    assert caught.value.why.startswith(why)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "got no JSON object"),
        (b'{"rpmdb.pkglist": [["kernel-co', "got no JSON object"),
        (b"[" * 100_000, "got no JSON object"),
        (b"[]", "document: got a list of 0, expected a mapping"),
        (b"{}", "rpmdb.pkglist: missing, expected a list of packages"),
        (b'{"rpmdb.pkglist": {}}', "rpmdb.pkglist: got a mapping, expected a list"),
        (b'{"rpmdb.pkglist": [7]}', "rpmdb.pkglist[0]: got number 7, expected a list"),
        (b'{"rpmdb.pkglist": [["a"]]}', "rpmdb.pkglist[0]: got a list of 1, expected name, epoch, version, release"),
        (b'{"rpmdb.pkglist": [["kernel-core", 0, 5, "1", "x"]]}', "rpmdb.pkglist[0][2]: got number 5, expected text"),
    ],
)
def test_a_damaged_list(tmp_path: Path, body: bytes, message: str) -> None:
    with pytest.raises(Malformed) as caught:
        _read(tmp_path, _listed(layer([(NODE_LIST, body)])))
    assert caught.value.message.startswith(f"/{NODE_LIST} of image host.example/os:1: ")
    assert message in caught.value.message


def test_a_list_of_too_many_packages() -> None:
    with pytest.raises(BoundExceeded, match=f"more than {PACKAGES} packages"):
        package_versions(Field({"rpmdb.pkglist": [[]] * (PACKAGES + 1)}), "kernel")


_RT = partial(extension_kernel, package=RT)
_RT_LIST = json.dumps({RT: KERNEL}).encode()


@pytest.mark.parametrize(
    ("one", "kernel"),
    [
        pytest.param(
            extensions_image(extensions_list(kernel_rt_core=KERNEL)), ListedKernel(KERNEL, EXTENSIONS_LIST), id="list"
        ),
        pytest.param(
            extensions_image(extensions_list(kernel_rt_core=f"1:{KERNEL}"), BUILD),
            ListedKernel(KERNEL, EXTENSIONS_LIST),
            id="list with an epoch, and labels",
        ),
        pytest.param(
            image([OS, layer([(EXTENSIONS_LIST, _RT_LIST), (f"{RPMS}/kernel-rt-core-{OTHER}.rpm", b"rpm")])]),
            ListedKernel(KERNEL, EXTENSIONS_LIST),
            id="list and RPMs in one layer",
        ),
        pytest.param(
            image([OS, rpm_layer(f"kernel-rt-core-{OLD_RT}", f"kernel-rt-modules-{OTHER}", "kernel-rt-core-x")]),
            ListedKernel(OLD_RT, RPMS),
            id="RPMs",
        ),
        pytest.param(
            image([rpm_layer(f"kernel-rt-core-{OLD_RT}", folder="extensions")]),
            ListedKernel(OLD_RT, "extensions"),
            id="machine-os-content",
        ),
        pytest.param(
            image([rpm_layer(f"kernel-rt/kernel-rt-core-{OLD_RT}", folder="extensions")]),
            ListedKernel(OLD_RT, "extensions"),
            id="machine-os-content with a folder for each",
        ),
    ],
)
def test_extension_kernel(tmp_path: Path, one: Image, kernel: ListedKernel) -> None:
    assert _read(tmp_path, one, _RT) == kernel


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (extensions_image(extensions_list()), f"got nothing as {RT} in /{EXTENSIONS_LIST}, expected one kernel"),
        (extensions_image(), f"got nothing as {RT} in /{RPMS}, expected one kernel"),
        (
            image([rpm_layer(f"{RT}-{KERNEL}", f"{RT}-{OTHER}")]),
            f"got {KERNEL}, {OTHER} as {RT} in /{RPMS}, expected one kernel",
        ),
        (extensions_image(layer([("etc/x", b"")])), f"got a layer with /etc/x at its top, expected one with "
         f"/{EXTENSIONS_LIST}"),
        (image([]), f"got no layer with /{EXTENSIONS_LIST} or RPMs, expected one at its top"),
    ],
    ids=["not in the list", "not among the RPMs", "two", "a layer added", "no layer"],
)  # fmt: skip
def test_no_extension(tmp_path: Path, one: Image, why: str) -> None:
    with pytest.raises(NotListed) as caught:
        _read(tmp_path, one, _RT)
    assert caught.value.why == why


def test_a_damaged_list_of_extensions(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="kernel-rt-core: got number 5, expected text"):
        _read(tmp_path, extensions_image(layer([(EXTENSIONS_LIST, b'{"kernel-rt-core": 5}')])), _RT)


def test_64k_is_a_package_of_its_own() -> None:
    """Its version may be another one than the standard kernel's (docs/reference/openshift.md 3.3)."""
    listed = Field({"kernel-core": KERNEL, PAGES_64K: "5.14.0-570.17.1.el9_6.aarch64"})
    assert extension_versions(listed, PAGES_64K) == {"5.14.0-570.17.1.el9_6.aarch64"}
    names = [f"kernel-core-{KERNEL}.rpm", f"{PAGES_64K}-5.14.0-427.1.1.el9_4.aarch64.rpm"]
    assert rpm_versions(names, PAGES_64K) == {"5.14.0-427.1.1.el9_4.aarch64"}


CONTAINERFILE = f"""\
FROM scratch AS build
COPY vmlinuz /usr/lib/modules/k/vmlinuz
FROM build AS metadata
COPY meta.json /{NODE_LIST}
COPY labels.json /usr/share/buildinfo/labels.json
FROM build
COPY --from=metadata /usr/share/openshift /usr/share/openshift
COPY --from=metadata /usr/share/buildinfo /usr/share/buildinfo
LABEL io.openshift.metalayer=true
"""
"""The steps in which node images of 4.22 are made."""


def test_a_node_image_that_buildah_made(tmp_path: Path) -> None:
    files = {"vmlinuz": b"vmlinuz", "meta.json": package_list(KERNEL), "labels.json": b"{}"}
    with Registry.plain(tmp_path / "registry") as registry:
        buildah_image(tmp_path, CONTAINERFILE, files, registry, "os", "1")
        images = ImageResolver(Network(), Cache(tmp_path / "cache"), None, KeepRules(paths=LISTS))
        made = images.image(Reference.parse(f"{registry.host}/os:1"), None, PullCredentials(), VERIFIED_HTTPS)
        assert len(made.resolved.manifest.layers) == 3
        assert node_kernel(made) == ListedKernel(KERNEL, NODE_LIST)
