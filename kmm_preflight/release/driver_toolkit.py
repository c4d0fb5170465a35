"""A driver toolkit of a release: its stream, and the kernels that it is made for (docs/reference/openshift.md 2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed, PlatformMissing, UsageProblem
from kmm_preflight.kernel_version import kernel_architecture, kernel_flavour, looks_like_kernel
from kmm_preflight.model import VERIFIED_HTTPS, DriverToolkit, Flavour, TargetKernel
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.document import parse_json
from kmm_preflight.oci.filesystem import LinkBroken
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import parse_name
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.release.choice import Choice
from kmm_preflight.release.images import read_file
from kmm_preflight.release.os_image import STREAM_LABEL
from kmm_preflight.text import listed

TOOLKIT_RELEASE = "etc/driver-toolkit-release.json"
KERNEL_SOURCES = "usr/src/kernels"
_TOOLKIT = re.compile(r"driver-toolkit(-\d+)?")

Kernels = tuple[TargetKernel, ...]


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


def read_toolkit(
    images: ImageResolver, tag: str, reference: str, arch: str, choice: Choice, credentials: PullCredentials
) -> tuple[DriverToolkit, Kernels] | None:
    """A toolkit with its kernels, None when its stream was not chosen.

    A tag of an unknown name is one when its label says of which stream. The stream is the label's where there is one.
    """
    image = images.image(parse_name(reference), arch or None, credentials, VERIFIED_HTTPS)
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
    toolkit = DriverToolkit(reference, image.resolved.digest, stream, arch, named.rhel_version)
    kernels = (_kernel(image, toolkit, named, flavour, choice) for flavour in flavours)
    return toolkit, tuple(kernel for kernel in kernels if kernel)


def needed_toolkit(
    images: ImageResolver, tag: str, reference: str, arch: str, choice: Choice, credentials: PullCredentials
) -> tuple[DriverToolkit, Kernels] | None:
    """As read_toolkit; None also where it is not there for an architecture that nodes have and nobody chose."""
    try:
        return read_toolkit(images, tag, reference, arch, choice, credentials)
    except PlatformMissing:
        if arch in choice.arches or arch not in choice.wanted_arches():
            raise
        return None


def stream_of_toolkit(
    images: ImageResolver, tag: str, reference: str, arch: str | None, credentials: PullCredentials
) -> str:
    """The stream of a toolkit, "" for an image of another name that does not say to be one."""
    image = images.image(parse_name(reference), arch, credentials, VERIFIED_HTTPS)
    label = image.config().labels.get(STREAM_LABEL, "")
    return label or (_named(image, reference).stream if _TOOLKIT.fullmatch(tag) else "")


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

    The JSON never names 64k, and in some releases not rt. The folders of kernel-*-devel name both
    (docs/reference/openshift.md 2).
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
