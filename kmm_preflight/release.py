"""A release image becomes target kernels: image-references, driver toolkits, one stream and architecture each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from kmm_preflight.comparison import Toolkits, compare_with_os
from kmm_preflight.errors import Malformed, PlatformMissing, UsageProblem
from kmm_preflight.fields import Field
from kmm_preflight.kernel import ARCHITECTURES, kernel_architecture, kernel_flavour, looks_like_kernel
from kmm_preflight.model import VERIFIED_HTTPS, DriverToolkit, Flavour, RegistryTLS, Release, Severity, TargetKernel
from kmm_preflight.oci.document import parse_json
from kmm_preflight.oci.filesystem import LinkBroken
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.keyring import Keyring
from kmm_preflight.oci.tar import Kind
from kmm_preflight.os_image import STREAM_LABEL, os_image_tags
from kmm_preflight.outside import listed
from kmm_preflight.packages import LISTS

PUBLIC_RELEASES = "quay.io/openshift-release-dev/ocp-release"
IMAGE_REFERENCES = "release-manifests/image-references"
TOOLKIT_RELEASE = "etc/driver-toolkit-release.json"
KERNEL_SOURCES = "usr/src/kernels"
MULTI = "multi"
FILES = frozenset({IMAGE_REFERENCES, TOOLKIT_RELEASE}) | LISTS
"""What is read of release, toolkit and OS images."""

_FILE_BYTES = 32 << 20
_VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z._-]+)?")
_TOOLKIT = re.compile(r"driver-toolkit(-\d+)?")
_MAYBE_TOOLKIT = re.compile(r"driver-toolkit(-.+)?")


class Images(Protocol):
    """Where images come from."""

    def platforms(self, name: str, keyring: Keyring) -> tuple[str, ...] | None:
        """Architectures of an index, None for a single image."""

    def image(self, name: str, arch: str | None, keyring: Keyring, tls: RegistryTLS) -> Image:
        """The image for linux/arch."""


@dataclass(frozen=True)
class Choice:
    """Which of a release's kernels are asked for; empty means: its own architecture, all streams, standard."""

    arches: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    flavours: tuple[Flavour, ...] = (Flavour.STANDARD,)


@dataclass(frozen=True)
class ToolkitKernels:
    """What a toolkit's JSON names; rt is "" where the release has no such kernel."""

    standard: str
    rt: str
    rhel_version: str


def release_name(text: str, arches: tuple[str, ...]) -> str:
    """The image name of a release: a bare version becomes a tag of the public releases, as oc names them."""
    if not _VERSION.fullmatch(text):
        return text
    suffixes = (*ARCHITECTURES.values(), MULTI)
    if text.rpartition("-")[2] in suffixes:
        return f"{PUBLIC_RELEASES}:{text}"
    if not arches:
        return f"{PUBLIC_RELEASES}:{text}-{ARCHITECTURES['amd64']}"
    one = arches[0] if len(arches) == 1 else MULTI
    return f"{PUBLIC_RELEASES}:{text}-{ARCHITECTURES.get(one, one)}"


def read_release(images: Images, name: str, choice: Choice, keyring: Keyring) -> tuple[Release, Kernels]:
    """The release behind the name, and the kernels that the choice takes of it.

    Malformed when it is no release image; UsageProblem when it lacks a stream or architecture that was chosen; else
    what reading images raises.
    """
    arches = _architectures(images, name, choice, keyring)
    image, *_ = [
        _release_image(images, name, arch, choice, keyring)
        for arch in arches
        if arch == arches[0] or arch in choice.arches
    ]
    references = _references(image, name)
    version, toolkits = parse_image_references(references, name)
    read = [
        (tag, *toolkit)
        for tag, reference in toolkits.items()
        for arch in arches
        if (toolkit := _read_toolkit(images, tag, reference, arch or image.config().arch, choice, keyring))
    ]
    missing = set(choice.streams).difference(*((tag, toolkit.stream) for tag, toolkit, _ in read))
    if missing:
        arch = arches[0] or image.config().arch
        every = Choice(flavours=())
        have = [
            toolkit[0].stream
            for tag, reference in toolkits.items()
            if (toolkit := _read_toolkit(images, tag, reference, arch, every, keyring))
        ]
        named = ", ".join(stream for stream in choice.streams if stream in missing)
        raise UsageProblem(f"--stream {named}: release {version} has streams {listed(have)}")
    theirs = Toolkits([(one, kernels) for _, one, kernels in read], len(toolkits) == 1, not choice.streams)
    kernels, notes = compare_with_os(images, os_image_tags(references), theirs, keyring)
    release = Release(name, image.found.digest, version, tuple(toolkit for _, toolkit, _ in read), notes)
    return release, _each_once(kernels)


Kernels = tuple[TargetKernel, ...]


def _each_once(kernels: Kernels) -> Kernels:
    """One of each version: the first, or the first of the heaviest problem, since nodes of any stream may boot it."""
    once: dict[str, TargetKernel] = {}
    for kernel in kernels:
        known = once.get(kernel.version)
        if known is None or _heavier(kernel, known):
            once[kernel.version] = kernel
    return tuple(once.values())


def _heavier(one: TargetKernel, other: TargetKernel) -> bool:
    weights = [Severity.UNDECIDED, Severity.REFUTES]
    mine, its = [weights.index(each.problem.severity) + 1 if each.problem else 0 for each in (one, other)]
    return mine > its


def _architectures(images: Images, name: str, choice: Choice, keyring: Keyring) -> tuple[str, ...] | tuple[None]:
    """The chosen architectures; the image's own (None) where nothing was chosen, of an index amd64."""
    if choice.arches and MULTI not in choice.arches:
        return choice.arches
    platforms = images.platforms(name, keyring)
    if choice.arches:
        every = (*(platforms or ()), *choice.arches)
        return tuple(dict.fromkeys(arch for arch in every if arch in ARCHITECTURES)) or (None,)
    return (None,) if platforms is None else ("amd64",)


def _release_image(images: Images, name: str, arch: str | None, choice: Choice, keyring: Keyring) -> Image:
    """The release image of an architecture; UsageProblem when that was chosen by name and is not there."""
    try:
        return images.image(name, arch, keyring, VERIFIED_HTTPS)
    except PlatformMissing as exc:
        if arch not in choice.arches:
            raise
        raise UsageProblem(f"--arch {arch}: {exc.message}") from exc


def _references(image: Image, name: str) -> Field:
    body = read_file(image, IMAGE_REFERENCES)
    if body is None:
        raise Malformed(f"image {name} is no release image: it has no {IMAGE_REFERENCES}")
    return parse_json(body, f"{IMAGE_REFERENCES} of {name}")


def read_file(image: Image, path: str) -> bytes | None:
    """The bytes of a file, found in whichever layer; None when there is no such file. BoundExceeded above 32 MiB."""
    try:
        located = image.files.resolve(path)
    except LinkBroken:
        return None
    if located and located.entry.kind is Kind.HARDLINK:
        located = image.files.hardlink_target(located)
    if located is None or located.entry.kind is not Kind.FILE:
        return None
    with image.content(located).open("rb") as file:
        return file.read(_FILE_BYTES)


def parse_image_references(document: Field, name: str) -> tuple[str, dict[str, str]]:
    """The release's version, and the driver toolkits by tag name in the payload's order.

    Malformed for another kind of document, no toolkit, or one without a pull spec.
    """
    if document["kind"].text() != "ImageStream":
        raise Malformed(
            f"image {name} is no release image: {IMAGE_REFERENCES}: {document['kind'].refuse('ImageStream')}"
        )
    toolkits = toolkit_references((tag["name"].text(), tag["from"]["name"].value) for tag in document["spec"]["tags"])
    if not toolkits:
        raise Malformed(f"image {name} is a release image without a driver toolkit: got no tag driver-toolkit")
    return document["metadata"]["name"].text(), toolkits


def toolkit_references(tags: Iterable[tuple[str, object]]) -> dict[str, str]:
    """The pull specs of what may be driver toolkits among a payload's tags; Malformed when one has none."""
    toolkits: dict[str, str] = {}
    for tag, reference in tags:
        if not _MAYBE_TOOLKIT.fullmatch(tag) or tag in toolkits:
            continue
        if not isinstance(reference, str) or not reference:
            raise Malformed(f"tag {tag} of {IMAGE_REFERENCES}: got no pull spec, expected from.name")
        toolkits[tag] = reference
    return toolkits


def parse_toolkit(document: Field) -> ToolkitKernels:
    """The kernels of driver-toolkit-release.json; Malformed without a standard kernel or a RHEL version.

    RT_KERNEL_VERSION may be missing, empty, or what rpm says of a package that is not installed: then there is none.
    """
    standard, rhel = document["KERNEL_VERSION"], document["RHEL_VERSION"]
    if not looks_like_kernel(standard.text()):
        raise standard.refuse("a kernel version such as 5.14.0-570.19.1.el9_6.x86_64")
    if not rhel.text():
        raise rhel.refuse("a RHEL version such as 9.6")
    rt = document["RT_KERNEL_VERSION"].text()
    return ToolkitKernels(standard.text(), rt if looks_like_kernel(rt) else "", rhel.text())


def kernel_of_flavour(kernels: ToolkitKernels, flavour: Flavour) -> str:
    """The version for standard or rt; UsageProblem when the toolkit names no rt kernel. 64k stands in no JSON."""
    if flavour is Flavour.RT and not kernels.rt:
        raise UsageProblem(f"--flavour rt: the driver toolkit of kernel {kernels.standard} names no rt kernel")
    return kernels.rt if flavour is Flavour.RT else kernels.standard


def _read_toolkit(
    images: Images, tag: str, reference: str, arch: str, choice: Choice, keyring: Keyring
) -> tuple[DriverToolkit, Kernels] | None:
    """A toolkit with its kernels, None when its stream was not chosen.

    A tag of an unknown name is one when its label says of which stream. The stream is the label's where there is one.
    """
    image = images.image(reference, arch or None, keyring, VERIFIED_HTTPS)
    config = image.config()
    label = config.labels.get(STREAM_LABEL, "")
    if not (_chosen(choice, label, tag) if label else _TOOLKIT.fullmatch(tag)):
        return None
    body = read_file(image, TOOLKIT_RELEASE)
    if body is None:
        raise Malformed(f"driver toolkit {reference}: it has no {TOOLKIT_RELEASE}")
    subject = f"driver toolkit {reference}: {TOOLKIT_RELEASE}"
    document = parse_json(body, subject)
    try:
        named = parse_toolkit(document)
    except Malformed as exc:
        raise Malformed(f"{subject}: {exc.message}") from exc
    stream = label or f"rhel-{named.rhel_version.partition('.')[0]}"
    if not _chosen(choice, stream, tag):
        return None
    toolkit = DriverToolkit(reference, image.found.digest, stream, arch or config.arch, named.rhel_version)
    return toolkit, tuple(_kernel(image, toolkit, named, flavour) for flavour in choice.flavours)


def _chosen(choice: Choice, stream: str, tag: str) -> bool:
    return not choice.streams or stream in choice.streams or tag in choice.streams


def _kernel(image: Image, toolkit: DriverToolkit, named: ToolkitKernels, flavour: Flavour) -> TargetKernel:
    if flavour is Flavour.PAGES_64K or (flavour is Flavour.RT and not named.rt):
        version, place = _kernel_by_folder(image, toolkit, flavour), KERNEL_SOURCES
    else:
        version, place = kernel_of_flavour(named, flavour), TOOLKIT_RELEASE
    return TargetKernel(
        version=version,
        arch=kernel_architecture(version) or toolkit.arch or "amd64",
        stream=toolkit.stream,
        flavour=flavour,
        driver_toolkit=toolkit.reference,
        provenance=f"/{place} of {toolkit.reference}",
    )


def _kernel_by_folder(image: Image, toolkit: DriverToolkit, flavour: Flavour) -> str:
    """The kernel of a flavour by the folders of kernel-*-devel (openshift-reference 2.2); UsageProblem unless one fits.

    Every layer of the toolkit is read for it.
    """
    try:
        folder = image.files.resolve(KERNEL_SOURCES)
    except LinkBroken:
        folder = None
    have = image.files.children(folder.path) if folder else []
    fit = [one for one in have if looks_like_kernel(one) and kernel_flavour(one) is flavour and "debug" not in one]
    if len(fit) != 1:
        raise UsageProblem(f"--flavour {flavour.value}: driver toolkit {toolkit.reference} has kernels {listed(have)}")
    return fit[0]
