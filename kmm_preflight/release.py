"""A release image becomes target kernels: image-references, driver toolkits, one stream and architecture each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from kmm_preflight.comparison import Toolkits, compare_with_os
from kmm_preflight.errors import Malformed, PlatformMissing, UsageProblem
from kmm_preflight.fields import Field
from kmm_preflight.kernel import ARCHITECTURES, kernel_architecture, kernel_flavour, looks_like_kernel
from kmm_preflight.model import VERIFIED_HTTPS, DriverToolkit, Flavour, RegistryTLS, Release, TargetKernel
from kmm_preflight.oci.document import parse_json
from kmm_preflight.oci.filesystem import LinkBroken
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.keyring import Keyring
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
class Want:
    """Kernels that nodes need of a release; what is "" or None here is left to the Choice."""

    stream: str = ""
    arch: str = ""
    flavour: Flavour | None = None

    def takes(self, kernel: TargetKernel) -> bool:
        """Whether this is one of them."""
        return (
            self.stream in ("", kernel.stream)
            and self.arch in ("", kernel.arch)
            and self.flavour in (None, kernel.flavour)
        )

    @property
    def words(self) -> str:
        """Stream, architecture and flavour, for a message."""
        return " ".join(word for word in (self.stream, self.arch, self.flavour.value if self.flavour else "") if word)


EVERY = frozenset({Want()})
"""The wants where no node says which."""


@dataclass(frozen=True)
class Choice:
    """Which of a release's kernels are asked for; empty means: its own architecture, all streams, standard.

    wants are what nodes need of it; where none says an architecture or a flavour, those chosen here are read.
    """

    arches: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    flavours: tuple[Flavour, ...] = (Flavour.STANDARD,)
    wants: frozenset[Want] = EVERY

    def wanted_arches(self) -> tuple[str, ...]:
        """The architectures that nodes have."""
        return tuple(sorted({want.arch for want in self.wants if want.arch}))

    def flavours_for(self, stream: str, arch: str) -> tuple[Flavour, ...]:
        """The flavours to be read of a toolkit: those chosen first."""
        wants = [want for want in self.wants if want.stream in ("", stream) and want.arch in ("", arch)]
        chosen = self.flavours if any(want.flavour is None for want in wants) else ()
        named = {want.flavour for want in wants}
        return tuple(dict.fromkeys((*chosen, *(one for one in Flavour if one in named))))


@dataclass(frozen=True)
class ToolkitKernels:
    """What a toolkit's JSON names; rt is "" where the release has no such kernel."""

    standard: str
    rt: str
    rhel_version: str

    @property
    def stream(self) -> str:
        """The stream of a toolkit whose label does not tell it."""
        return f"rhel-{self.rhel_version.partition('.')[0]}"

    def of(self, flavour: Flavour) -> str:
        """The kernel that the JSON names of a flavour, "" where it names none; 64k stands in no JSON."""
        return {Flavour.STANDARD: self.standard, Flavour.RT: self.rt}.get(flavour, "")


def is_version(text: str) -> bool:
    """Whether the text is a bare version, whose image depends on the architectures of the nodes."""
    return bool(_VERSION.fullmatch(text)) and text.rpartition("-")[2] not in (*ARCHITECTURES.values(), MULTI)


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
    """The release behind the name, and the kernels that the choice takes of it, one for each stream and architecture.

    Malformed when it is no release image; UsageProblem when it lacks a stream or architecture that was chosen; else
    what reading images raises.
    """
    arches = _architectures(images, name, choice, keyring)
    image = _release_image(images, name, arches, choice, keyring)
    references = _references(image, name)
    version, toolkits = parse_image_references(references, name)
    read = [
        (tag, *toolkit)
        for tag, reference in toolkits.items()
        for arch in arches
        if (toolkit := _needed_toolkit(images, tag, reference, arch or image.config().arch, choice, keyring))
    ]
    missing = set(choice.streams).difference(*((tag, toolkit.stream) for tag, toolkit, _ in read))
    if missing and choice.wants:
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
    return Release(name, image.found.digest, version, tuple(toolkit for _, toolkit, _ in read), notes), kernels


Kernels = tuple[TargetKernel, ...]


def read_streams(images: Images, name: str, arches: tuple[str, ...], keyring: Keyring) -> tuple[str, tuple[str, ...]]:
    """The release's version, and the streams of its driver toolkits in the payload's order.

    Of an index the first of the architectures is read that is there; others may be missing. No layer of a toolkit is
    needed where its label tells the stream. Raises what read_release raises.
    """
    platforms = images.platforms(name, keyring) or ()
    have = [one for one in dict.fromkeys((*arches, *ARCHITECTURES)) if one in platforms]
    for arch in have[:-1]:
        with suppress(PlatformMissing):
            return _streams(images, name, arch, keyring)
    return _streams(images, name, have[-1] if have else None, keyring)


def _streams(images: Images, name: str, arch: str | None, keyring: Keyring) -> tuple[str, tuple[str, ...]]:
    image = images.image(name, arch, keyring, VERIFIED_HTTPS)
    version, toolkits = parse_image_references(_references(image, name), name)
    arch = arch or image.config().arch or None
    streams = (_stream(images, tag, reference, arch, keyring) for tag, reference in toolkits.items())
    return version, tuple(stream for stream in streams if stream)


def _stream(images: Images, tag: str, reference: str, arch: str | None, keyring: Keyring) -> str:
    """The stream of a toolkit, "" for an image of another name that does not say to be one."""
    image = images.image(reference, arch, keyring, VERIFIED_HTTPS)
    label = image.config().labels.get(STREAM_LABEL, "")
    return label or (_named(image, reference).stream if _TOOLKIT.fullmatch(tag) else "")


def _architectures(images: Images, name: str, choice: Choice, keyring: Keyring) -> tuple[str, ...] | tuple[None]:
    """The architectures that are read: those that nodes have, as far as the release has them, and those chosen.

    No other child of an index is asked for, since it may be missing (openshift-reference 1.3).
    """
    wanted = choice.wanted_arches()
    if not wanted:
        return _chosen_architectures(images, name, choice, keyring)
    platforms = images.platforms(name, keyring)
    if platforms is None:
        return (None,)
    have = tuple(arch for arch in wanted if arch in platforms)
    if not have or any(not want.arch for want in choice.wants):
        chosen = _chosen_architectures(images, name, choice, keyring)
        have = tuple(dict.fromkeys(one for one in (*chosen, *have) if one))
    return have


def _chosen_architectures(images: Images, name: str, choice: Choice, keyring: Keyring) -> tuple[str, ...] | tuple[None]:
    """The chosen architectures; the image's own (None) where nothing was chosen, of an index amd64."""
    if choice.arches and MULTI not in choice.arches:
        return choice.arches
    platforms = images.platforms(name, keyring)
    if choice.arches:
        every = (*(platforms or ()), *choice.arches)
        return tuple(dict.fromkeys(arch for arch in every if arch in ARCHITECTURES)) or (None,)
    return (None,) if platforms is None else ("amd64",)


def _release_image(
    images: Images, name: str, arches: tuple[str | None, ...], choice: Choice, keyring: Keyring
) -> Image:
    """The release image of the first architecture that it has; UsageProblem when one that was chosen is not there."""
    opened: list[Image] = []
    for arch in arches:
        if opened and arch not in choice.arches:
            continue
        try:
            opened.append(images.image(name, arch, keyring, VERIFIED_HTTPS))
        except PlatformMissing as exc:
            if arch in choice.arches:
                raise UsageProblem(f"--arch {arch}: {exc.message}") from exc
            if arch == arches[-1]:
                raise
    return opened[0]


def _references(image: Image, name: str) -> Field:
    body = read_file(image, IMAGE_REFERENCES)
    if body is None:
        raise Malformed(f"image {name} is no release image: it has no {IMAGE_REFERENCES}")
    return parse_json(body, f"{IMAGE_REFERENCES} of {name}")


def read_file(image: Image, path: str) -> bytes | None:
    """The bytes of a file, found in whichever layer; None when there is no such file. BoundExceeded above 32 MiB."""
    located = image.files.file(path)
    if located is None:
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


def kernel_of_flavour(named: ToolkitKernels, flavour: Flavour, folders: tuple[str, ...] = ()) -> str:
    """The kernel of a flavour: what the JSON names, else the only one of these folders; UsageProblem without one."""
    fit = [one for one in folders if kernel_flavour(one) is flavour and "debug" not in one]
    if version := named.of(flavour) or (fit[0] if len(fit) == 1 else ""):
        return version
    have = listed(list(dict.fromkeys((named.standard, *folders))))
    raise UsageProblem(f"--flavour {flavour.value}: the driver toolkit of kernel {named.standard} has kernels {have}")


def _needed_toolkit(
    images: Images, tag: str, reference: str, arch: str, choice: Choice, keyring: Keyring
) -> tuple[DriverToolkit, Kernels] | None:
    """The same; None also where it is not there for an architecture that nodes have and nobody chose."""
    try:
        return _read_toolkit(images, tag, reference, arch, choice, keyring)
    except PlatformMissing:
        if arch in choice.arches or arch not in choice.wanted_arches():
            raise
        return None


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
    arch = arch or config.arch
    if label and not choice.flavours_for(label, arch) and choice.flavours:
        return None
    named = _named(image, reference)
    stream = label or named.stream
    flavours = choice.flavours_for(stream, arch)
    if not _chosen(choice, stream, tag) or (choice.flavours and not flavours):
        return None
    toolkit = DriverToolkit(reference, image.found.digest, stream, arch, named.rhel_version)
    kernels = (_kernel(image, toolkit, named, flavour, choice) for flavour in flavours)
    return toolkit, tuple(kernel for kernel in kernels if kernel)


def _named(image: Image, reference: str) -> ToolkitKernels:
    """What the JSON of a toolkit names."""
    body = read_file(image, TOOLKIT_RELEASE)
    if body is None:
        raise Malformed(f"driver toolkit {reference}: it has no {TOOLKIT_RELEASE}")
    subject = f"driver toolkit {reference}: {TOOLKIT_RELEASE}"
    document = parse_json(body, subject)
    try:
        return parse_toolkit(document)
    except Malformed as exc:
        raise Malformed(f"{subject}: {exc.message}") from exc


def _chosen(choice: Choice, stream: str, tag: str) -> bool:
    return not choice.streams or stream in choice.streams or tag in choice.streams


def _kernel(
    image: Image, toolkit: DriverToolkit, named: ToolkitKernels, flavour: Flavour, choice: Choice
) -> TargetKernel | None:
    """The toolkit's kernel of a flavour; None where it has none and nodes asked for it, UsageProblem where a user did.

    The JSON never names 64k, and of some releases not rt; the folders of kernel-*-devel do (openshift-reference 2).
    """
    have = () if named.of(flavour) else _in_folders(image)
    try:
        version = kernel_of_flavour(named, flavour, have)
    except UsageProblem:
        if flavour in choice.flavours and any(want.flavour is None for want in choice.wants):
            raise
        return None
    place = KERNEL_SOURCES if have else TOOLKIT_RELEASE
    return TargetKernel(
        version=version,
        arch=kernel_architecture(version) or toolkit.arch or "amd64",
        stream=toolkit.stream,
        flavour=flavour,
        driver_toolkit=toolkit.reference,
        provenance=f"/{place} of {toolkit.reference}",
    )


def _in_folders(image: Image) -> tuple[str, ...]:
    """The kernels whose headers the toolkit has."""
    try:
        folder = image.files.resolve(KERNEL_SOURCES)
    except LinkBroken:
        folder = None
    return tuple(one for one in (image.files.children(folder.path) if folder else ()) if looks_like_kernel(one))
