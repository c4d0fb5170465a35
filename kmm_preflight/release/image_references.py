"""Read image-references of a release image: its version, and the images of its tags (docs/reference/openshift.md 1)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed
from kmm_preflight.oci.document import parse_json
from kmm_preflight.oci.image import Image
from kmm_preflight.release.images import read_file

IMAGE_REFERENCES = "release-manifests/image-references"
_MAYBE_TOOLKIT = re.compile(r"driver-toolkit(-.+)?")


def read_references(image: Image, name: str) -> Field:
    """The document; Malformed when the image has none."""
    body = read_file(image, IMAGE_REFERENCES)
    if body is None:
        raise Malformed(f"image {name} is no release image: it has no {IMAGE_REFERENCES}")
    return parse_json(body, f"{IMAGE_REFERENCES} of {name}")


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
