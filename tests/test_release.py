"""A release image, read from a layout: image-references, driver toolkits, and the kernels that follow."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed, NotFound, PlatformMissing, UsageProblem
from kmm_preflight.model import DriverToolkit, Flavour, Release, TargetKernel
from kmm_preflight.nodes.targets import everywhere
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
    """image-references with the tags among others."""
    listed = [{"name": name, "from": {"kind": "DockerImage", "name": spec}} for name, spec in (("etcd", "x"), *tags)]
    return json.dumps({"kind": kind, "metadata": {"name": "4.99.0"}, "spec": {"tags": listed}}).encode()


def _named(kernel: str, rt: str | None = "", rhel: str = "9.6") -> bytes:
    names = {"KERNEL_VERSION": kernel, "RT_KERNEL_VERSION": rt, "RHEL_VERSION": rhel}
    return json.dumps({key: value for key, value in names.items() if value is not None}).encode()


def _release(*tags: tuple[str, str], architecture: str = "amd64") -> Image:
    return image([layer([(REFERENCES, _references(*tags))])], architecture)


def _toolkit(body: bytes, label: str = "", architecture: str = "amd64", *more: Member) -> Image:
    labels = {STREAM_LABEL: label} if label else {}
    return image([layer([Member(TOOLKIT, body), *more])], architecture, labels)


def _read(tmp_path: Path, images: Mapping[str, Image], choice: Choice = Choice()) -> tuple[Release, Kernels]:  # noqa: B008
    """What is read of the release NAME in a layout of the images."""
    layout = LayoutReference(write_layout(tmp_path / "layout", images), "", archive=False)
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
    release, toolkit = _release(("driver-toolkit", DTK)), _toolkit(_named(KERNEL, f"{KERNEL}+rt"))
    assert _read(tmp_path, {NAME: release, DTK: toolkit}) == (
        Release(
            NAME,
            release.digest,
            "4.99.0",
            (DriverToolkit(DTK, toolkit.digest, "rhel-9", "amd64", "9.6"),),
            (
                f"kernel {KERNEL} (rhel-9, amd64, standard) was not compared with that of the OS image which nodes "
                "boot: the release has no OS image of this stream",
            ),
        ),
        (_target(KERNEL),),
    )


TWO: dict[str, Image] = {
    NAME: _release(("driver-toolkit", DTK), ("driver-toolkit-10", DTK_10)),
    DTK: _toolkit(_named(KERNEL, f"{KERNEL}+rt")),
    DTK_10: _toolkit(_named(KERNEL_10, f"{KERNEL_10}+rt", "10.0"), "rhel-10"),
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


def test_an_unknown_stream_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as caught:
        _read(tmp_path, TWO, Choice(streams=("rhel-8", "x")))
    assert caught.value.message == "--stream rhel-8, x: release 4.99.0 has streams rhel-9, rhel-10"


@pytest.mark.parametrize("streams", [("rhel-9", "rhel10"), ("rhel10", "driver-toolkit-10", "rhel-9")])
def test_one_unknown_stream_among_others(tmp_path: Path, streams: tuple[str, ...]) -> None:
    with pytest.raises(UsageProblem) as caught:
        _read(tmp_path, TWO, Choice(streams=streams))
    assert caught.value.message == "--stream rhel10: release 4.99.0 has streams rhel-9, rhel-10"


def test_two_streams_with_one_kernel_are_one_target(tmp_path: Path) -> None:
    release, kernels = _read(tmp_path, {**TWO, DTK_10: _toolkit(_named(KERNEL), "rhel-10")})
    assert [one.stream for one in release.toolkits] == ["rhel-9", "rhel-10"]
    assert kernels == (NINE, _target(KERNEL, DTK_10, "rhel-10"))
    assert [target.kernel for target in everywhere(kernels)] == [NINE]


GONE = layer([("release-manifests/.wh.image-references", b""), ("etc/.wh.driver-toolkit-release.json", b"")])


@pytest.mark.parametrize("below", [0, 1, 3], ids=["on top", "under one", "under three"])
def test_in_any_layer(tmp_path: Path, below: int) -> None:
    """KMM looked into the last layer alone."""
    above = [layer([(f"etc/{number}", b"")]) for number in range(below)]
    old = layer([(REFERENCES, b"of an older release"), (TOOLKIT, b"of an older kernel")])
    release = image([old, layer([("./" + REFERENCES, _references(("driver-toolkit", DTK)))]), *above])
    toolkit = image([old, layer([folder("/etc"), ("/" + TOOLKIT, _named(KERNEL))]), *above])
    assert _read(tmp_path, {NAME: release, DTK: toolkit})[1] == (NINE,)


def test_through_a_link(tmp_path: Path) -> None:
    release = image([layer([("a/b", _references(("driver-toolkit", DTK))), symlink(REFERENCES, "../a/b")])])
    toolkit = image([layer([("usr/x/driver-toolkit-release.json", _named(KERNEL)), symlink("etc", "usr/x")])])
    assert _read(tmp_path, {NAME: release, DTK: toolkit})[1] == (NINE,)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param({NAME: image([OTHER])}, f"image {NAME} is no release image: it has no {REFERENCES}", id="another"),
        pytest.param(
            {NAME: image([layer([(REFERENCES, b"{}")]), GONE])},
            f"image {NAME} is no release image: it has no {REFERENCES}",
            id="image-references removed",
        ),
        pytest.param(
            {NAME: image([layer([symlink(REFERENCES, "nowhere")])])},
            f"image {NAME} is no release image: it has no {REFERENCES}",
            id="image-references a dangling link",
        ),
        pytest.param(
            {NAME: image([layer([folder(REFERENCES)])])},
            f"image {NAME} is no release image: it has no {REFERENCES}",
            id="image-references a folder",
        ),
        pytest.param({NAME: image([layer([(REFERENCES, b"")])])}, f"{REFERENCES} of {NAME}: got no JSON", id="empty"),
        pytest.param(
            {NAME: image([layer([(REFERENCES, b"[" * 100_000)])])}, f"{REFERENCES} of {NAME}: got no JSON", id="deep"
        ),
        pytest.param(
            {NAME: image([layer([(REFERENCES, _references(kind="Pod"))])])},
            f"image {NAME} is no release image: {REFERENCES}: kind: got text 'Pod', expected ImageStream",
            id="another kind",
        ),
        pytest.param({NAME: _release()}, f"image {NAME} is a release image without a driver toolkit", id="no toolkit"),
        pytest.param(
            {NAME: _release(("driver-toolkit", DTK)), DTK: image([OTHER])},
            f"driver toolkit {DTK}: it has no {TOOLKIT}",
            id="toolkit without JSON",
        ),
        pytest.param(
            {NAME: _release(("driver-toolkit", DTK)), DTK: image([layer([(TOOLKIT, _named(KERNEL))]), GONE])},
            f"driver toolkit {DTK}: it has no {TOOLKIT}",
            id="JSON removed",
        ),
        pytest.param(
            {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(b"<html>")},
            f"driver toolkit {DTK}: {TOOLKIT}: got no JSON object",
            id="no JSON",
        ),
        pytest.param(
            {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_named("package kernel is not installed"))},
            f"driver toolkit {DTK}: {TOOLKIT}: KERNEL_VERSION: got text 'package kernel is not installed', expected",
            id="no kernel",
        ),
    ],
)
def test_no_release(tmp_path: Path, images: Mapping[str, Image], message: str) -> None:
    with pytest.raises(Malformed) as caught:
        _read(tmp_path, images)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("images", "missing"),
    [({"another:v1": image([OTHER])}, NAME), ({NAME: _release(("driver-toolkit", DTK))}, DTK)],
    ids=["release", "toolkit"],
)
def test_not_there(tmp_path: Path, images: Mapping[str, Image], missing: str) -> None:
    with pytest.raises(NotFound, match=f"image {missing}: layout"):
        _read(tmp_path, images)


@pytest.mark.parametrize("rt", [None, "", "package kernel-rt-core is not installed", "(none)"])
def test_no_rt_kernel(tmp_path: Path, rt: str | None) -> None:
    images = {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_named(KERNEL, rt))}
    assert _read(tmp_path, images)[1] == (NINE,)
    words = f"--flavour rt: the driver toolkit of kernel {KERNEL} has kernels {KERNEL}$"
    with pytest.raises(UsageProblem, match=words):
        _read(tmp_path, images, Choice(flavours=(Flavour.RT,)))


SOURCES = "usr/src/kernels"
EIGHT_RT = "4.18.0-372.9.1.rt7.166.el8.x86_64"


@pytest.mark.parametrize("rt", [None, "", "package kernel-rt-core is not installed"])
@pytest.mark.parametrize("version", [f"{KERNEL}+rt", EIGHT_RT])
def test_rt_is_read_from_the_headers_where_the_json_is_silent(tmp_path: Path, rt: str | None, version: str) -> None:
    headers = [Member(f"{SOURCES}/{one}/Makefile") for one in (KERNEL, version, f"{version}-debug")]
    images = {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_named(KERNEL, rt), "", "amd64", *headers)}
    choice = Choice(flavours=(Flavour.RT,))
    assert _read(tmp_path, images, choice)[1] == (_target(version, flavour=Flavour.RT, place=SOURCES),)


def test_two_rt_kernels_are_none(tmp_path: Path) -> None:
    headers = [folder(f"{SOURCES}/{one}") for one in (f"{KERNEL}+rt", EIGHT_RT)]
    images = {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_named(KERNEL), "", "amd64", *headers)}
    with pytest.raises(UsageProblem, match=f"has kernels {KERNEL}, {EIGHT_RT}, {KERNEL}\\+rt$"):
        _read(tmp_path, images, Choice(flavours=(Flavour.RT,)))


def test_a_toolkit_of_any_name_is_of_the_stream_that_its_label_says(tmp_path: Path) -> None:
    """One without the label, under a name that no release had, may be another image; it is passed over."""
    tags = (("driver-toolkit", DTK), ("driver-toolkit-centos", DTK_10), ("driver-toolkit-tests", "quay.io/dev/x:1"))
    images = {
        NAME: _release(*tags),
        DTK: _toolkit(_named(KERNEL), "rhel-10"),
        DTK_10: _toolkit(_named(KERNEL_10), "centos-11"),
        "quay.io/dev/x:1": image([OTHER]),
    }
    release, _ = _read(tmp_path, images)
    assert [one.stream for one in release.toolkits] == ["rhel-10", "centos-11"]
    with pytest.raises(UsageProblem, match="has streams rhel-10, centos-11"):
        _read(tmp_path, images, Choice(streams=("rhel-9",)))


def test_64k_is_read_from_the_headers(tmp_path: Path) -> None:
    headers = [folder(f"{SOURCES}/{ARM}"), Member(f"{SOURCES}/{ARM}+64k/Makefile")]
    images = {
        NAME: _release(("driver-toolkit", DTK), architecture="arm64"),
        DTK: _toolkit(_named(ARM), "", "arm64", *headers),
    }
    choice = Choice(flavours=(Flavour.STANDARD, Flavour.PAGES_64K))
    assert _read(tmp_path, images, choice)[1] == (
        _target(ARM, arch="arm64"),
        _target(f"{ARM}+64k", flavour=Flavour.PAGES_64K, arch="arm64", place=SOURCES),
    )


@pytest.mark.parametrize(
    ("members", "have"),
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
def test_no_64k_kernel(tmp_path: Path, members: list[Member], have: str) -> None:
    images = {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_named(KERNEL), "", "amd64", *members)}
    with pytest.raises(UsageProblem, match=f"--flavour 64k: the driver toolkit of kernel {KERNEL} has kernels {have}$"):
        _read(tmp_path, images, Choice(flavours=(Flavour.PAGES_64K,)))


ARM_RELEASE = _release(("driver-toolkit", DTK), architecture="arm64")
ATTESTATION = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "digest": "sha256:" + "0" * 64,
    "size": 1,
    "platform": {"os": "unknown", "architecture": "unknown"},
}


def _multi(docker: bool = False) -> dict[str, Image]:
    toolkits = [_toolkit(_named(KERNEL)), _toolkit(_named(ARM), "", "arm64")]
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
    assert [one.arch for one in release.toolkits] == [one.arch for one in kernels]
    assert {one.rhel_version for one in release.toolkits} == {"9.6"}


@pytest.mark.parametrize("arches", [(), ("arm64",), ("multi",)])
def test_a_single_image_has_its_own_architecture(tmp_path: Path, arches: tuple[str, ...]) -> None:
    """With an index of toolkits behind it, the toolkit is that of the release's architecture."""
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
def test_no_such_architecture(tmp_path: Path, images: Mapping[str, Image], words: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        _read(tmp_path, images, Choice(arches=("s390x",)))
    assert caught.value.message == f"--arch s390x: {words}"


@pytest.mark.parametrize(
    ("wants", "kernels"),
    [
        ([KernelFilter("rhel-9", "amd64", Flavour.STANDARD)], (NINE,)),
        ([KernelFilter("rhel-10", "amd64", Flavour.RT)], (RT_10,)),
        ([KernelFilter("rhel-9", "amd64", Flavour.RT), KernelFilter("rhel-10", "amd64", Flavour.STANDARD)], (RT, TEN)),
        ([KernelFilter("", "amd64", Flavour.RT)], (RT, RT_10)),
        ([KernelFilter("rhel-9", "", None)], (NINE,)),
        ([KernelFilter("rhel-9", "amd64", Flavour.PAGES_64K)], ()),
        ([KernelFilter("rhel-9", "arm64", Flavour.STANDARD)], ()),
        ([KernelFilter("rhel-8", "amd64", Flavour.STANDARD)], ()),
        ([], ()),
    ],
)
def test_only_what_nodes_need_is_read(tmp_path: Path, wants: list[KernelFilter], kernels: Kernels) -> None:
    assert _read(tmp_path, TWO, Choice(wants=frozenset(wants)))[1] == kernels


def test_a_toolkit_that_no_node_needs_is_not_read(tmp_path: Path) -> None:
    """Its JSON could not be."""
    images = {**TWO, DTK_10: _toolkit(b"<html>", "rhel-10")}
    release, kernels = _read(
        tmp_path, images, Choice(wants=frozenset([KernelFilter("rhel-9", "amd64", Flavour.STANDARD)]))
    )
    assert ([one.stream for one in release.toolkits], kernels) == (["rhel-9"], (NINE,))


@pytest.mark.parametrize(
    ("arch", "flavour", "folders", "kernel"),
    [
        ("amd64", Flavour.RT, [KERNEL, f"{KERNEL}+rt"], f"{KERNEL}+rt"),
        ("amd64", Flavour.RT, [KERNEL, "4.18.0-372.9.1.rt7.166.el8.x86_64"], "4.18.0-372.9.1.rt7.166.el8.x86_64"),
        ("amd64", Flavour.RT, [KERNEL, "x+rt"], None),
        ("arm64", Flavour.PAGES_64K, [ARM, f"{ARM}+64k"], f"{ARM}+64k"),
    ],
)
def test_folders_name_what_the_json_does_not(
    tmp_path: Path, arch: str, flavour: Flavour, folders: list[str], kernel: str | None
) -> None:
    """Of 4.12 since 2025-10 the JSON has no rt, of none 64k (docs/reference/openshift.md 2.1)."""
    headers = [Member(f"{SOURCES}/{one}/Makefile", b"") for one in folders]
    images = {
        NAME: _release(("driver-toolkit", DTK), architecture=arch),
        DTK: _toolkit(_named(KERNEL if arch == "amd64" else ARM, None), "", arch, *headers),
    }
    read = _read(tmp_path, images, Choice(wants=frozenset([KernelFilter("rhel-9", arch, flavour)])))[1]
    assert [one.version for one in read] == ([kernel] if kernel else [])
    assert all(one.provenance == f"/{SOURCES} of {DTK}" for one in read)


def _sparse(tmp_path: Path, arch: str) -> LayoutReference:
    """A layout of the multi release in which all that is for another architecture is missing."""
    images = _multi()
    kept = {"amd64": 0, "arm64": 1}[arch]
    layout = write_layout(tmp_path / "layout", images)
    for one in images.values():
        for number, child in enumerate(one.children):
            if number != kept:
                (layout / "blobs" / "sha256" / child.digest.removeprefix("sha256:")).unlink()
    return LayoutReference(layout, "", archive=False)


@pytest.mark.parametrize(("arch", "kernel"), [("amd64", AMD64), ("arm64", ARM64)])
def test_children_that_no_node_needs_may_be_missing(tmp_path: Path, arch: str, kernel: TargetKernel) -> None:
    """As oc-mirror leaves an index of which one architecture was mirrored (docs/reference/openshift.md 1.3)."""
    layout = _sparse(tmp_path, arch)
    images = ImageResolver(Network(), Cache(tmp_path / "cache"), layout, KeepRules(paths=FILES))
    assert read_streams(images, NAME, ("amd64", "arm64"), PullCredentials()) == ("4.99.0", ("rhel-9",))
    choice = Choice(wants=frozenset([KernelFilter("rhel-9", arch, Flavour.STANDARD)]))
    assert read_release(images, NAME, choice, PullCredentials())[1] == (kernel,)
    both = Choice(wants=frozenset(KernelFilter("rhel-9", one, Flavour.STANDARD) for one in ("amd64", "arm64")))
    assert read_release(images, NAME, both, PullCredentials())[1] == (kernel,)
    with pytest.raises(UsageProblem, match=r"--arch .*: image .*, which the registry does not have"):
        read_release(images, NAME, Choice(arches=("amd64", "arm64")), PullCredentials())


@pytest.mark.parametrize("lacks", [NAME, DTK])
def test_what_the_release_has_not_for_nodes_is_left_out(tmp_path: Path, lacks: str) -> None:
    """Who needs it is told so; the others are judged."""
    single = {NAME: _release(("driver-toolkit", DTK)), DTK: _toolkit(_named(KERNEL))}[lacks]
    both = Choice(wants=frozenset(KernelFilter("rhel-9", one, Flavour.STANDARD) for one in ("amd64", "arm64")))
    assert _read(tmp_path, {**_multi(), lacks: single}, both)[1] == (AMD64,)


@pytest.mark.parametrize("arches", [("arm64", "s390x"), ("s390x", "arm64"), ("multi", "s390x"), ("s390x", "multi")])
@pytest.mark.parametrize("single", [False, True], ids=["index", "single image"])
def test_one_architecture_among_others_is_not_there(tmp_path: Path, arches: tuple[str, ...], single: bool) -> None:
    images = {**_multi(), NAME: ARM_RELEASE} if single else _multi()
    with pytest.raises(UsageProblem) as caught:
        _read(tmp_path, images, Choice(arches=arches))
    got = "an image for arm64" if single else "an index of linux/amd64, linux/arm64"
    assert caught.value.message == f"--arch s390x: image {NAME}: got {got}, expected linux/s390x"


def test_every_named_architecture_is_one_of_the_release(tmp_path: Path) -> None:
    """The toolkits alone would have both."""
    with pytest.raises(UsageProblem, match=r"--arch amd64: image .*: got an image for arm64, expected linux/amd64"):
        _read(tmp_path, {**_multi(), NAME: ARM_RELEASE}, Choice(arches=("arm64", "amd64")))


def test_a_toolkit_lacks_an_architecture(tmp_path: Path) -> None:
    images = {**_multi(), DTK: _toolkit(_named(KERNEL))}
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
def test_name_of_a_version(text: str, arches: tuple[str, ...], name: str) -> None:
    assert release_name(text, arches) == f"quay.io/openshift-release-dev/ocp-release:{name}"


@pytest.mark.parametrize("text", ["quay.io/a/b:4.18.3", "4.18", "v4.18.3", "oci:images:4.18.3", "host:5000/a@sha256:x"])
def test_any_other_name_stays(text: str) -> None:
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
    with pytest.raises(Malformed, match=f"tag driver-toolkit of {REFERENCES}: got no pull spec, expected from.name"):
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
def test_image_references_refused(document: dict[str, object], message: str) -> None:
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
def test_toolkit_refused(document: dict[str, object], message: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_toolkit(Field(document))
    assert caught.value.message.startswith(message)


def test_kernel_of_flavour() -> None:
    named = parse_toolkit(Field(json.loads(_named(KERNEL, f"{KERNEL}+rt"))))
    assert named == ToolkitKernels(KERNEL, f"{KERNEL}+rt", "9.6")
    assert kernel_of_flavour(named, Flavour.STANDARD) == KERNEL
    assert kernel_of_flavour(named, Flavour.RT) == f"{KERNEL}+rt"


def test_a_real_payload() -> None:
    """image-references of a public 4.10 release, where $PREFLIGHT_REAL_DATA has it."""
    given = os.environ.get("PREFLIGHT_REAL_DATA")
    if not given:
        pytest.skip("PREFLIGHT_REAL_DATA names no folder with release/image-references-4.10.json")
    body = (Path(given) / "release" / "image-references-4.10.json").read_bytes()
    version, toolkits = parse_image_references(Field(json.loads(body)), "r")
    assert version.startswith("4.10.")
    assert list(toolkits) == ["driver-toolkit"]
    assert "@sha256:" in toolkits["driver-toolkit"]
