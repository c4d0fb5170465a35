"""Compare the driver toolkit's kernel with the release's OS image: layouts, registries, whole runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kmm_preflight.model import Flavour, Release, TargetKernel
from kmm_preflight.nodes.targets import targets_for_any_node
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network, Patience
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.layers import KeepRules
from kmm_preflight.oci.reference import LayoutReference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.release import findings
from kmm_preflight.release.choice import Choice
from kmm_preflight.release.driver_toolkit import TOOLKIT_RELEASE, Kernels
from kmm_preflight.release.packages import EXTENSIONS_LIST, NODE_LIST
from kmm_preflight.release.payload import FILES, read_release
from kmm_preflight.stages.report import EXIT_REFUTED, EXIT_UNDECIDED

from .demo import BUILD, manifests, module
from .os_images import (
    OS,
    RPMS,
    Tags,
    extensions_image,
    extensions_list,
    node_image,
    node_list,
    release,
    rpm_layer,
    toolkit,
)
from .real.faults import BLOBS, Fault, FaultyRegistry
from .real.layout import OCI_LAYER, Blob, Image, Member, folder, image, index, layer, write_layout
from .runs import run_preflight

RELEASE = "host.example/release:4.99.0-x86_64"
DTK, DTK_10 = "host.example/dtk:9", "host.example/dtk:10"
NODE, NODE_10, EXTENSIONS = "host.example/os:9", "host.example/os:10", "host.example/extensions:9"
KERNEL, NEWER = "5.14.0-570.19.1.el9_6.x86_64", "5.14.0-570.21.1.el9_6.x86_64"
ARM, ARM_64K = "5.14.0-570.19.1.el9_6.aarch64", "5.14.0-570.17.1.el9_6.aarch64"
TEN = "6.12.0-55.9.1.el10_0.x86_64"
EIGHT, EIGHT_RT = "4.18.0-305.17.1.el8_4.x86_64", "4.18.0-305.17.1.rt7.89.el8_4.x86_64"
NINE_RT = "5.14.0-284.30.1.rt14.315.el9_2.x86_64"
BOTH = Choice(flavours=(Flavour.STANDARD, Flavour.RT))


def read(tmp_path: Path, images: Mapping[str, Image], choice: Choice = Choice()) -> tuple[Release, Kernels]:  # noqa: B008
    """Read the release from a layout of the images."""
    layout = LayoutReference(write_layout(tmp_path / "layout", images), None, archive=False)
    resolver = ImageResolver(Network(), Cache(tmp_path / "cache"), layout, KeepRules(paths=FILES))
    result, kernels = read_release(resolver, RELEASE, choice, PullCredentials())
    return result, tuple(target.kernel for target in targets_for_any_node(kernels))


def comparison_of(kernel: TargetKernel) -> tuple[str, str]:
    """Return a kernel's version and the result of its comparison: its problem's id, or the place of the same kernel."""
    return kernel.version, kernel.problem.id if kernel.problem else kernel.provenance.partition(", and ")[2]


def same(image: str = NODE, place: str = NODE_LIST) -> str:
    """Return the place that proves a kernel."""
    return f"/{place} of {image}"


DIFFERS, UNCLEAR = "kernel-differs", "kernel-unclear"
MODERN = {"driver-toolkit": DTK, "rhel-coreos": NODE, "rhel-coreos-extensions": EXTENSIONS}


@dataclass(frozen=True)
class Case:
    """A release with its images, and the result of the comparison."""

    tags: Tags
    """Tags of the release image, with their pull specs."""
    images: Mapping[str, Image]
    """Images that the tags name."""
    kernels: Sequence[tuple[str, str]]
    """The expected kernels, as comparison_of returns them."""
    notes: Sequence[str] = ()
    """Parts of the expected notes."""
    choice: Choice = field(default_factory=Choice)
    """The options of the run."""
    sources: Tags = field(default_factory=dict)
    """Source repositories by tag."""


CASES = {
    "the same": Case(MODERN, {DTK: toolkit(KERNEL), NODE: node_image(node_list(KERNEL))}, [(KERNEL, same())]),
    "an older toolkit": Case(MODERN, {DTK: toolkit(KERNEL), NODE: node_image(node_list(NEWER))}, [(KERNEL, DIFFERS)]),
    "a newer toolkit": Case(MODERN, {DTK: toolkit(NEWER), NODE: node_image(node_list(KERNEL))}, [(NEWER, DIFFERS)]),
    "only rt differs": Case(
        MODERN,
        {
            DTK: toolkit(KERNEL, f"{KERNEL}+rt"),
            NODE: node_image(node_list(KERNEL)),
            EXTENSIONS: extensions_image(extensions_list(kernel_rt_core=NEWER)),
        },
        [(KERNEL, same()), (f"{KERNEL}+rt", DIFFERS)],
        choice=BOTH,
    ),
    "rt is the same": Case(
        MODERN,
        {DTK: toolkit(KERNEL, f"{KERNEL}+rt"), EXTENSIONS: extensions_image(extensions_list(kernel_rt_core=KERNEL))},
        [(f"{KERNEL}+rt", same(EXTENSIONS, EXTENSIONS_LIST))],
        choice=Choice(flavours=(Flavour.RT,)),
    ),
    "rt of 4.14, by its RPMs": Case(
        MODERN,
        {DTK: toolkit(KERNEL, NINE_RT), EXTENSIONS: image([OS, rpm_layer(f"kernel-rt-core-{NINE_RT}")])},
        [(NINE_RT, same(EXTENSIONS, RPMS))],
        choice=Choice(flavours=(Flavour.RT,)),
    ),
    "no rt among the extensions": Case(
        MODERN,
        {DTK: toolkit(KERNEL, f"{KERNEL}+rt"), EXTENSIONS: extensions_image(extensions_list())},
        [(f"{KERNEL}+rt", "")],
        [f"image {EXTENSIONS}: /{EXTENSIONS_LIST} lists nothing as kernel-rt-core, expected one kernel"],
        Choice(flavours=(Flavour.RT,)),
    ),
    "64k of another version": Case(
        MODERN,
        {
            DTK: toolkit(ARM, "", "", "arm64", folder(f"usr/src/kernels/{ARM}+64k")),
            NODE: node_image(node_list(ARM), architecture="arm64"),
            EXTENSIONS: extensions_image(extensions_list(kernel_64k_core=ARM_64K), architecture="arm64"),
        },
        [(ARM, same()), (f"{ARM}+64k", DIFFERS)],
        choice=Choice(arches=("arm64",), flavours=(Flavour.STANDARD, Flavour.PAGES_64K)),
    ),
    "two architectures, one of them differs": Case(
        MODERN,
        {
            DTK: index([toolkit(KERNEL), toolkit(ARM, architecture="arm64")]),
            NODE: index([node_image(node_list(KERNEL)), node_image(node_list(ARM_64K), architecture="arm64")]),
        },
        [(KERNEL, same()), (ARM, DIFFERS)],
        choice=Choice(arches=("amd64", "arm64")),
    ),
    "an architecture that the OS lacks": Case(
        MODERN,
        {
            DTK: index([toolkit(KERNEL), toolkit(ARM, architecture="arm64")]),
            NODE: index([node_image(node_list(KERNEL))]),
        },
        [(KERNEL, same()), (ARM, "")],
        ["(rhel-9, arm64, standard) was not compared", "got an index of linux/amd64, expected linux/arm64"],
        Choice(arches=("amd64", "arm64")),
    ),
    "streams by label": Case(
        {"driver-toolkit": DTK, "driver-toolkit-10": DTK_10, "stream-coreos-x": NODE, "rhel-coreos": NODE_10},
        {
            DTK: toolkit(KERNEL, stream="rhel-9"),
            DTK_10: toolkit(TEN, stream="rhel-10"),
            NODE: node_image(node_list(KERNEL), stream="rhel-9"),
            NODE_10: node_image(node_list(TEN), stream="rhel-10"),
        },
        [(KERNEL, same()), (TEN, same(NODE_10))],
    ),
    "a label on the OS alone, and a stream without toolkit": Case(
        {**MODERN, "rhel-coreos-10": NODE_10},
        {
            DTK: toolkit(KERNEL),
            NODE: node_image(node_list(KERNEL), stream="rhel-9"),
            NODE_10: node_image(node_list(TEN), stream="rhel-10"),
        },
        [(KERNEL, same())],
        [f"stream rhel-10 of the release has an OS image ({NODE_10}) but no driver toolkit: its kernels are not"],
    ),
    "a stream without toolkit that was not chosen": Case(
        {**MODERN, "rhel-coreos-10": NODE_10},
        {
            DTK: toolkit(KERNEL),
            NODE: node_image(node_list(KERNEL), stream="rhel-9"),
            NODE_10: node_image(node_list(TEN), stream="rhel-10"),
        },
        [(KERNEL, same())],
        choice=Choice(streams=("rhel-9",)),
    ),
    "of two images of a stream the last": Case(
        {"driver-toolkit": DTK, "rhel-coreos": NODE, "rhel-coreos-x": NODE_10},
        {
            DTK: toolkit(KERNEL),
            NODE: node_image(node_list(KERNEL), stream="rhel-9"),
            NODE_10: node_image(node_list(NEWER), stream="rhel-9"),
        },
        [(KERNEL, DIFFERS)],
    ),
    "of two images without labels the last": Case(
        {"driver-toolkit": DTK, "rhel-coreos": NODE, "rhel-coreos-x": NODE_10},
        {DTK: toolkit(KERNEL), NODE: node_image(node_list(KERNEL)), NODE_10: node_image(node_list(NEWER))},
        [(KERNEL, DIFFERS)],
    ),
    "an image with both labels is an OS image, as for the machine config operator": Case(
        {"driver-toolkit": DTK, "rhel-coreos": NODE},
        {
            DTK: toolkit(KERNEL),
            NODE: node_image(node_list(NEWER), stream="rhel-9", io_openshift_os_extensions="true"),
        },
        [(KERNEL, DIFFERS)],
    ),
    "extensions of a stream without an OS image": Case(
        {"driver-toolkit": DTK, "rhel-coreos": NODE, "rhel-coreos-extensions": EXTENSIONS},
        {
            DTK: toolkit(KERNEL),
            NODE: node_image(node_list(KERNEL), stream="rhel-9"),
            EXTENSIONS: extensions_image(extensions_list(), stream="rhel-10"),
        },
        [(KERNEL, same())],
    ),
    "no labels, RHEL by the tag's name": Case(
        {"driver-toolkit": DTK, "driver-toolkit-10": DTK_10, "rhel-coreos": NODE, "rhel-coreos-10": NODE_10},
        {
            DTK: toolkit(KERNEL),
            DTK_10: toolkit(TEN),
            NODE: node_image(node_list(KERNEL)),
            NODE_10: node_image(node_list(TEN)),
        },
        [(KERNEL, same()), (TEN, same(NODE_10))],
    ),
    "no label, and RHEL of one of two toolkits": Case(
        {"driver-toolkit": DTK, "driver-toolkit-10": DTK_10, "rhel-coreos": NODE},
        {DTK: toolkit(KERNEL), DTK_10: toolkit(TEN), NODE: node_image(node_list(KERNEL), ostree_linux=KERNEL)},
        [(KERNEL, same()), (TEN, "")],
        [f"its kernel {KERNEL} is of another RHEL, so its stream is unknown"],
    ),
    "OKD, whose toolkit is of another stream": Case(
        {"driver-toolkit": DTK, "stream-coreos": NODE},
        {DTK: toolkit(KERNEL), NODE: node_image(node_list(TEN), stream="centos-10")},
        [(KERNEL, DIFFERS)],
    ),
    "OKD without labels": Case(
        {"driver-toolkit": DTK, "stream-coreos": NODE},
        {DTK: toolkit(KERNEL), NODE: node_image(node_list(TEN))},
        [(KERNEL, DIFFERS)],
    ),
    "OKD with machine-os-content, which its nodes do not boot": Case(
        {"driver-toolkit": DTK, "machine-os-content": NODE_10, "stream-coreos": NODE},
        {
            DTK: toolkit(KERNEL),
            NODE: node_image(node_list(TEN), stream="centos-10"),
            NODE_10: node_image(node_list(KERNEL)),
        },
        [(KERNEL, DIFFERS)],
    ),
    "by the source repository": Case(
        {"driver-toolkit": DTK, "node": NODE},
        {DTK: toolkit(KERNEL), NODE: node_image(node_list(NEWER), stream="rhel-9")},
        [(KERNEL, DIFFERS)],
        sources={"node": "https://github.com/openshift/os"},
    ),
    "another image of that repository": Case(
        {"driver-toolkit": DTK, "node": NODE},
        {DTK: toolkit(KERNEL), NODE: image([node_list(NEWER)])},
        [(KERNEL, "")],
        ["the release has no OS image of this stream"],
        sources={"node": "https://github.com/openshift/os"},
    ),
    "4.12": Case(
        {"driver-toolkit": DTK, "machine-os-content": NODE, "rhel-coreos-8": NODE_10},
        {
            DTK: toolkit(EIGHT),
            NODE: image([OS], labels={"com.coreos.rpm.kernel": "4.18.0-1.1.el8.x86_64"}),
            NODE_10: image([OS], labels={"ostree.linux": EIGHT}),
        },
        [(EIGHT, "")],
        ["its label ostree.linux names the same kernel, but a label is not a proof"],
    ),
    "machine-os-content": Case(
        {"driver-toolkit": DTK, "machine-os-content": NODE},
        {
            DTK: toolkit(EIGHT, EIGHT_RT),
            NODE: image(
                [rpm_layer(f"kernel-rt-core-{EIGHT_RT}", folder="extensions")], labels={"com.coreos.rpm.kernel": EIGHT}
            ),
        },
        [(EIGHT, ""), (EIGHT_RT, same(NODE, "extensions"))],
        ["its label com.coreos.rpm.kernel names the same kernel, but a label is not a proof"],
        BOTH,
    ),
    "a label against the toolkit": Case(
        MODERN,
        {DTK: toolkit(KERNEL), NODE: image([OS], labels={"ostree.linux": NEWER})},
        [(KERNEL, UNCLEAR)],
    ),
    "a label for rt against the toolkit": Case(
        {"driver-toolkit": DTK, "machine-os-content": NODE},
        {DTK: toolkit(EIGHT, EIGHT_RT), NODE: image([OS], labels={"com.coreos.rpm.kernel-rt-core": f"{EIGHT}.rt9"})},
        [(EIGHT_RT, UNCLEAR)],
        choice=Choice(flavours=(Flavour.RT,)),
    ),
    "wrong labels with a proof": Case(
        MODERN,
        {DTK: toolkit(KERNEL), NODE: node_image(node_list(KERNEL), ostree_linux=NEWER, com_coreos_rpm_kernel=NEWER)},
        [(KERNEL, same())],
    ),
    "wrong labels with a difference": Case(
        MODERN,
        {DTK: toolkit(KERNEL), NODE: node_image(node_list(NEWER), ostree_linux=KERNEL)},
        [(KERNEL, DIFFERS)],
    ),
    "a label that is not a kernel": Case(
        MODERN,
        {DTK: toolkit(KERNEL), NODE: node_image(ostree_linux="true")},
        [(KERNEL, "")],
        [f"image {NODE}: a layer with /usr/lib/modules/k/vmlinuz is at its top, expected a layer with /{NODE_LIST}"],
    ),
    "a wrong stream label": Case(
        {"driver-toolkit": DTK, "driver-toolkit-10": DTK_10, "rhel-coreos": NODE},
        {
            DTK: toolkit(KERNEL, stream="rhel-9"),
            DTK_10: toolkit(TEN, stream="rhel-10"),
            NODE: node_image(node_list(KERNEL), stream="rhel-10"),
        },
        [(KERNEL, ""), (TEN, DIFFERS)],
        ["(rhel-9, amd64, standard) was not compared with the kernel of the OS image that nodes boot: the release"],
    ),
    "a layer on top": Case(
        MODERN,
        {DTK: toolkit(KERNEL), NODE: node_image(node_list(NEWER), layer([("usr/lib/modules/x/vmlinuz", b"x")]))},
        [(KERNEL, "")],
        ["a layer with /usr/lib/modules/x/vmlinuz is at its top"],
    ),
    "a damaged list": Case(
        MODERN,
        {DTK: toolkit(KERNEL), NODE: node_image(layer([(NODE_LIST, b'{"rpmdb.pkglist": "\x1b[31m')]))},
        [(KERNEL, "")],
        [f"/{NODE_LIST} of image {NODE}: document: not a JSON object"],
    ),
    "no OS image": Case(
        {"driver-toolkit": DTK},
        {DTK: toolkit(KERNEL, f"{KERNEL}+rt")},
        [(KERNEL, ""), (f"{KERNEL}+rt", "")],
        ["has no OS image of this stream", "has no extensions image of this stream"],
        BOTH,
    ),
    "an OS image that is not there": Case(
        MODERN, {DTK: toolkit(KERNEL)}, [(KERNEL, "")], [f"image {NODE}: layout ", "was not compared"]
    ),
    "a tag without a pull spec": Case(
        {"driver-toolkit": DTK, "rhel-coreos": ""},
        {DTK: toolkit(KERNEL)},
        [(KERNEL, "")],
        ["tag rhel-coreos of the release has no pull spec in from.name"],
    ),
    "more tags than are read": Case(
        {"driver-toolkit": DTK, **{f"rhel-coreos-{number}": NODE for number in range(20, 37)}, "rhel-coreos": NODE},
        {DTK: toolkit(KERNEL), NODE: node_image(node_list(KERNEL))},
        [(KERNEL, "")],
        ["18 tags may be OS images: only the first 16 were read"],
    ),
    "one kernel in two streams, one of which boots another": Case(
        {"driver-toolkit": DTK, "driver-toolkit-10": DTK_10, "rhel-coreos": NODE, "rhel-coreos-10": NODE_10},
        {
            DTK: toolkit(KERNEL, stream="rhel-9"),
            DTK_10: toolkit(KERNEL, stream="rhel-10"),
            NODE: node_image(node_list(KERNEL), stream="rhel-9"),
            NODE_10: node_image(node_list(TEN), stream="rhel-10"),
        },
        [(KERNEL, DIFFERS)],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_kernels_of_a_release(tmp_path: Path, case: Case) -> None:
    architecture = "arm64" if case.choice.arches == ("arm64",) else "amd64"
    single = release(case.tags, case.sources, architecture)
    two = index([single, release(case.tags, architecture="arm64")])
    release_image = two if len(case.choice.arches) > 1 else single
    result, kernels = read(tmp_path, {RELEASE: release_image, **case.images}, case.choice)
    assert [comparison_of(kernel) for kernel in kernels] == list(case.kernels)
    notes = " | ".join(result.notes)
    assert [words for words in case.notes if words not in notes] == []
    assert bool(case.notes) == bool(result.notes), notes


@pytest.mark.parametrize(
    ("tags", "node", "choice", "os_image"),
    [
        (MODERN, node_image(node_list(KERNEL)), Choice(), NODE),
        (MODERN, image([OS]), Choice(), NODE),
        (MODERN, node_image(node_list(NEWER)), Choice(), ""),
        (MODERN, image([OS], labels={"ostree.linux": NEWER}), Choice(), ""),
        (MODERN, node_image(node_list(KERNEL)), Choice(flavours=(Flavour.RT,)), ""),
        ({"driver-toolkit": DTK, "machine-os-content": NODE}, image([OS]), Choice(), ""),
        ({"driver-toolkit": DTK}, image([OS]), Choice(), ""),
    ],
    ids=["equal", "not compared", "another kernel", "another kernel by its label", "rt", "an archive", "none"],
)
def test_the_os_image_that_may_have_the_kernel_s_files(
    tmp_path: Path, tags: Mapping[str, str], node: Image, choice: Choice, os_image: str
) -> None:
    extensions = extensions_image(extensions_list(kernel_rt_core=KERNEL))
    images = {RELEASE: release(tags), DTK: toolkit(KERNEL, f"{KERNEL}+rt"), NODE: node, EXTENSIONS: extensions}
    _, (kernel,) = read(tmp_path, images, choice)
    assert (kernel.os_image or "") == os_image


def test_the_finding_of_a_difference(tmp_path: Path) -> None:
    images = {RELEASE: release(MODERN), DTK: toolkit(KERNEL, f"{KERNEL}+rt")}
    images[EXTENSIONS] = extensions_image(extensions_list(kernel_rt_core=NEWER))
    _, (kernel,) = read(tmp_path, images, Choice(flavours=(Flavour.RT,)))
    assert kernel.problem == findings.KERNEL_DIFFERS(
        got=f"{KERNEL}+rt",
        toolkit=f"/{TOOLKIT_RELEASE} of {DTK}",
        expected=f"{NEWER}+rt",
        image=f"/{EXTENSIONS_LIST} of {EXTENSIONS}",
    )


QUICK = Patience(connect_seconds=2, read_seconds=2, backoff_seconds=0.01, retry_after_seconds=1, grace_seconds=1)
LARGE = layer([Member("usr/share/large", os.urandom(9 << 20))], OCI_LAYER)
RPMS_LAYER = rpm_layer(f"kernel-rt-core-{KERNEL}")


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    """Start an empty registry."""
    with FaultyRegistry({}) as faulty:
        yield faulty


def serve(registry: FaultyRegistry, images: Mapping[str, Image]) -> str:
    """Serve a release with these images by tag. Return the name of the release."""
    tags = {tag: f"{registry.host}/os/{tag}:1" for tag in images}
    served = {f"os/{tag}:1": image for tag, image in images.items()} | {"os/release:1": release(tags)}
    with FaultyRegistry(served) as other:
        registry.content |= other.content
    return f"{registry.host}/os/release:1"


def read_remote(tmp_path: Path, name: str, choice: Choice) -> tuple[Release, Kernels]:
    """Read a release from a registry."""
    resolver = ImageResolver(Network(patience=QUICK), Cache(tmp_path / "cache"), None, KeepRules(paths=FILES))
    return read_release(resolver, name, choice, PullCredentials())


def fetched(registry: FaultyRegistry) -> set[str]:
    """Return the digests of the blobs that were requested."""
    return {request.path.rpartition("/")[2] for request in registry.requests() if BLOBS in request.path}


@pytest.mark.parametrize(
    ("node", "extensions", "layers", "compared"),
    [
        (
            [OS, LARGE, node_list(KERNEL)],
            [OS, RPMS_LAYER, extensions_list(kernel_rt_core=KERNEL)],
            [node_list(KERNEL), extensions_list(kernel_rt_core=KERNEL)],
            True,
        ),
        ([OS, LARGE], [OS, LARGE, RPMS_LAYER], [RPMS_LAYER], False),
        ([LARGE, OS], [LARGE, OS], [OS], False),
    ],
    ids=["4.19", "4.14", "no list"],
)
def test_only_the_layers_at_the_top_are_requested(
    registry: FaultyRegistry,
    tmp_path: Path,
    node: list[Blob],
    extensions: list[Blob],
    layers: list[Blob],
    compared: bool,
) -> None:
    images = {
        "driver-toolkit": toolkit(KERNEL, f"{KERNEL}+rt"),
        "rhel-coreos": image(node),
        "rhel-coreos-extensions": image(extensions),
    }
    name = serve(registry, images)
    result, _ = read_remote(tmp_path, name, BOTH)
    assert bool(result.notes) != compared
    of_os = {blob.digest for tag in ("rhel-coreos", "rhel-coreos-extensions") for blob in images[tag].blobs[1:]}
    assert fetched(registry) & of_os == {blob.digest for blob in layers}
    registry.forget()
    read_remote(tmp_path, name, BOTH)
    assert {request.method for request in registry.requests() if BLOBS in request.path} <= {"HEAD"}, (
        "a later run fetches none"
    )


GONE = Fault("os/rhel-coreos/", status=404)


@pytest.mark.parametrize(
    ("fault", "problem", "words"),
    [
        (Fault("os/rhel-coreos-9-x/", status=503), "registry-unreachable", "the kernel of the OS image is unknown: "),
        (
            Fault(node_list(KERNEL).digest, status=500),
            "registry-unreachable",
            "the kernel of the OS image is unknown",
        ),
        (Fault(node_list(KERNEL).digest, wrong_bytes=True), "digest-mismatch", "the kernel of the OS image is unk"),
        (GONE, "", "was not compared"),
        (Fault("os/rhel-coreos/", status=403), "", "was not compared"),
    ],
    ids=["503 and 404 of two images", "500 of the list", "altered", "missing", "refused"],
)
def test_an_os_image_that_cannot_be_read(
    registry: FaultyRegistry, tmp_path: Path, fault: Fault, problem: str, words: str
) -> None:
    """The kernel is undecided if another run may read the image. Otherwise the run has a note."""
    images = {"driver-toolkit": toolkit(KERNEL), "rhel-coreos": node_image(node_list(KERNEL))}
    name = serve(registry, {**images, "rhel-coreos-9-x": images["rhel-coreos"]})
    image_exists = fault.path.startswith("sha256:")
    registry.set_faults(fault, Fault("os/rhel-coreos-9-x/", status=404), *([] if image_exists else [GONE]))
    result, (kernel,) = read_remote(tmp_path, name, Choice())
    assert (kernel.problem.id if kernel.problem else "") == problem
    assert words in (kernel.problem.sentence if kernel.problem else result.notes[0])


@pytest.mark.parametrize(
    ("node", "code", "finding", "verdict"),
    [
        (node_image(node_list(NEWER)), EXIT_REFUTED, DIFFERS, "refuted"),
        (image([OS], labels={"ostree.linux": NEWER}), EXIT_UNDECIDED, UNCLEAR, "undecided"),
    ],
    ids=["older toolkit", "a label"],
)
def test_a_whole_run(tmp_path: Path, node: Image, code: int, finding: str, verdict: str) -> None:
    images = {RELEASE: release(MODERN), DTK: toolkit(KERNEL), NODE: node}
    layout = write_layout(tmp_path / "layout", images)
    modules = manifests(tmp_path, module("a"), module("b", sections=BUILD))
    run = run_preflight(tmp_path, f"--release-image={RELEASE}", f"--image-layout={layout}", modules, "-n0")
    assert run.returncode == code, run.output
    assert run.verdicts() == {"a": (verdict, finding), "b": (verdict, finding)}
    assert [kernel["problem"] for kernel in run.document["kernels"]] == [finding]
    assert KERNEL in run.sentences()["a"]
    assert NEWER in run.sentences()["a"]
    assert NEWER in run.stdout


def test_the_report_notes_a_kernel_that_was_not_compared(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {RELEASE: release({"driver-toolkit": DTK}), DTK: toolkit(KERNEL)})
    options = (f"--release-image={RELEASE}", f"--image-layout={layout}", manifests(tmp_path, module("a")), "-n0")
    run = run_preflight(tmp_path, *options)
    notes = [words for words in run.document["assumed"] if "was not compared" in words]
    assert notes == [
        f"kernel {KERNEL} (rhel-9, amd64, standard) was not compared with the kernel of the OS image that nodes boot: "
        "the release has no OS image of this stream"
    ]
    assert run.document["kernels"][0]["problem"] is None
    assert run.verdicts() == {"a": ("refuted", "image-not-found")}
