"""The kernel itself: what a driver toolkit names against the OS image that nodes boot, flavour by flavour.

Images are found and told apart as the machine config operator does it (openshift-reference 1.2), joined with a driver
toolkit by stream. Package lists prove, and a difference refutes; labels are hints, and only take certainty away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from kmm_preflight import findings
from kmm_preflight.errors import BoundExceeded, DigestMismatch, Malformed, PreflightError, Truncated, Unreachable
from kmm_preflight.fields import Field
from kmm_preflight.kernel import looks_like_kernel
from kmm_preflight.model import VERIFIED_HTTPS, DriverToolkit, Flavour, RegistryTLS, TargetKernel
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.keyring import Keyring
from kmm_preflight.outside import clean
from kmm_preflight.packages import ListedKernel, NotListed, extension_kernel, node_kernel

STREAM_LABEL = "io.openshift.os.streamclass"
SOURCE = "io.openshift.build.source-location"
CANDIDATES = 16

_NODE_LABEL = "containers.bootc"
_EXTENSIONS_LABEL = "io.openshift.os.extensions"
_NAMES = re.compile(r"(rhel|stream)[\w.+-]*-coreos[\w.+-]*")
_REPOSITORY = re.compile(r"(.*[/:])?openshift/os(\.git)?/?")
_MAJOR = re.compile(r"-coreos-(\d+)")
_BOTH = "machine-os-content"  # until 4.11 node image and extensions in one
_PACKAGES = {Flavour.RT: "kernel-rt-core", Flavour.PAGES_64K: "kernel-64k-core"}
_HINTS = {Flavour.STANDARD: ("com.coreos.rpm.kernel", "ostree.linux"), Flavour.RT: ("com.coreos.rpm.kernel-rt-core",)}
# The images may be as they should be, and another run may read them.
_PASSING = (Unreachable, DigestMismatch, Truncated)


class Images(Protocol):
    """Where images come from."""

    def image(self, name: str, arch: str | None, keyring: Keyring, tls: RegistryTLS) -> Image:
        """The image for linux/arch."""


@dataclass(frozen=True)
class Tag:
    """A tag of image-references that may be an OS image; reference is "" where it has no pull spec."""

    name: str
    reference: str


@dataclass(frozen=True)
class OSImage:
    """An image of the OS as its config tells; stream is "" without the label."""

    tag: Tag
    stream: str
    extensions: bool
    image: Image
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Candidates:
    """What was found of the OS for one architecture, in the payload's order, and what could not be read of it."""

    found: tuple[OSImage, ...]
    failed: tuple[PreflightError, ...]


@dataclass(frozen=True)
class Toolkits:
    """The toolkits that were read, each with its kernels. sole: the release has no other; every: none was left out."""

    read: Sequence[tuple[DriverToolkit, Sequence[TargetKernel]]]
    sole: bool
    every: bool


def os_image_tags(document: Field) -> tuple[Tag, ...]:
    """The tags of image-references that may be OS or extensions images: by source repository, or by name."""
    tags = []
    for tag in document["spec"]["tags"]:
        name, source, reference = tag["name"].text(), tag["annotations"][SOURCE].value, tag["from"]["name"].value
        of_repository = isinstance(source, str) and _REPOSITORY.fullmatch(source)
        if of_repository or _NAMES.fullmatch(name) or name == _BOTH:
            tags.append(Tag(name, reference if isinstance(reference, str) else ""))
    return tuple(tags)


def compare_with_os(
    images: Images, tags: Sequence[Tag], toolkits: Toolkits, keyring: Keyring
) -> tuple[tuple[TargetKernel, ...], tuple[str, ...]]:
    """The kernels, each with its problem where the OS has another one; and words about what was not compared."""
    by_arch: dict[str, Candidates] = {}
    kernels: list[TargetKernel] = []
    notes: list[str] = []
    taken: set[str] = set()
    for toolkit, several in toolkits.read:
        if toolkit.arch not in by_arch:
            by_arch[toolkit.arch] = read_candidates(images, tags, toolkit.arch, keyring)
        for kernel in several:
            one = os_image_of(by_arch[toolkit.arch].found, toolkit, kernel.flavour, toolkits.sole)
            taken |= {one.stream} if one else set()
            compared, note = _compare(kernel, one, by_arch[toolkit.arch])
            kernels.append(compared)
            notes += [note] if note else []
    if toolkits.every:
        notes += _without_toolkit(by_arch.values(), taken | {toolkit.stream for toolkit, _ in toolkits.read})
    return tuple(kernels), tuple(dict.fromkeys(clean(note) for note in notes))


def read_candidates(images: Images, tags: Sequence[Tag], arch: str, keyring: Keyring) -> Candidates:
    """The images behind the tags that are of the OS: manifest and config are read, no layer."""
    found: list[OSImage] = []
    failed: list[PreflightError] = []
    for tag in tags[:CANDIDATES]:
        try:
            if not tag.reference:
                raise Malformed(f"tag {tag.name} of the release: got no pull spec, expected from.name")
            image = images.image(tag.reference, arch or None, keyring, VERIFIED_HTTPS)
            found += [one] if (one := _os_image(tag, image)) else []
        except PreflightError as exc:
            failed.append(exc)
    if len(tags) > CANDIDATES:
        failed.append(
            BoundExceeded(f"got {len(tags)} tags that may be OS images, of which {CANDIDATES} were looked at")
        )
    return Candidates(tuple(found), tuple(failed))


def _os_image(tag: Tag, image: Image) -> OSImage | None:
    """What the labels say that the image is, else its tag's name; None for another image of the same repository."""
    labels = image.config().labels
    node = labels.get(_NODE_LABEL, "").lower() in ("true", "1")
    extensions = labels.get(_EXTENSIONS_LABEL, "").lower() == "true"
    if not node and not extensions:
        if tag.name != _BOTH and not _NAMES.fullmatch(tag.name):
            return None
        extensions = tag.name.endswith("-extensions")
    return OSImage(tag, labels.get(STREAM_LABEL, ""), extensions and not node, image, labels)


def os_image_of(
    found: Sequence[OSImage], toolkit: DriverToolkit, flavour: Flavour, sole: bool = False
) -> OSImage | None:
    """The image that has the kernel of a flavour for the nodes that a toolkit is for.

    By the stream's label, of several the last as MCO has it; without labels by the RHEL of the tag's name; else the
    only one there is, where the toolkit is the only one, too.
    """
    wants = flavour is not Flavour.STANDARD
    fits = [one for one in found if one.tag.name == _BOTH or one.extensions is wants]
    fits = [one for one in fits if one.tag.name != _BOTH] or fits
    if labelled := [one for one in fits if one.stream and one.stream == toolkit.stream]:
        return labelled[-1]
    for major in (toolkit.rhel_version.partition(".")[0], ""):
        if named := [one for one in fits if not one.stream and _major(one.tag) == major]:
            return named[-1]
    return fits[0] if sole and len(fits) == 1 else None


def _major(tag: Tag) -> str:
    told = _MAJOR.search(tag.name)
    return told[1] if told else ""


def _compare(kernel: TargetKernel, one: OSImage | None, candidates: Candidates) -> tuple[TargetKernel, str]:
    """The kernel as the comparison leaves it, and words where there was none."""
    try:
        if one is None:
            raise _nothing(kernel, candidates)
        package = _PACKAGES.get(kernel.flavour)
        known = extension_kernel(one.image, package) if package else node_kernel(one.image)
    except _PASSING as exc:
        words = f"the kernel of the OS image is not known: {exc.message}"
        return replace(kernel, problem=findings.of_trouble(type(exc)(words), kernel.version)), ""
    except NotListed as exc:
        return _hinted(kernel, one, f"image {one.tag.reference}: {exc.why}" if one else exc.why)
    except PreflightError as exc:
        return _hinted(kernel, one, exc.message)
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


def _hinted(kernel: TargetKernel, one: OSImage | None, why: str) -> tuple[TargetKernel, str]:
    """A kernel that was not compared: undecided where a label speaks against it, else words."""
    where = f"{kernel.stream}, {kernel.arch}, {kernel.flavour.value}"
    said = f"kernel {kernel.version} ({where}) was not compared with that of the OS image which nodes boot: {why}"
    for label in _HINTS.get(kernel.flavour, ()) if one else ():
        assert one
        told = one.labels.get(label, "")
        if not looks_like_kernel(told):
            continue
        if _packaged(kernel.version)[0] == told:
            return kernel, f"{said}; its label {label} names the same kernel, which is no proof"
        expected = f"{told} as label {label} of {one.tag.reference} says"
        problem = findings.KERNEL_UNCLEAR(got=kernel.version, toolkit=kernel.provenance, expected=expected, why=why)
        return replace(kernel, problem=problem), ""
    return kernel, said


def _packaged(version: str) -> tuple[str, str]:
    """version-release.arch of a kernel's package, and the suffix that its flavour adds (openshift-reference 2.1)."""
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
