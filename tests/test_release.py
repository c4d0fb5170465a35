"""Read a release image from a layout: image-references, driver toolkits, and their kernels."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed, NotFound, PlatformMissing, UsageProblem
from kmm_preflight.model import DriverToolkit, Flavour, Release, TargetKernel
from kmm_preflight.nodes.targets import targets_for_any_node
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.layers import KeepRules
from kmm_preflight.oci.reference import LayoutReference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.release.choice import Choice, KernelFilter, release_name
from kmm_preflight.release.driver_toolkit import Kernels, ToolkitKernels, kernel_of_flavour, parse_toolkit
from kmm_preflight.release.image_references import parse_image_references, toolkit_references
from kmm_preflight.release.os_image import STREAM_LABEL
from kmm_preflight.release.payload import FILES, read_release, read_streams

from .real.layout import Image, Member, folder, image, index, layer, symlink, write_layout

NAME = "quay.io/openshift-release-dev/ocp-release:4.99.0-x86_64"
DTK, DTK_10 = "quay.io/dev/dtk:9", "quay.io/dev/dtk:10"
KERNEL, KERNEL_10 = "5.14.0-570.19.1.el9_6.x86_64", "6.12.0-55.9.1.el10_0.x86_64"
ARM = "5.14.0-570.19.1.el9_6.aarch64"
REFERENCES, TOOLKIT = "release-manifests/image-references", "etc/driver-toolkit-release.json"
OTHER = layer([("etc/other", b"")])


def _references(*tags: tuple[str, str], kind: str = "ImageStream") -> bytes:
    """Return image-references with these tags and another tag."""
    listed = [{"name": name, "from": {"kind": "DockerImage", "name": spec}} for name, spec in (("etcd", "x"), *tags)]
    return json.dumps({"kind": kind, "metadata": {"name": "4.99.0"}, "spec": {"tags": listed}}).encode()


def _toolkit_json(kernel: str, rt: str | None = "", rhel: str = "9.6") -> bytes:
    names = {"KERNEL_VERSION": kernel, "RT_KERNEL_VERSION": rt, "RHEL_VERSION": rhel}
    return json.dumps({key: value for key, value in names.items() if value is not None}).encode()


def _release(*tags: tuple[str, str], architecture: str = "amd64") -> Image:
    return image([layer([(REFERENCES, _references(*tags))])], architecture)


def _toolkit(body: bytes, label: str = "", architecture: str = "amd64", *more: Member) -> Image:
    labels = {STREAM_LABEL: label} if label else {}
    return image([layer([Member(TOOLKIT, body), *more])], architecture, labels)


def _read(tmp_path: Path, images: Mapping[str, Image], choice: Choice = Choice()) -> tuple[Release, Kernels]:  # noqa: B008
    """Read the release NAME from a layout of the images."""
    layout = LayoutReference(write_layout(tmp_path / "layout", images), None, archive=False)
    return read_release(
        ImageResolver(Network(), Cache(tmp_path / "cache"), layout, KeepRules(paths=FILES)),
        NAME,
        choice,
        PullCredentials(),
    )


def _target(version: str, reference: str = DTK, stream: str = "rhel-9", flavour: Flavour = Flavour.STANDARD,
            arch: str = "amd64", place: str = TOOLKIT) -> TargetKernel:  # fmt: skip
    return TargetKernel(version, arch, stream, flavour, reference, f"/{place} of {reference}")


def test_read_release(tmp_path: Path) -> None:
    release, toolkit = _release(("driver-toolkit", DTK)), _toolkit(_toolkit_json(KERNEL, f"{KERNEL}+rt"))
    assert _read(tmp_path, {NAME: release, DTK: toolkit}) == (
        Release(
            NAME,
            release.digest,
            "4.99.0",
            (DriverToolkit(DTK, toolkit.digest, "rhel-9", "amd64", "9.6"),),
            (
                f"kernel {KERNEL} (rhel-9, amd64, standard) was not compared with the kernel of the OS image that "
                "nodes boot: the release has no OS image of this stream",
            ),
        ),
        (_target(KERNEL),),
    )


TWO: dict[str, Image] = {
    NAME: _release(("driver-toolkit", DTK), ("driver-toolkit-10", DTK_10)),
    DTK: _toolkit(_toolkit_json(KERNEL, f"{KERNEL}+rt")),
    DTK_10: _toolkit(_toolkit_json(KERNEL_10, f"{KERNEL_10}+rt", "10.0"), "rhel-10"),
}
NINE, TEN = _target(KERNEL), _target(KERNEL_10, DTK_10, "rhel-10")
RT = _target(f"{KERNEL}+rt", flavour=Flavour.RT)
RT_10 = _target(f"{KERNEL_10}+rt", DTK_10, "rhel-10", Flavour.RT)


@pytest.mark.parametrize(
    ("choice", "kernels"),
    [
        pytest.param(Choice(), (NINE, TEN), id="all streams"),
        pytest.param(Choice(streams=("rhel-9",)), (NINE,), id="stream without a label"),
        pytest.param(Choice(streams=("rhel-10",)), (TEN,), id="stream by label"),
        pytest.param(Choice(streams=("driver-toolkit",)), (NINE,), id="stream by tag"),
        pytest.param(Choice(streams=("driver-toolkit-10", "rhel-9")), (NINE, TEN), id="two streams"),
        pytest.param(Choice(flavours=(Flavour.RT,)), (RT, RT_10), id="rt"),
        pytest.param(
            Choice(streams=("rhel-9",), flavours=(Flavour.STANDARD, Flavour.RT)), (NINE, RT), id="standard and rt"
        ),
    ],
)
def test_two_streams(tmp_path: Path, choice: Choice, kernels: Kernels) -> None:
    assert _read(tmp_path, TWO, choice)[1] == kernels


def test_an_unknown_stream_is_refused_with_the_known_streams(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as caught:
        _read(tmp_path, TWO, Choice(streams=("rhel-8", "x")))
    assert caught.value.message == "--stream rhel-8, x: release 4.99.0 has streams rhel-9, rhel-10"


@pytest.mark.parametrize("streams", [("rhel-9", "rhel10"), ("rhel10", "driver-toolkit-10", "rhel-9")])
def test_one_unknown_stream_among_known_streams(tmp_path: Path, streams: tuple[str, ...]) -> None:
    with pytest.raises(UsageProblem) as caught:
        _read(tmp_path, TWO, Choice(streams=streams))
    assert caught.value.message == "--stream rhel10: release 4.99.0 has streams rhel-9, rhel-10"


def test_two_streams_with_one_kernel_are_one_target(tmp_path: Path) -> None:
    release, kernels = _read(tmp_path, {**TWO, DTK_10: _toolkit(_toolkit_json(KERNEL), "rhel-10")})
    assert [toolkit.stream for toolkit in release.toolkits] == ["rhel-9", "rhel-10"]
    assert kernels == (NINE, _target(KERNEL, DTK_10, "rhel-10"))
    assert [target.kernel for target in targets_for_any_node(kernels)] == [NINE]


GONE = layer([("release-manifests/.wh.image-references", b""), ("etc/.wh.driver-toolkit-release.json", b"")])


@pytest.mark.parametrize("below", [0, 1, 3], ids=["on top", "under one", "under three"])
def test_files_are_read_from_any_layer(tmp_path: Path, below: int) -> None:
    """KMM read the last layer only."""
    above = [layer([(f"etc/{number}", b"")]) for number in range(below)]
    old = layer([(REFERENCES, b"of an older release"), (TOOLKIT, b"of an older kernel")])
    release = image([old, layer([("./" + REFERENCES, _references(("driver-toolkit", DTK)))]), *above])
    toolkit = image([old, layer([folder("/etc"), ("/" + TOOLKIT, _toolkit_json(KERNEL))]), *above])
    assert _read(tmp_path, {NAME: release, DTK: toolkit})[1] == (NINE,)


def test_files_are_read_through_a_link(tmp_path: Path) -> None:
    release = image([layer([("a/b", _references(("driver-toolkit", DTK))), symlink(REFERENCES, "../a/b")])])
    toolkit = image([layer([("usr/x/driver-toolkit-release.json", _toolkit_json(KERNEL)), symlink("etc", "usr/x")])])
    assert _read(tmp_path, {NAME: release, DTK: toolkit})[1] == (NINE,)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param(
            {NAME: image([OTHER])}, f"image {NAME} is not a release image: it has no {REFERENCES}", id="another"
        ),
        pytest.param(
            {NAME: image([layer([(REFERENCES, b"{}")]), GONE])},
            f"image {NAME} is not a release image: it has no {REFERENCES}",
            id="image-references removed",
        ),
        pytest.param(
            {NAME: image([layer([symlink(REFERENCES, "nowhere")])])},
            f"image {NAME} is not a release image: it has no {REFERENCES}",
            id="image-references a dangling link",
        ),
        pytest.param(
            {NAME: image([layer([folder(REFERENCES)])])},
            f"image {NAME} is not a release image: it has no {REFERENCES}",
            id="image-references a folder",
        ),
        pytest.param(
            {NAME: image([layer([(REFERENCES, b"")])])}, f"{REFERENCES} of {NAME}: not a JSON object", id="empty"
        ),
        pytest.param(
            {NAME: image([layer([(REFERENCES, b"[" * 100_000)])])},
            f"{REFERENCES} of {NAME}: not a JSON object",
            id="deep",
        ),
        pytest.param(
            {NAME: image([layer([(REFERENCES, _references(kind="Pod"))])])},
            f"image {NAME} is not a release image: {REFERENCES}: kind: got text 'Pod', expected ImageStream",
            id="another kind",
        ),
        pytest.param({NAME: _release()}, f"image {NAME} is a release image without a driver toolkit", id="no toolkit"),
        pytest.param(
            {NAME: _release(("driver-toolkit", DTK)), DTK: image([OTHER])},
            f"driver toolkit {DTK}: it has no {TOOLKIT}",
            id="toolkit without JSON",
        ),
        pytest.param(
            {NAME: _release(("driver-toolkit", DTK)), DTK: image([layer([(TOOLKIT, _toolkit_json(KERNEL))]), GONE])},
            f"driver toolkit {DTK}: it has no {TOOLKIT}",
            id="JSON removed",
        ),
        pytest.param(
            {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(b"<html>")},
            f"driver toolkit {DTK}: {TOOLKIT}: not a JSON object",
            id="no JSON",
        ),
        pytest.param(
            {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_toolkit_json("package kernel is not installed"))},
            f"driver toolkit {DTK}: {TOOLKIT}: KERNEL_VERSION: got text 'package kernel is not installed', expected",
            id="no kernel",
        ),
    ],
)
def test_an_image_that_is_not_a_release(tmp_path: Path, images: Mapping[str, Image], message: str) -> None:
    with pytest.raises(Malformed) as caught:
        _read(tmp_path, images)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("images", "missing"),
    [({"another:v1": image([OTHER])}, NAME), ({NAME: _release(("driver-toolkit", DTK))}, DTK)],
    ids=["release", "toolkit"],
)
def test_an_image_that_does_not_exist(tmp_path: Path, images: Mapping[str, Image], missing: str) -> None:
    with pytest.raises(NotFound, match=f"image {missing}: layout"):
        _read(tmp_path, images)


@pytest.mark.parametrize("rt", [None, "", "package kernel-rt-core is not installed", "(none)"])
def test_a_release_without_an_rt_kernel(tmp_path: Path, rt: str | None) -> None:
    images = {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_toolkit_json(KERNEL, rt))}
    assert _read(tmp_path, images)[1] == (NINE,)
    words = f"--flavour rt: the driver toolkit of kernel {KERNEL} has kernels {KERNEL}$"
    with pytest.raises(UsageProblem, match=words):
        _read(tmp_path, images, Choice(flavours=(Flavour.RT,)))


SOURCES = "usr/src/kernels"
EIGHT_RT = "4.18.0-372.9.1.rt7.166.el8.x86_64"


@pytest.mark.parametrize("rt", [None, "", "package kernel-rt-core is not installed"])
@pytest.mark.parametrize("version", [f"{KERNEL}+rt", EIGHT_RT])
def test_rt_is_read_from_the_headers_where_the_json_is_silent(tmp_path: Path, rt: str | None, version: str) -> None:
    headers = [Member(f"{SOURCES}/{kernel}/Makefile") for kernel in (KERNEL, version, f"{version}-debug")]
    images = {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_toolkit_json(KERNEL, rt), "", "amd64", *headers)}
    choice = Choice(flavours=(Flavour.RT,))
    assert _read(tmp_path, images, choice)[1] == (_target(version, flavour=Flavour.RT, place=SOURCES),)


def test_two_folders_of_rt_kernels_are_refused(tmp_path: Path) -> None:
    headers = [folder(f"{SOURCES}/{kernel}") for kernel in (f"{KERNEL}+rt", EIGHT_RT)]
    images = {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_toolkit_json(KERNEL), "", "amd64", *headers)}
    with pytest.raises(UsageProblem, match=f"has kernels {KERNEL}, {EIGHT_RT}, {KERNEL}\\+rt$"):
        _read(tmp_path, images, Choice(flavours=(Flavour.RT,)))


def test_a_stream_label_makes_an_image_a_toolkit_whatever_its_tag(tmp_path: Path) -> None:
    """An image without a label and with an unknown tag may be another image: it is ignored."""
    tags = (("driver-toolkit", DTK), ("driver-toolkit-centos", DTK_10), ("driver-toolkit-tests", "quay.io/dev/x:1"))
    images = {
        NAME: _release(*tags),
        DTK: _toolkit(_toolkit_json(KERNEL), "rhel-10"),
        DTK_10: _toolkit(_toolkit_json(KERNEL_10), "centos-11"),
        "quay.io/dev/x:1": image([OTHER]),
    }
    release, _ = _read(tmp_path, images)
    assert [toolkit.stream for toolkit in release.toolkits] == ["rhel-10", "centos-11"]
    with pytest.raises(UsageProblem, match="has streams rhel-10, centos-11"):
        _read(tmp_path, images, Choice(streams=("rhel-9",)))


def test_64k_is_read_from_the_headers(tmp_path: Path) -> None:
    headers = [folder(f"{SOURCES}/{ARM}"), Member(f"{SOURCES}/{ARM}+64k/Makefile")]
    images = {
        NAME: _release(("driver-toolkit", DTK), architecture="arm64"),
        DTK: _toolkit(_toolkit_json(ARM), "", "arm64", *headers),
    }
    choice = Choice(flavours=(Flavour.STANDARD, Flavour.PAGES_64K))
    assert _read(tmp_path, images, choice)[1] == (
        _target(ARM, arch="arm64"),
        _target(f"{ARM}+64k", flavour=Flavour.PAGES_64K, arch="arm64", place=SOURCES),
    )


@pytest.mark.parametrize(
    ("members", "kernels"),
    [
        ([], KERNEL),
        (
            [folder(f"{SOURCES}/{KERNEL}"), folder(f"{SOURCES}/5.0.0+rt"), folder(f"{SOURCES}/x+64k")],
            f"{KERNEL}, 5.0.0\\+rt",
        ),
        ([symlink(SOURCES, "nowhere")], KERNEL),
        ([Member(SOURCES, b"a file")], KERNEL),
    ],
    ids=["no folder", "others", "dangling link", "a file"],
)
def test_a_release_without_a_64k_kernel(tmp_path: Path, members: list[Member], kernels: str) -> None:
    images = {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_toolkit_json(KERNEL), "", "amd64", *members)}
    with pytest.raises(
        UsageProblem, match=f"--flavour 64k: the driver toolkit of kernel {KERNEL} has kernels {kernels}$"
    ):
        _read(tmp_path, images, Choice(flavours=(Flavour.PAGES_64K,)))


ARM_RELEASE = _release(("driver-toolkit", DTK), architecture="arm64")
ATTESTATION = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "digest": "sha256:" + "0" * 64,
    "size": 1,
    "platform": {"os": "unknown", "architecture": "unknown"},
}


def _multi(docker: bool = False) -> dict[str, Image]:
    toolkits = [_toolkit(_toolkit_json(KERNEL)), _toolkit(_toolkit_json(ARM), "", "arm64")]
    releases = [_release(("driver-toolkit", DTK)), ARM_RELEASE]
    return {NAME: index(releases, docker, extra=[ATTESTATION]), DTK: index(toolkits, docker, extra=[ATTESTATION])}


AMD64, ARM64 = NINE, _target(ARM, arch="arm64")


@pytest.mark.parametrize("docker", [False, True], ids=["OCI index", "docker list"])
@pytest.mark.parametrize(
    ("arches", "kernels"),
    [
        ((), (AMD64,)),
        (("amd64",), (AMD64,)),
        (("arm64",), (ARM64,)),
        (("arm64", "amd64"), (ARM64, AMD64)),
        (("multi",), (AMD64, ARM64)),
        (("arm64", "multi"), (AMD64, ARM64)),
    ],
    ids=["none chosen", "amd64", "arm64", "both", "multi", "multi and arm64"],
)
def test_multi_arch(tmp_path: Path, arches: tuple[str, ...], kernels: Kernels, docker: bool) -> None:
    release, got = _read(tmp_path, _multi(docker), Choice(arches=arches))
    assert got == kernels
    assert [toolkit.arch for toolkit in release.toolkits] == [kernel.arch for kernel in kernels]
    assert {toolkit.rhel_version for toolkit in release.toolkits} == {"9.6"}


@pytest.mark.parametrize("arches", [(), ("arm64",), ("multi",)])
def test_a_single_image_has_its_own_architecture(tmp_path: Path, arches: tuple[str, ...]) -> None:
    """If its toolkit is an index, the toolkit of the release's architecture is read."""
    images = {NAME: ARM_RELEASE, DTK: _multi()[DTK]}
    assert _read(tmp_path, images, Choice(arches=arches))[1] == (ARM64,)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (_multi(), f"image {NAME}: got an index of linux/amd64, linux/arm64, expected linux/s390x"),
        ({NAME: ARM_RELEASE}, f"image {NAME}: got an image for arm64, expected linux/s390x"),
    ],
    ids=["index", "single image"],
)
def test_an_architecture_that_the_release_lacks(tmp_path: Path, images: Mapping[str, Image], words: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        _read(tmp_path, images, Choice(arches=("s390x",)))
    assert caught.value.message == f"--arch s390x: {words}"


@pytest.mark.parametrize(
    ("filters", "kernels"),
    [
        ([KernelFilter("rhel-9", "amd64", Flavour.STANDARD)], (NINE,)),
        ([KernelFilter("rhel-10", "amd64", Flavour.RT)], (RT_10,)),
        ([KernelFilter("rhel-9", "amd64", Flavour.RT), KernelFilter("rhel-10", "amd64", Flavour.STANDARD)], (RT, TEN)),
        ([KernelFilter(None, "amd64", Flavour.RT)], (RT, RT_10)),
        ([KernelFilter("rhel-9", None, None)], (NINE,)),
        ([KernelFilter("rhel-9", "amd64", Flavour.PAGES_64K)], ()),
        ([KernelFilter("rhel-9", "arm64", Flavour.STANDARD)], ()),
        ([KernelFilter("rhel-8", "amd64", Flavour.STANDARD)], ()),
        ([], ()),
    ],
)
def test_only_kernels_that_nodes_require_are_read(
    tmp_path: Path, filters: list[KernelFilter], kernels: Kernels
) -> None:
    assert _read(tmp_path, TWO, Choice(filters=frozenset(filters)))[1] == kernels


def test_a_toolkit_that_no_node_requires_is_not_read(tmp_path: Path) -> None:
    """The JSON of this toolkit cannot be read."""
    images = {**TWO, DTK_10: _toolkit(b"<html>", "rhel-10")}
    release, kernels = _read(
        tmp_path, images, Choice(filters=frozenset([KernelFilter("rhel-9", "amd64", Flavour.STANDARD)]))
    )
    assert ([toolkit.stream for toolkit in release.toolkits], kernels) == (["rhel-9"], (NINE,))


@pytest.mark.parametrize(
    ("arch", "flavour", "folders", "kernel"),
    [
        ("amd64", Flavour.RT, [KERNEL, f"{KERNEL}+rt"], f"{KERNEL}+rt"),
        ("amd64", Flavour.RT, [KERNEL, "4.18.0-372.9.1.rt7.166.el8.x86_64"], "4.18.0-372.9.1.rt7.166.el8.x86_64"),
        ("amd64", Flavour.RT, [KERNEL, "x+rt"], None),
        ("arm64", Flavour.PAGES_64K, [ARM, f"{ARM}+64k"], f"{ARM}+64k"),
    ],
)
def test_kernels_that_the_json_lacks_are_read_from_the_folders_of_headers(
    tmp_path: Path, arch: str, flavour: Flavour, folders: list[str], kernel: str | None
) -> None:
    """Of 4.12 since 2025-10 the JSON has no rt, of none 64k (docs/reference/openshift.md 2.1)."""
    headers = [Member(f"{SOURCES}/{name}/Makefile", b"") for name in folders]
    images = {
        NAME: _release(("driver-toolkit", DTK), architecture=arch),
        DTK: _toolkit(_toolkit_json(KERNEL if arch == "amd64" else ARM, None), "", arch, *headers),
    }
    kernels = _read(tmp_path, images, Choice(filters=frozenset([KernelFilter("rhel-9", arch, flavour)])))[1]
    assert [target.version for target in kernels] == ([kernel] if kernel else [])
    assert all(target.provenance == f"/{SOURCES} of {DTK}" for target in kernels)


def _sparse(tmp_path: Path, arch: str) -> LayoutReference:
    """Return a layout of the multi release without the images of other architectures."""
    images = _multi()
    kept = {"amd64": 0, "arm64": 1}[arch]
    layout = write_layout(tmp_path / "layout", images)
    for image_index in images.values():
        for number, child in enumerate(image_index.children):
            if number != kept:
                (layout / "blobs" / "sha256" / child.digest.removeprefix("sha256:")).unlink()
    return LayoutReference(layout, None, archive=False)


@pytest.mark.parametrize(("arch", "kernel"), [("amd64", AMD64), ("arm64", ARM64)])
def test_images_of_architectures_without_nodes_may_be_missing(tmp_path: Path, arch: str, kernel: TargetKernel) -> None:
    """oc-mirror leaves an incomplete index if one architecture was mirrored (docs/reference/openshift.md 1.3)."""
    layout = _sparse(tmp_path, arch)
    images = ImageResolver(Network(), Cache(tmp_path / "cache"), layout, KeepRules(paths=FILES))
    assert read_streams(images, NAME, ("amd64", "arm64"), PullCredentials()) == ("4.99.0", ("rhel-9",))
    choice = Choice(filters=frozenset([KernelFilter("rhel-9", arch, Flavour.STANDARD)]))
    assert read_release(images, NAME, choice, PullCredentials())[1] == (kernel,)
    both = Choice(filters=frozenset(KernelFilter("rhel-9", arch, Flavour.STANDARD) for arch in ("amd64", "arm64")))
    assert read_release(images, NAME, both, PullCredentials())[1] == (kernel,)
    with pytest.raises(UsageProblem, match=r"--arch .*: image .*, which the registry does not have"):
        read_release(images, NAME, Choice(arches=("amd64", "arm64")), PullCredentials())


@pytest.mark.parametrize("lacks", [NAME, DTK])
def test_an_architecture_of_nodes_that_the_release_lacks_is_left_out(tmp_path: Path, lacks: str) -> None:
    """The kernels of the other architectures are read."""
    single = {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_toolkit_json(KERNEL))}[lacks]
    both = Choice(filters=frozenset(KernelFilter("rhel-9", arch, Flavour.STANDARD) for arch in ("amd64", "arm64")))
    assert _read(tmp_path, {**_multi(), lacks: single}, both)[1] == (AMD64,)


@pytest.mark.parametrize("arches", [("arm64", "s390x"), ("s390x", "arm64"), ("multi", "s390x"), ("s390x", "multi")])
@pytest.mark.parametrize("single", [False, True], ids=["index", "single image"])
def test_one_missing_architecture_among_others_is_refused(
    tmp_path: Path, arches: tuple[str, ...], single: bool
) -> None:
    images = {**_multi(), NAME: ARM_RELEASE} if single else _multi()
    with pytest.raises(UsageProblem) as caught:
        _read(tmp_path, images, Choice(arches=arches))
    got = "an image for arm64" if single else "an index of linux/amd64, linux/arm64"
    assert caught.value.message == f"--arch s390x: image {NAME}: got {got}, expected linux/s390x"


def test_the_release_image_must_exist_for_every_named_architecture(tmp_path: Path) -> None:
    """The toolkits exist for both architectures."""
    with pytest.raises(UsageProblem, match=r"--arch amd64: image .*: got an image for arm64, expected linux/amd64"):
        _read(tmp_path, {**_multi(), NAME: ARM_RELEASE}, Choice(arches=("arm64", "amd64")))


def test_a_toolkit_without_a_named_architecture(tmp_path: Path) -> None:
    images = {**_multi(), DTK: _toolkit(_toolkit_json(KERNEL))}
    with pytest.raises(PlatformMissing, match=f"image {DTK}: got an image for amd64, expected linux/arm64"):
        _read(tmp_path, images, Choice(arches=("amd64", "arm64")))


@pytest.mark.parametrize(
    ("text", "arches", "name"),
    [
        ("4.18.3", (), "4.18.3-x86_64"),
        ("4.18.3", ("arm64",), "4.18.3-aarch64"),
        ("4.18.3", ("s390x",), "4.18.3-s390x"),
        ("4.18.3", ("amd64", "arm64"), "4.18.3-multi"),
        ("4.18.3", ("multi",), "4.18.3-multi"),
        ("4.18.3-aarch64", ("amd64",), "4.18.3-aarch64"),
        ("4.18.3-multi", (), "4.18.3-multi"),
        ("4.19.0-rc.1", (), "4.19.0-rc.1-x86_64"),
        ("4.20.0-ec.2-x86_64", (), "4.20.0-ec.2-x86_64"),
    ],
)
def test_a_version_becomes_a_tag(text: str, arches: tuple[str, ...], name: str) -> None:
    assert release_name(text, arches) == f"quay.io/openshift-release-dev/ocp-release:{name}"


@pytest.mark.parametrize("text", ["quay.io/a/b:4.18.3", "4.18", "v4.18.3", "oci:images:4.18.3", "host:5000/a@sha256:x"])
def test_another_name_is_not_changed(text: str) -> None:
    assert release_name(text, ("arm64",)) == text


@pytest.mark.parametrize(
    ("tags", "toolkits"),
    [
        ([], {}),
        ([("driver-toolkit", "A"), ("etcd", None)], {"driver-toolkit": "A"}),
        ([("driver-toolkit-10", "B"), ("driver-toolkit", "A")], {"driver-toolkit-10": "B", "driver-toolkit": "A"}),
        ([("driver-toolkit", "A"), ("driver-toolkit", "B")], {"driver-toolkit": "A"}),
        ([("driver-toolkit-x", "A"), ("my-driver-toolkit", "B"), ("driver-toolkits", "C")], {"driver-toolkit-x": "A"}),
    ],
    ids=["none", "one", "in the payload's order", "the first of a name", "other names"],
)
def test_toolkit_references(tags: list[tuple[str, object]], toolkits: dict[str, str]) -> None:
    assert toolkit_references(tags) == toolkits


@pytest.mark.parametrize("spec", [None, "", 5, {}])
def test_a_toolkit_without_a_pull_spec(spec: object) -> None:
    with pytest.raises(Malformed, match=f"tag driver-toolkit of {REFERENCES} has no pull spec in from.name"):
        toolkit_references([("etcd", "x"), ("driver-toolkit", spec)])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"kind": "ImageStream", "spec": {"tags": {}}}, "spec.tags: got a mapping, expected a list"),
        ({"kind": "ImageStream", "spec": {"tags": ["x"]}}, "spec.tags[0]: got text 'x', expected a mapping"),
        ({"kind": "ImageStream", "spec": {"tags": [{"name": "driver-toolkit", "from": None}]}}, "tag driver-toolkit"),
        ({"kind": "ImageStream"}, "image r is a release image without a driver toolkit"),
    ],
)
def test_image_references_that_are_refused(document: dict[str, object], message: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_image_references(Field(document), "r")
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "KERNEL_VERSION: missing, expected a kernel version"),
        ({"KERNEL_VERSION": "", "RHEL_VERSION": "9.6"}, "KERNEL_VERSION: got text ''"),
        ({"KERNEL_VERSION": 5.14, "RHEL_VERSION": "9.6"}, "KERNEL_VERSION: got number 5.14, expected text"),
        ({"KERNEL_VERSION": KERNEL}, "RHEL_VERSION: missing, expected a RHEL version such as 9.6"),
        ({"KERNEL_VERSION": KERNEL, "RHEL_VERSION": 9.6}, "RHEL_VERSION: got number 9.6"),
        ({"KERNEL_VERSION": KERNEL, "RHEL_VERSION": "9.6", "RT_KERNEL_VERSION": 5}, "RT_KERNEL_VERSION: got number 5"),
    ],
)
def test_toolkit_json_that_is_refused(document: dict[str, object], message: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_toolkit(Field(document))
    assert caught.value.message.startswith(message)


def test_kernel_of_flavour() -> None:
    named = parse_toolkit(Field(json.loads(_toolkit_json(KERNEL, f"{KERNEL}+rt"))))
    assert named == ToolkitKernels(KERNEL, f"{KERNEL}+rt", "9.6")
    assert kernel_of_flavour(named, Flavour.STANDARD) == KERNEL
    assert kernel_of_flavour(named, Flavour.RT) == f"{KERNEL}+rt"


def test_a_real_payload() -> None:
    """Read image-references of a public 4.10 release. $PREFLIGHT_REAL_DATA names the folder with its data."""
    given = os.environ.get("PREFLIGHT_REAL_DATA")
    if not given:
        pytest.skip("PREFLIGHT_REAL_DATA names no folder with release/image-references-4.10.json")
    body = (Path(given) / "release" / "image-references-4.10.json").read_bytes()
    version, toolkits = parse_image_references(Field(json.loads(body)), "r")
    assert version.startswith("4.10.")
    assert list(toolkits) == ["driver-toolkit"]
    assert "@sha256:" in toolkits["driver-toolkit"]
