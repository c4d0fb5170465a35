"""Find the OS and extensions images of a release, as the machine config operator does.

Find candidates by source repository or name, then read the labels of their configs (docs/reference/openshift.md 1.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import BoundExceeded, Malformed, PreflightError
from kmm_preflight.model import VERIFIED_HTTPS, DriverToolkit, Flavour
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import parse_name
from kmm_preflight.oci.resolver import ImageResolver

STREAM_LABEL = "io.openshift.os.streamclass"
SOURCE = "io.openshift.build.source-location"
CANDIDATES = 16

_NODE_LABEL = "containers.bootc"
_EXTENSIONS_LABEL = "io.openshift.os.extensions"
_NAMES = re.compile(r"(rhel|stream)[\w.+-]*-coreos[\w.+-]*")
_REPOSITORY = re.compile(r"(.*[/:])?openshift/os(\.git)?/?")
_RHEL_OF_TAG = re.compile(r"-coreos-(\d+)")
_BOTH = "machine-os-content"  # until 4.11 node image and extensions in one


@dataclass(frozen=True)
class Tag:
    """A tag of image-references that may be an OS image."""

    name: str
    """The name of the tag."""
    reference: str | None
    """The pull spec, or None if the tag has none."""


@dataclass(frozen=True)
class OSImage:
    """An OS or extensions image of a release."""

    tag: str
    """The name of its tag in image-references."""
    reference: str
    """The pull spec."""
    stream: str | None
    """The stream of its label, or None without the label."""
    extensions: bool
    """True for an extensions image, False for a node image."""
    image: Image
    """The image."""
    labels: Mapping[str, str]
    """Labels of its config."""

    @property
    def has_plain_files(self) -> bool:
        """True if the layers have the node's files under their names, not in an archive of ostree objects."""
        return self.tag != _BOTH


@dataclass(frozen=True)
class Candidates:
    """The OS and extensions images of a release for one architecture."""

    images: tuple[OSImage, ...]
    """The images, in the payload's order."""
    errors: tuple[PreflightError, ...]
    """Errors of candidates that could not be read."""


def os_image_tags(document: Field) -> tuple[Tag, ...]:
    """Return the tags of image-references that may be OS or extensions images: by source repository, or by name."""
    tags = []
    for tag in document["spec"]["tags"]:
        name, source, reference = tag["name"].text(), tag["annotations"][SOURCE].value, tag["from"]["name"].value
        of_repository = isinstance(source, str) and _REPOSITORY.fullmatch(source)
        if of_repository or _NAMES.fullmatch(name) or name == _BOTH:
            tags.append(Tag(name, reference if isinstance(reference, str) and reference else None))
    return tuple(tags)


def read_candidates(
    images: ImageResolver, tags: Sequence[Tag], arch: str | None, credentials: PullCredentials
) -> Candidates:
    """Read the OS and extensions images of the tags: manifest and config, no layer."""
    os_images: list[OSImage] = []
    errors: list[PreflightError] = []
    for tag in tags[:CANDIDATES]:
        try:
            if tag.reference is None:
                raise Malformed(f"tag {tag.name} of the release has no pull spec in from.name")
            os_image = _os_image(
                tag.name, tag.reference, images.image(parse_name(tag.reference), arch, credentials, VERIFIED_HTTPS)
            )
            os_images += [os_image] if os_image else []
        except PreflightError as exc:
            errors.append(exc)
    if len(tags) > CANDIDATES:
        errors.append(BoundExceeded(f"{len(tags)} tags may be OS images: only the first {CANDIDATES} were read"))
    return Candidates(tuple(os_images), tuple(errors))


def _os_image(tag: str, reference: str, image: Image) -> OSImage | None:
    """Return the OS image, or None for another image of the same repository. Read the labels, then the tag's name."""
    labels = image.config().labels
    node = labels.get(_NODE_LABEL, "").lower() in ("true", "1")
    extensions = labels.get(_EXTENSIONS_LABEL, "").lower() == "true"
    if not node and not extensions:
        if tag != _BOTH and not _NAMES.fullmatch(tag):
            return None
        extensions = tag.endswith("-extensions")
    return OSImage(tag, reference, labels.get(STREAM_LABEL) or None, extensions and not node, image, labels)


def choose_os_image(
    images: Sequence[OSImage], toolkit: DriverToolkit, flavour: Flavour, only_toolkit: bool = False
) -> OSImage | None:
    """Return the image with the kernel that the toolkit's nodes boot, or None.

    Choose by the stream label: of several images the last, as the machine config operator does. Without labels,
    choose by the RHEL in the tag's name. Otherwise, if there is one toolkit and one image, choose that image.
    """
    extensions = flavour is not Flavour.STANDARD
    fits = [image for image in images if image.tag == _BOTH or image.extensions is extensions]
    fits = [image for image in fits if image.tag != _BOTH] or fits
    if of_stream := [image for image in fits if image.stream and image.stream == toolkit.stream]:
        return of_stream[-1]
    for rhel in (toolkit.rhel_version.partition(".")[0], None):
        if of_rhel := [image for image in fits if not image.stream and _rhel(image.tag) == rhel]:
            return of_rhel[-1]
    return fits[0] if only_toolkit and len(fits) == 1 else None


def _rhel(tag: str) -> str | None:
    """Return the major version of RHEL in the tag's name, or None."""
    match = _RHEL_OF_TAG.search(tag)
    return match[1] if match else None
