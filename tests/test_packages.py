"""Package lists at the top of an OS image: the kernel that they name, and lists that are not used."""

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
from kmm_preflight.oci.image import Image as OciImage
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


def _read(tmp_path: Path, os_image: Image, kernel: Callable[[OciImage], ListedKernel] = node_kernel) -> ListedKernel:
    layout = LayoutReference(write_layout(tmp_path / "layout", {"host.example/os:1": os_image}), None, archive=False)
    images = ImageResolver(Network(), Cache(tmp_path / "cache"), layout, KeepRules(paths=LISTS))
    return kernel(images.image(Reference.parse("host.example/os:1"), None, PullCredentials(), VERIFIED_HTTPS))


def _listed(*layers: Blob) -> Image:
    return node_image(*layers)


@pytest.mark.parametrize(
    "os_image",
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
def test_node_kernel(tmp_path: Path, os_image: Image) -> None:
    assert _read(tmp_path, os_image) == ListedKernel(KERNEL, NODE_LIST)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([], f"a layer with /usr/lib/modules/k/vmlinuz is at its top, expected a layer with /{NODE_LIST}"),
        ([layer([])] * 4, f"no layer with /{NODE_LIST} at its top"),
        ([node_list(KERNEL), layer([("etc/motd", b"")])], "a layer with /etc/motd is at its top"),
        (
            [node_list(KERNEL), layer([("usr/share/openshift/base/.wh.meta.json", b"")])],
            "a layer with /usr/share/openshift/base/.wh.meta.json is at its top",
        ),
        ([node_list(KERNEL), LARGE], "a layer of 9 MiB is at its top and was not read"),
        ([layer([symlink(NODE_LIST, "../x")])], f"/{NODE_LIST} is not a file of at most 4 MiB"),
        ([layer([(NODE_LIST, b" " * (LIST_BYTES + 1))])], f"/{NODE_LIST} is not a file of at most 4 MiB"),
        ([node_list(KERNEL, OTHER)], f"/{NODE_LIST} lists {KERNEL}, {OTHER} as kernel-core, expected one kernel"),
        ([node_list()], f"/{NODE_LIST} lists nothing as kernel-core, expected one kernel"),
        ([node_list("k-\x1b[2J.x")], f"/{NODE_LIST} lists 'k-\\x1b[2J.x' as kernel-core, expected a kernel version"),
    ],
    ids=["no list", "deep", "a layer added", "list removed", "large", "a link", "endless", "two", "none", "no kernel"],
)
def test_not_listed(tmp_path: Path, layers: Sequence[Blob], reason: str) -> None:
    with pytest.raises(NotListed) as caught:
        _read(tmp_path, _listed(*layers))
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not a JSON object"),
        (b'{"rpmdb.pkglist": [["kernel-co', "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
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
    ("os_image", "kernel"),
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
def test_extension_kernel(tmp_path: Path, os_image: Image, kernel: ListedKernel) -> None:
    assert _read(tmp_path, os_image, _RT) == kernel


@pytest.mark.parametrize(
    ("os_image", "reason"),
    [
        (extensions_image(extensions_list()), f"/{EXTENSIONS_LIST} lists nothing as {RT}, expected one kernel"),
        (extensions_image(), f"/{RPMS} lists nothing as {RT}, expected one kernel"),
        (
            image([rpm_layer(f"{RT}-{KERNEL}", f"{RT}-{OTHER}")]),
            f"/{RPMS} lists {KERNEL}, {OTHER} as {RT}, expected one kernel",
        ),
        (
            extensions_image(layer([("etc/x", b"")])),
            f"a layer with /etc/x is at its top, expected a layer with /{EXTENSIONS_LIST}",
        ),
        (image([]), f"no layer with /{EXTENSIONS_LIST} or RPMs at its top"),
    ],
    ids=["not in the list", "not among the RPMs", "two", "a layer added", "no layer"],
)
def test_no_extension(tmp_path: Path, os_image: Image, reason: str) -> None:
    with pytest.raises(NotListed) as caught:
        _read(tmp_path, os_image, _RT)
    assert caught.value.reason == reason


def test_a_damaged_list_of_extensions(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="kernel-rt-core: got number 5, expected text"):
        _read(tmp_path, extensions_image(layer([(EXTENSIONS_LIST, b'{"kernel-rt-core": 5}')])), _RT)


def test_64k_is_a_package_of_its_own() -> None:
    """The 64k kernel may have another version than the standard kernel (docs/reference/openshift.md 3.3)."""
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
"""The build steps of node images of 4.22."""


def test_a_node_image_that_buildah_made(tmp_path: Path) -> None:
    files = {"vmlinuz": b"vmlinuz", "meta.json": package_list(KERNEL), "labels.json": b"{}"}
    with Registry.plain(tmp_path / "registry") as registry:
        buildah_image(tmp_path, CONTAINERFILE, files, registry, "os", "1")
        images = ImageResolver(Network(), Cache(tmp_path / "cache"), None, KeepRules(paths=LISTS))
        os_image = images.image(Reference.parse(f"{registry.host}/os:1"), None, PullCredentials(), VERIFIED_HTTPS)
        assert len(os_image.resolved.manifest.layers) == 3
        assert node_kernel(os_image) == ListedKernel(KERNEL, NODE_LIST)
