"""Read image-references of a release image: its version, and the images of its tags (docs/reference/openshift.md 1)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed
from kmm_preflight.oci.document import parse_json
from kmm_preflight.oci.image import Image
from kmm_preflight.release.image_files import read_file

IMAGE_REFERENCES = "release-manifests/image-references"
_MAYBE_TOOLKIT = re.compile(r"driver-toolkit(-.+)?")


def read_references(image: Image, name: str) -> Field:
    """Read the document of a release image. Raise Malformed if the image has none."""
    body = read_file(image, IMAGE_REFERENCES)
    if body is None:
        raise Malformed(f"image {name} is not a release image: it has no {IMAGE_REFERENCES}")
    return parse_json(body, f"{IMAGE_REFERENCES} of {name}")


def parse_image_references(document: Field, name: str) -> tuple[str, dict[str, str]]:
    """Return the release's version, and the pull specs of its driver toolkits by tag, in the payload's order.

    Raise Malformed for another kind of document, or for a release without a driver toolkit.
    """
    if document["kind"].text() != "ImageStream":
        raise Malformed(
            f"image {name} is not a release image: {IMAGE_REFERENCES}: {document['kind'].refuse('ImageStream')}"
        )
    toolkits = toolkit_references((tag["name"].text(), tag["from"]["name"].value) for tag in document["spec"]["tags"])
    if not toolkits:
        raise Malformed(f"image {name} is a release image without a driver toolkit: it has no tag driver-toolkit")
    return document["metadata"]["name"].text(), toolkits


def toolkit_references(tags: Iterable[tuple[str, object]]) -> dict[str, str]:
    """Return the pull specs of the tags that may be driver toolkits. Raise Malformed for a tag without a pull spec."""
    toolkits: dict[str, str] = {}
    for tag, reference in tags:
        if not _MAYBE_TOOLKIT.fullmatch(tag) or tag in toolkits:
            continue
        if not isinstance(reference, str) or not reference:
            raise Malformed(f"tag {tag} of {IMAGE_REFERENCES} has no pull spec in from.name")
        toolkits[tag] = reference
    return toolkits
