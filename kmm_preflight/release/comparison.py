"""The kernel itself: what a driver toolkit names against what nodes boot, flavour by flavour.

Package lists of the OS image prove, and a difference refutes; labels are hints, and only take certainty away.
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
from kmm_preflight.release.os_image import Candidates, OSImage, Tag, os_image_of, read_candidates
from kmm_preflight.release.packages import ListedKernel, NotListed, extension_kernel, node_kernel
from kmm_preflight.text import clean

_RHEL = re.compile(r"\.el(\d+)")
_PACKAGES = {Flavour.RT: "kernel-rt-core", Flavour.PAGES_64K: "kernel-64k-core"}
_HINTS = {Flavour.STANDARD: ("com.coreos.rpm.kernel", "ostree.linux"), Flavour.RT: ("com.coreos.rpm.kernel-rt-core",)}
# The images may be as they should be, and another run may read them.
_PASSING = (Unreachable, DigestMismatch, Truncated)


@dataclass(frozen=True)
class Toolkits:
    """The toolkits that were read, each with its kernels. sole: the release has no other; every: none was left out."""

    read: Sequence[tuple[DriverToolkit, Sequence[TargetKernel]]]
    sole: bool
    every: bool


def compare_with_os(
    images: ImageResolver, tags: Sequence[Tag], toolkits: Toolkits, credentials: PullCredentials
) -> tuple[tuple[TargetKernel, ...], tuple[str, ...]]:
    """The kernels, each with its problem where the OS has another one; and words about what was not compared."""
    by_arch: dict[str, Candidates] = {}
    kernels: list[TargetKernel] = []
    notes: list[str] = []
    taken: set[str] = set()
    for toolkit, several in toolkits.read:
        if toolkit.arch not in by_arch:
            by_arch[toolkit.arch] = read_candidates(images, tags, toolkit.arch, credentials)
        for kernel in several:
            one = os_image_of(by_arch[toolkit.arch].found, toolkit, kernel.flavour, toolkits.sole)
            taken |= {one.stream} if one else set()
            compared, note = _compare(kernel, one, by_arch[toolkit.arch], toolkits.sole)
            kernels.append(_with_image(compared, one))
            notes += [note] if note else []
    if toolkits.every:
        notes += _without_toolkit(by_arch.values(), taken | {toolkit.stream for toolkit, _ in toolkits.read})
    return tuple(kernels), tuple(dict.fromkeys(clean(note) for note in notes))


def _compare(kernel: TargetKernel, one: OSImage | None, candidates: Candidates, sole: bool) -> tuple[TargetKernel, str]:
    """The kernel as the comparison leaves it, and words where there was none."""
    try:
        if one is None:
            raise _nothing(kernel, candidates)
        package = _PACKAGES.get(kernel.flavour)
        known = extension_kernel(one.image, package) if package else node_kernel(one.image)
        if not (sole or _of_stream(one, kernel, known.version)):
            raise NotListed(f"got kernel {known.version} of another RHEL, so that it is not known to be of this stream")
    except _PASSING as exc:
        words = f"the kernel of the OS image is not known: {exc.message}"
        return replace(kernel, problem=oci_findings.finding_of(type(exc)(words), kernel.version)), ""
    except NotListed as exc:
        return _hinted(kernel, one, f"image {one.tag.reference}: {exc.why}" if one else exc.why, sole)
    except PreflightError as exc:
        return _hinted(kernel, one, exc.message, sole)
    assert one  # else nothing was read
    return _proved(kernel, one, known), ""


def _nothing(kernel: TargetKernel, candidates: Candidates) -> Exception:
    """Why there is no image to compare with: the one that could not be read may be it."""
    for exc in sorted(candidates.failed, key=lambda exc: not isinstance(exc, _PASSING)):
        return exc
    kind = "OS" if kernel.flavour is Flavour.STANDARD else "extensions"
    return NotListed(f"the release has no {kind} image of this stream")


def _proved(kernel: TargetKernel, one: OSImage, known: ListedKernel) -> TargetKernel:
    where = f"/{known.place} of {one.tag.reference}"
    package, suffix = _packaged(kernel.version)
    if package == known.version:
        return replace(kernel, provenance=f"{kernel.provenance}, and {where}")
    booted = f"{known.version}{suffix}"
    problem = findings.KERNEL_DIFFERS(got=kernel.version, toolkit=kernel.provenance, expected=booted, image=where)
    return replace(kernel, problem=problem)


def _of_stream(one: OSImage, kernel: TargetKernel, version: str) -> bool:
    """Whether an image that has this version is of the kernel's stream: by its label, else by the RHEL of both."""
    mine, its = [told[1] if (told := _RHEL.search(each)) else "" for each in (kernel.version, version)]
    return bool(one.stream) or mine == its


def _hinted(kernel: TargetKernel, one: OSImage | None, why: str, sole: bool) -> tuple[TargetKernel, str]:
    """A kernel that was not compared: undecided where a label speaks against it, else words."""
    where = f"{kernel.stream}, {kernel.arch}, {kernel.flavour.value}"
    said = f"kernel {kernel.version} ({where}) was not compared with that of the OS image which nodes boot: {why}"
    for label in _HINTS.get(kernel.flavour, ()) if one else ():
        assert one
        told = one.labels.get(label, "")
        if not looks_like_kernel(told) or not (sole or _of_stream(one, kernel, told)):
            continue
        if _packaged(kernel.version)[0] == told:
            return kernel, f"{said}; its label {label} names the same kernel, which is no proof"
        expected = f"{told} as label {label} of {one.tag.reference} says"
        problem = findings.KERNEL_UNCLEAR(got=kernel.version, toolkit=kernel.provenance, expected=expected, why=why)
        return replace(kernel, problem=problem), ""
    return kernel, said


def _with_image(kernel: TargetKernel, one: OSImage | None) -> TargetKernel:
    """The kernel with the image that may have its files: of a flavour they are RPMs, of another kernel not its own."""
    if one is None or kernel.problem or kernel.flavour is not Flavour.STANDARD or not one.plain:
        return kernel
    return replace(kernel, os_image=one.tag.reference)


def _packaged(version: str) -> tuple[str, str]:
    """Return version-release.arch of a kernel's package, and its flavour's suffix (docs/reference/openshift.md 2.1)."""
    package = version.removesuffix("+rt").removesuffix("+64k")
    return package, version.removeprefix(package)


def _without_toolkit(candidates: Iterable[Candidates], known: set[str]) -> list[str]:
    """Words about streams that nodes can boot and no toolkit names the kernel of."""
    return [
        f"stream {one.stream} of the release has an OS image ({one.tag.reference}) and no driver toolkit: "
        "none of its kernels is judged"
        for each in candidates
        for one in each.found
        if one.stream and not one.extensions and one.stream not in known
    ]
