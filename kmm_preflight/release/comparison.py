"""Compare the kernels of driver toolkits with the kernels that nodes boot, flavour by flavour.

Package lists of the OS image are proof: a difference refutes the kernel. Labels are hints: a difference makes the
kernel undecided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kmm_preflight.errors import DigestMismatch, PreflightError, Truncated, Unreachable
from kmm_preflight.kernel_version import looks_like_kernel
from kmm_preflight.model import DriverToolkit, Flavour, TargetKernel
from kmm_preflight.oci import findings as oci_findings
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.release import findings
from kmm_preflight.release.os_image import Candidates, OSImage, Tag, choose_os_image, read_candidates
from kmm_preflight.release.packages import ListedKernel, NotListed, extension_kernel, node_kernel
from kmm_preflight.text import clean

_RHEL = re.compile(r"\.el(\d+)")
_PACKAGES = {Flavour.RT: "kernel-rt-core", Flavour.PAGES_64K: "kernel-64k-core"}
_HINTS = {Flavour.STANDARD: ("com.coreos.rpm.kernel", "ostree.linux"), Flavour.RT: ("com.coreos.rpm.kernel-rt-core",)}
# After these errors the images may still be good, and another run may be able to read them.
_PASSING = (Unreachable, DigestMismatch, Truncated)


@dataclass(frozen=True)
class ReadToolkits:
    """The driver toolkits of a release that were read."""

    kernels: Sequence[tuple[DriverToolkit, Sequence[TargetKernel]]]
    """Each toolkit with its kernels."""
    only_one: bool
    """True if the release has a single driver toolkit."""
    complete: bool
    """True if all driver toolkits of the release were read."""


def compare_with_os(
    images: ImageResolver, tags: Sequence[Tag], toolkits: ReadToolkits, credentials: PullCredentials
) -> tuple[tuple[TargetKernel, ...], tuple[str, ...]]:
    """Return the kernels with the problems that the comparison found, and notes about kernels that it left out."""
    by_arch: dict[str, Candidates] = {}
    kernels: list[TargetKernel] = []
    notes: list[str] = []
    streams = {toolkit.stream for toolkit, _ in toolkits.kernels}
    for toolkit, toolkit_kernels in toolkits.kernels:
        if toolkit.arch not in by_arch:
            by_arch[toolkit.arch] = read_candidates(images, tags, toolkit.arch or None, credentials)
        candidates = by_arch[toolkit.arch]
        for kernel in toolkit_kernels:
            image = choose_os_image(candidates.images, toolkit, kernel.flavour, toolkits.only_one)
            streams |= {image.stream} if image and image.stream else set()
            compared, note = _compare(kernel, image, candidates, toolkits.only_one)
            kernels.append(_with_image(compared, image))
            notes += [note] if note else []
    if toolkits.complete:
        notes += _streams_without_toolkit(by_arch.values(), streams)
    return tuple(kernels), tuple(dict.fromkeys(clean(note) for note in notes))


def _compare(
    kernel: TargetKernel, image: OSImage | None, candidates: Candidates, only_one: bool
) -> tuple[TargetKernel, str | None]:
    """Return the kernel after the comparison, and a note if there was no comparison."""
    try:
        if image is None:
            raise _no_image(kernel, candidates)
        package = _PACKAGES.get(kernel.flavour)
        listed = extension_kernel(image.image, package) if package else node_kernel(image.image)
        if not (only_one or _of_stream(image, kernel, listed.version)):
            raise NotListed(f"its kernel {listed.version} is of another RHEL, so its stream is unknown")
    except _PASSING as exc:
        words = f"the kernel of the OS image is unknown: {exc.message}"
        return replace(kernel, problem=oci_findings.finding_of(type(exc)(words), kernel.version)), None
    except NotListed as exc:
        reason = f"image {image.reference}: {exc.reason}" if image else exc.reason
        return _compare_labels(kernel, image, reason, only_one)
    except PreflightError as exc:
        return _compare_labels(kernel, image, exc.message, only_one)
    return _proved(kernel, image, listed), None


def _no_image(kernel: TargetKernel, candidates: Candidates) -> Exception:
    """Return the error for a kernel without an OS image. An image that could not be read may be that image."""
    for exc in sorted(candidates.errors, key=lambda exc: not isinstance(exc, _PASSING)):
        return exc
    kind = "OS" if kernel.flavour is Flavour.STANDARD else "extensions"
    return NotListed(f"the release has no {kind} image of this stream")


def _proved(kernel: TargetKernel, image: OSImage, listed: ListedKernel) -> TargetKernel:
    place = f"/{listed.path} of {image.reference}"
    package, suffix = _split_flavour(kernel.version)
    if package == listed.version:
        return replace(kernel, provenance=f"{kernel.provenance}, and {place}")
    booted = f"{listed.version}{suffix}"
    problem = findings.KERNEL_DIFFERS(got=kernel.version, toolkit=kernel.provenance, expected=booted, image=place)
    return replace(kernel, problem=problem)


def _of_stream(image: OSImage, kernel: TargetKernel, version: str) -> bool:
    """True if an image with this kernel version is of the target kernel's stream.

    An image with a stream label was chosen by the label. Otherwise compare the RHEL of both kernels.
    """
    return image.stream is not None or _rhel(kernel.version) == _rhel(version)


def _rhel(version: str) -> str | None:
    match = _RHEL.search(version)
    return match[1] if match else None


def _compare_labels(
    kernel: TargetKernel, image: OSImage | None, reason: str, only_one: bool
) -> tuple[TargetKernel, str | None]:
    """Return an undecided kernel if a label names another kernel. Otherwise return the kernel and a note."""
    group = f"{kernel.stream}, {kernel.arch}, {kernel.flavour.value}"
    note = f"kernel {kernel.version} ({group}) was not compared with the kernel of the OS image that nodes boot: "
    note += reason
    if image is None:
        return kernel, note
    for label in _HINTS.get(kernel.flavour, ()):
        version = image.labels.get(label, "")
        if not looks_like_kernel(version) or not (only_one or _of_stream(image, kernel, version)):
            continue
        if _split_flavour(kernel.version)[0] == version:
            return kernel, f"{note}; its label {label} names the same kernel, but a label is not a proof"
        expected = f"{version} by label {label} of {image.reference}"
        problem = findings.KERNEL_UNCLEAR(got=kernel.version, toolkit=kernel.provenance, expected=expected, why=reason)
        return replace(kernel, problem=problem), None
    return kernel, note


def _with_image(kernel: TargetKernel, image: OSImage | None) -> TargetKernel:
    """Return the kernel with the OS image that may have its files.

    Files of other flavours are in RPMs. An image with another kernel does not have the files.
    """
    if image is None or kernel.problem or kernel.flavour is not Flavour.STANDARD or not image.has_plain_files:
        return kernel
    return replace(kernel, os_image=image.reference)


def _split_flavour(version: str) -> tuple[str, str]:
    """Return version-release.arch of a kernel's package, and its flavour's suffix (docs/reference/openshift.md 2.1)."""
    package = version.removesuffix("+rt").removesuffix("+64k")
    return package, version.removeprefix(package)


def _streams_without_toolkit(by_arch: Iterable[Candidates], streams: set[str]) -> list[str]:
    """Return a note for each OS image of a stream for which no driver toolkit names a kernel."""
    return [
        f"stream {image.stream} of the release has an OS image ({image.reference}) but no driver toolkit: "
        "its kernels are not judged"
        for candidates in by_arch
        for image in candidates.images
        if image.stream and not image.extensions and image.stream not in streams
    ]
