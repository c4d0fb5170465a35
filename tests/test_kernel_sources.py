"""A kernel's own files: from the driver toolkit, else from the OS image, of which few bytes are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kmm_preflight.kmod.symvers import SymversStore
from kmm_preflight.model import Flavour, TargetKernel
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network, Patience
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.release import findings
from kmm_preflight.release.driver_toolkit import TOOLKIT_RELEASE
from kmm_preflight.release.kernel_image import KERNEL_FILES
from kmm_preflight.release.kernel_sources import OS_IMAGE_BYTES, KernelSources, ReadKernelFiles
from kmm_preflight.stages.kept_files import keep_rules
from kmm_preflight.trial.vmlinuz import find_vmlinuz, release_of

from .demo import manifests, module
from .os_images import release
from .real.faults import BLOBS, Fault, FaultyRegistry
from .real.kernels import in_tree, vmlinuz
from .real.kmod import headers
from .real.layout import OCI_LAYER, Blob, Image, Member, image, layer
from .real.os_image import kernel_files, ostree_layer, plain_layer
from .real.push import push
from .real.registry import Registry
from .runs import run_preflight
from .test_loading import Case as KmodCase
from .test_loading import Kernels, made
from .test_loading import of as of  # a fixture

QUICK = Patience(connect_seconds=2, read_seconds=2, backoff_seconds=0.01, retry_after_seconds=1, grace_seconds=1)
DTK, OS = "dtk/toolkit:1", "os/node:1"
BELOW = layer([Member("usr/share/large", os.urandom(1 << 20))], OCI_LAYER)
ABOVE = layer([("usr/lib/os-release", b"ID=rhel\n"), ("etc/motd", b"hello\n")])
HEADERS = ("Module.symvers", ".config")
LISTS = ("modules.order", "modules.builtin", "modules.builtin.modinfo")
ALL = "Module.symvers, .config, modules.builtin"


def toolkit(kernel: str, *names: str) -> Image:
    """Return a driver toolkit with some of the kernel's files, in OpenShift's folders."""
    files = [
        Member(f"usr/src/kernels/{kernel}/{name}", (headers(kernel) / name).read_bytes())
        if name in HEADERS
        else Member(f"lib/modules/{kernel}/{name}", (in_tree(kernel) / name).read_bytes())
        for name in names
    ]
    return image([layer([Member("etc/driver-toolkit-release.json", b"{}"), *files], OCI_LAYER)])


@dataclass(frozen=True)
class Place:
    """A registry with both images, and the cache of a run."""

    registry: FaultyRegistry
    """The registry of both images."""
    folder: Path
    """The folder of the cache."""
    kernel: TargetKernel
    """The kernel whose files are read."""

    def serve(self, **images: Image) -> None:
        """Serve these images: dtk and os."""
        named = {DTK if name == "dtk" else OS: image for name, image in images.items()}
        with FaultyRegistry(named) as other:
            self.registry.content |= other.content

    def sources(self) -> KernelSources:
        """Return new kernel sources, as in a worker of a run."""
        resolver = ImageResolver(Network(patience=QUICK), Cache(self.folder), None, keep_rules(matching=KERNEL_FILES))
        return KernelSources(resolver, PullCredentials(), SymversStore(Cache(self.folder).folder("symvers")))

    def read(self) -> ReadKernelFiles:
        """Read the kernel's files as a new run does."""
        return self.sources().read(self.kernel)

    def fetched(self) -> list[str]:
        """Return the digests of the OS image's blobs, once for each time that they were fetched."""
        return [
            request.path.rpartition("/")[2]
            for request in self.registry.requests()
            if f"/{OS.partition(':')[0]}{BLOBS}" in request.path and request.method == "GET"
        ]

    def from_os_image(self, files: str) -> object:
        """Return the finding for files that were read from the OS image."""
        image = self.kernel.os_image
        names = {"kernel": self.kernel.version, "toolkit": self.kernel.driver_toolkit, "image": image}
        return findings.KERNEL_FILES_OS_IMAGE(files=files, **names)


@pytest.fixture
def place(tmp_path: Path, of: Kernels) -> Iterator[Place]:
    with FaultyRegistry({}) as registry:
        kernel = TargetKernel(
            of.target, "amd64", "rhel-12", Flavour.STANDARD, f"{registry.host}/{DTK}", "", None, f"{registry.host}/{OS}"
        )
        yield Place(registry, tmp_path / "cache", kernel)


def parts(result: ReadKernelFiles) -> tuple[bool, bool, bool]:
    """Return whether the symbols, the configuration and the names of built-in kmods were read."""
    files = result.files
    symbols = files.symvers is not None and files.symvers.find("module_layout") is not None and files.symvers.versioned
    return symbols, files.configuration is not None, bool(files.built_in and files.with_parameters)


@pytest.mark.parametrize(
    ("has", "missing", "read"),
    [
        ((*HEADERS, *LISTS), "", False),
        ((*HEADERS, "modules.builtin"), "", False),
        ((*HEADERS, "modules.order"), "", False),
        (("Module.symvers", *LISTS), ".config", True),
        ((".config", *LISTS), "Module.symvers", True),
        (HEADERS, "modules.builtin", True),
        ((), ALL, True),
    ],
    ids=["all", "an old kernel's lists", "no list of built-in kmods", "config", "symbols", "lists", "nothing"],
)
def test_the_os_image_is_read_only_for_files_that_the_toolkit_lacks(
    place: Place, has: tuple[str, ...], missing: str, read: bool
) -> None:
    node = image([BELOW, plain_layer(place.kernel.version, kernel_files(place.kernel.version)), ABOVE])
    place.serve(dtk=toolkit(place.kernel.version, *has), os=node)
    result = place.read()
    assert result.findings == ((place.from_os_image(missing),) if missing else ())
    assert parts(result)[:2] == (True, True)
    requests = [request for request in place.registry.requests() if "/os/" in request.path]
    assert bool(requests) == read
    layers = [blob.digest for blob in node.blobs[1:] if blob.digest in place.fetched()]
    expected = [blob.digest for blob in node.blobs[2:]] if read else []
    assert layers == expected, "the layer of the kernel's files, and the layers above it"
    assert len(place.fetched()) == len(set(place.fetched()))


@pytest.mark.parametrize(
    ("form", "made_as"), [("gz", plain_layer), ("xz", ostree_layer), ("zst", plain_layer), ("gz", ostree_layer)]
)
def test_every_form_and_layout_of_an_os_image(
    place: Place, form: str, made_as: Callable[[str, Mapping[str, bytes]], Blob]
) -> None:
    """In an ostree container a name comes after its content, so this layer is read twice, and no other layer."""
    version = place.kernel.version
    elsewhere = {"kernel/symvers.gz": b"not the kernel's"}
    kernels = made_as(version, {**elsewhere, **kernel_files(version, form)})
    place.serve(dtk=toolkit(version), os=image([BELOW, kernels, ABOVE]))
    result = place.read()
    assert parts(result) == (True, True, True)
    assert result.findings == (place.from_os_image(ALL),)
    assert result.files.vermagic is not None
    assert place.fetched().count(kernels.digest) == (2 if made_as is ostree_layer else 1)
    assert BELOW.digest not in place.fetched()
    place.registry.forget()
    again = place.read()
    assert (parts(again), again.findings) == (parts(result), result.findings)
    assert place.fetched() == [], "a later run fetches no blob"


def test_the_version_magic_is_read_from_an_in_tree_kmod_without_a_config(place: Place) -> None:
    version = place.kernel.version
    files = {name: content for name, content in kernel_files(version).items() if name != "config"}
    place.serve(dtk=toolkit(version, "Module.symvers", *LISTS), os=image([ostree_layer(version, files)]))
    result = place.read()
    assert (result.files.configuration, result.findings) == (None, (place.from_os_image("an in-tree kmod"),))
    assert (result.files.vermagic or "").startswith(f"{version} SMP")


@pytest.mark.parametrize("other", [True, False], ids=["another kernel", "no kernel"])
def test_an_os_image_without_this_kernel_is_not_used(place: Place, of: Kernels, other: bool) -> None:
    layers = [plain_layer(of.other, kernel_files(of.other))] if other else []
    place.serve(dtk=toolkit(place.kernel.version), os=image([BELOW, *layers, ABOVE]))
    result = place.read()
    assert (parts(result), result.findings) == ((False, False, False), ())


def unread(place: Place, problem: str, files: str = ALL) -> object:
    """Return the finding for an OS image that cannot be read."""
    names = {"kernel": place.kernel.version, "toolkit": place.kernel.driver_toolkit, "image": place.kernel.os_image}
    return findings.OS_IMAGE_UNREAD(files=files, problem=problem, **names)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("/os/", status=503), "503"),
        (Fault("/os/", status=404), "404"),
        (Fault(ABOVE.digest, wrong_bytes=True), "expected sha256:"),
        (Fault(ABOVE.digest, cut_after=9), "connection"),
    ],
    ids=["down", "missing", "altered", "cut"],
)
def test_an_os_image_that_cannot_be_read_is_a_finding(place: Place, fault: Fault, words: str) -> None:
    place.serve(dtk=toolkit(place.kernel.version, "Module.symvers"), os=image([BELOW, ABOVE]))
    place.registry.set_faults(fault)
    result = place.read()
    assert parts(result) == (True, False, False)
    (finding,) = result.findings
    problem = finding.sentence.partition(" could not be read: ")[2]
    expected = unread(place, problem, ".config, modules.builtin, an in-tree kmod")
    assert finding == expected, finding.sentence
    assert words in problem or fault.cut_after


def test_a_damaged_file_of_the_os_image_is_a_finding_and_not_used(place: Place) -> None:
    files = {"symvers.gz": b"\x1f\x8bno gzip", "config": kernel_files(place.kernel.version)["config"]}
    version = place.kernel.version
    place.serve(dtk=toolkit(version, ".config", *LISTS), os=image([plain_layer(version, files)]))
    result = place.read()
    assert parts(result) == (False, True, True)
    assert [finding.id for finding in result.findings] == ["os-image-unread"]
    assert "(Module.symvers), and OS image " in result.findings[0].sentence


def test_an_os_image_of_too_many_bytes_is_not_read(place: Place) -> None:
    half = replace(BELOW, data=b"")
    node = image([half, half, ABOVE])
    manifest = node.manifest.data.replace(b'"size": 0', b'"size": %d' % (OS_IMAGE_BYTES // 2))
    place.serve(dtk=toolkit(place.kernel.version), os=replace(node, manifest=replace(node.manifest, data=manifest)))
    result = place.read()
    assert "at most 4 GiB are read" in result.findings[0].sentence
    assert [finding.id for finding in result.findings] == ["os-image-unread"]
    assert ABOVE.digest not in place.fetched()


@pytest.mark.parametrize("of_toolkit", [True, False])
def test_the_kernel_to_boot_comes_from_the_toolkit_or_else_from_the_os_image(place: Place, of_toolkit: bool) -> None:
    version = place.kernel.version
    kernel_layer = layer([(f"usr/lib/modules/{version}/vmlinuz", vmlinuz(version).read_bytes())], OCI_LAYER)
    place.serve(
        dtk=image([kernel_layer] if of_toolkit else [ABOVE]),
        os=image([BELOW, ostree_layer(version, kernel_files(version))]),
    )
    sources = place.sources()

    def own() -> Path | None:
        file = sources.own_file(place.kernel, "vmlinuz")
        assert file is None or file.from_os_image is not of_toolkit
        return file.path if file else None

    found = find_vmlinuz((), place.kernel, own)
    assert isinstance(found, Path)
    assert found.read_bytes() == vmlinuz(version).read_bytes()
    assert release_of(found) == version
    assert bool(place.fetched()) is not of_toolkit
    assert sources.own_file(place.kernel, "kernel/none.ko") is None


def test_an_in_tree_kmod_is_found_in_the_os_image(place: Place) -> None:
    version = place.kernel.version
    files = kernel_files(version)
    path = next(name for name in files if name.startswith("kernel/lib/"))
    name = path.rpartition("/")[2].partition(".")[0].replace("-", "_")
    place.serve(dtk=image([ABOVE]), os=image([ostree_layer(version, files)]))
    sources = place.sources()
    assert sources.own_kmod(place.kernel, name) == path
    own = sources.own_file(place.kernel, path)
    assert own
    assert (own.from_os_image, own.path.read_bytes()) == (True, files[path])


def test_runs_whose_toolkit_lacks_the_symbols(tmp_path: Path, of: Kernels) -> None:
    """The OS image's symbols decide, with a finding. The vmlinuz of another kernel is not booted."""
    files = {**kernel_files(of.target), "vmlinuz": vmlinuz(of.other).read_bytes()}
    layers = [BELOW, ostree_layer(of.target, files), ABOVE]
    named = json.dumps({"KERNEL_VERSION": of.target, "RHEL_VERSION": "12"}).encode()
    parts = [Member(TOOLKIT_RELEASE, named), Member(f"usr/src/kernels/{of.target}/.config", files["config"])]
    kmods = {"good": of.own["pf_plain"], "foreign": of.foreign["pf_plain"]}
    with Registry.plain(tmp_path / "registry") as registry:
        tags = {tag: f"{registry.host}/r/{tag}@" for tag in ("driver-toolkit", "rhel-coreos")}
        tags["driver-toolkit"] += push(registry, "r/driver-toolkit", "1", image([layer(parts)]))
        tags["rhel-coreos"] += push(registry, "r/rhel-coreos", "1", image(layers))
        push(registry, "r/release", "1", release(tags))
        for name, kmod in kmods.items():
            push(registry, f"kmods/{name}", "1", made(KmodCase((), {"m.ko": kmod}), of.target, tmp_path / name))
        modules = manifests(tmp_path, *(module(name, f"{registry.host}/kmods/{name}:1", "m") for name in kmods))
        options = (f"--release-image={registry.host}/r/release:1", modules, "--proof=kernel", "-n0")
        first = run_preflight(tmp_path, *options)
        assert first.verdicts() == {
            "good": ("verified", "kmod-unsigned", "kernel-files-os-image"),
            "foreign": ("refuted", "kmod-other-kernel", "kmod-unsigned", "kernel-files-os-image"),
        }, first.output
        sentence = f"so they were read from OS image {tags['rhel-coreos']}: Module.symvers, modules.builtin"
        assert sentence in first.sentences()["good"]
        registry.forget()
        tried = run_preflight(tmp_path, *options, "--trial-load")
        assert tried.verdicts()["good"] == (
            "undecided",
            "trial-unable",
            *("kmod-unsigned", "kernel-files-os-image", "kernel-files-os-image"),
        ), tried.output
        requests = [request for request in registry.requests() if request.method == "GET" and BLOBS in request.path]
        fetched = [request.path.rpartition("/")[2] for request in requests]
        assert fetched == [layers[1].digest], "the first run has read all files but vmlinuz"
        assert f"the vmlinuz is for {of.other}" in tried.sentences()["good"]
        assert f"read from OS image {tags['rhel-coreos']}: vmlinuz" in tried.sentences()["good"]
