"""The OS and extensions images of a release, found and told apart as the machine config operator does it.

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
_MAJOR = re.compile(r"-coreos-(\d+)")
_BOTH = "machine-os-content"  # until 4.11 node image and extensions in one


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

    @property
    def plain(self) -> bool:
        """Whether its layers have the node's files under their names, not as an archive of ostree objects."""
        return self.tag.name != _BOTH


@dataclass(frozen=True)
class Candidates:
    """What was found of the OS for one architecture, in the payload's order, and what could not be read of it."""

    found: tuple[OSImage, ...]
    failed: tuple[PreflightError, ...]


def os_image_tags(document: Field) -> tuple[Tag, ...]:
    """The tags of image-references that may be OS or extensions images: by source repository, or by name."""
    tags = []
    for tag in document["spec"]["tags"]:
        name, source, reference = tag["name"].text(), tag["annotations"][SOURCE].value, tag["from"]["name"].value
        of_repository = isinstance(source, str) and _REPOSITORY.fullmatch(source)
        if of_repository or _NAMES.fullmatch(name) or name == _BOTH:
            tags.append(Tag(name, reference if isinstance(reference, str) else ""))
    return tuple(tags)


def read_candidates(images: ImageResolver, tags: Sequence[Tag], arch: str, credentials: PullCredentials) -> Candidates:
    """The images behind the tags that are of the OS: manifest and config are read, no layer."""
    found: list[OSImage] = []
    failed: list[PreflightError] = []
    for tag in tags[:CANDIDATES]:
        try:
            if not tag.reference:
                raise Malformed(f"tag {tag.name} of the release: got no pull spec, expected from.name")
            image = images.image(parse_name(tag.reference), arch or None, credentials, VERIFIED_HTTPS)
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
