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
from kmm_preflight.release.image_files import read_file
from kmm_preflight.release.os_image import STREAM_LABEL
from kmm_preflight.text import listed

TOOLKIT_RELEASE = "etc/driver-toolkit-release.json"
KERNEL_SOURCES = "usr/src/kernels"
_TOOLKIT = re.compile(r"driver-toolkit(-\d+)?")

Kernels = tuple[TargetKernel, ...]


@dataclass(frozen=True)
class ToolkitKernels:
    """Kernels that the JSON of a driver toolkit names."""

    standard: str
    """The standard kernel."""
    rt: str | None
    """The rt kernel, or None if the JSON names none."""
    rhel_version: str
    """The version of RHEL, such as 9.6."""

    @property
    def stream(self) -> str:
        """The stream of a toolkit without a stream label."""
        return f"rhel-{self.rhel_version.partition('.')[0]}"

    def of(self, flavour: Flavour) -> str | None:
        """Return the kernel of a flavour, or None if the JSON names none. No JSON names a 64k kernel."""
        return {Flavour.STANDARD: self.standard, Flavour.RT: self.rt}.get(flavour)


def parse_toolkit(document: Field) -> ToolkitKernels:
    """Return the kernels of driver-toolkit-release.json. Raise Malformed without a standard kernel or a RHEL version.

    RT_KERNEL_VERSION may be missing, empty, or rpm's message for a package that is not installed: read all as None.
    """
    standard, rhel = document["KERNEL_VERSION"], document["RHEL_VERSION"]
    if not looks_like_kernel(standard.text()):
        raise standard.refuse("a kernel version such as 5.14.0-570.19.1.el9_6.x86_64")
    if not rhel.text():
        raise rhel.refuse("a RHEL version such as 9.6")
    rt = document["RT_KERNEL_VERSION"].text()
    return ToolkitKernels(standard.text(), rt if looks_like_kernel(rt) else None, rhel.text())


def kernel_of_flavour(toolkit: ToolkitKernels, flavour: Flavour, folders: tuple[str, ...] = ()) -> str:
    """Return the kernel of a flavour: from the JSON, or else the only fitting name among the folders of headers.

    Raise UsageProblem if the toolkit has no such kernel.
    """
    fits = [version for version in folders if kernel_flavour(version) is flavour and "debug" not in version]
    version = toolkit.of(flavour) or (fits[0] if len(fits) == 1 else None)
    if version is None:
        kernels = listed(list(dict.fromkeys((toolkit.standard, *folders))))
        problem = f"the driver toolkit of kernel {toolkit.standard} has kernels {kernels}"
        raise UsageProblem(f"--flavour {flavour.value}: {problem}")
    return version


def read_toolkit(
    images: ImageResolver, tag: str, reference: str, arch: str | None, choice: Choice, credentials: PullCredentials
) -> tuple[DriverToolkit, Kernels] | None:
    """Return a toolkit with its kernels, or None if its stream was not chosen.

    The stream is that of the label, else that of the JSON. An image with an unknown tag is a toolkit if it has a label.
    """
    image = images.image(parse_name(reference), arch, credentials, VERIFIED_HTTPS)
    config = image.config()
    label = config.labels.get(STREAM_LABEL)
    if not (_is_chosen(choice, label, tag) if label else _TOOLKIT.fullmatch(tag)):
        return None
    arch = arch or config.arch or ""
    if label and not choice.flavours_for(label, arch) and choice.flavours:
        return None
    json_kernels = _read_json(image, reference)
    stream = label or json_kernels.stream
    flavours = choice.flavours_for(stream, arch)
    if not _is_chosen(choice, stream, tag) or (choice.flavours and not flavours):
        return None
    toolkit = DriverToolkit(reference, image.resolved.digest, stream, arch, json_kernels.rhel_version)
    kernels = (_kernel(image, toolkit, json_kernels, flavour, choice) for flavour in flavours)
    return toolkit, tuple(kernel for kernel in kernels if kernel)


def read_toolkit_if_present(
    images: ImageResolver, tag: str, reference: str, arch: str | None, choice: Choice, credentials: PullCredentials
) -> tuple[DriverToolkit, Kernels] | None:
    """Return a toolkit with its kernels, or None if its stream was not chosen or its architecture is missing.

    Raise PlatformMissing if options name the architecture, or if no node has this architecture.
    """
    try:
        return read_toolkit(images, tag, reference, arch, choice, credentials)
    except PlatformMissing:
        if arch in choice.arches or arch not in choice.node_arches():
            raise
        return None


def stream_of_toolkit(
    images: ImageResolver, tag: str, reference: str, arch: str | None, credentials: PullCredentials
) -> str | None:
    """Return the stream of a toolkit, or None for an image that is not a toolkit: unknown tag and no label."""
    image = images.image(parse_name(reference), arch, credentials, VERIFIED_HTTPS)
    label = image.config().labels.get(STREAM_LABEL)
    return label or (_read_json(image, reference).stream if _TOOLKIT.fullmatch(tag) else None)


def _read_json(image: Image, reference: str) -> ToolkitKernels:
    body = read_file(image, TOOLKIT_RELEASE)
    if body is None:
        raise Malformed(f"driver toolkit {reference}: it has no {TOOLKIT_RELEASE}")
    subject = f"driver toolkit {reference}: {TOOLKIT_RELEASE}"
    document = parse_json(body, subject)
    try:
        return parse_toolkit(document)
    except Malformed as exc:
        raise Malformed(f"{subject}: {exc.message}") from exc


def _is_chosen(choice: Choice, stream: str, tag: str) -> bool:
    return not choice.streams or stream in choice.streams or tag in choice.streams


def _kernel(
    image: Image, toolkit: DriverToolkit, json_kernels: ToolkitKernels, flavour: Flavour, choice: Choice
) -> TargetKernel | None:
    """Return the toolkit's kernel of a flavour. If it has none, raise UsageProblem for an option, else return None.

    The JSON never names 64k, and in some releases not rt. The folders of kernel-*-devel name both
    (docs/reference/openshift.md 2).
    """
    folders = () if json_kernels.of(flavour) else _header_folders(image)
    try:
        version = kernel_of_flavour(json_kernels, flavour, folders)
    except UsageProblem:
        if flavour in choice.flavours and any(kernels.flavour is None for kernels in choice.filters):
            raise
        return None
    place = KERNEL_SOURCES if folders else TOOLKIT_RELEASE
    return TargetKernel(
        version=version,
        arch=kernel_architecture(version) or toolkit.arch or "amd64",
        stream=toolkit.stream,
        flavour=flavour,
        driver_toolkit=toolkit.reference,
        provenance=f"/{place} of {toolkit.reference}",
    )


def _header_folders(image: Image) -> tuple[str, ...]:
    """Return the kernels whose headers the toolkit has."""
    try:
        folder = image.files.resolve(KERNEL_SOURCES)
    except LinkBroken:
        return ()
    names = image.files.children(folder.path) if folder else []
    return tuple(name for name in names if looks_like_kernel(name))
