"""Options of a build that follow from the images it uses."""

from __future__ import annotations

from collections.abc import Iterable

from kmm_preflight.oci.image import Image

OMIT_HISTORY = "--omit-history"
"""Write no history. buildah up to 1.33 compares the history with the layers, and fails if an entry is missing."""
DOCKER_FORMAT = "--format=docker"
"""Write Docker's format. OCI's has no place for HEALTHCHECK, SHELL and ONBUILD."""


def history_options(images: Iterable[Image]) -> tuple[str, ...]:
    """Return the option for images without a whole history, such as images of ko, jib, Bazel, apko and crane."""
    return () if all(image.config().filled_layers == image.layer_count for image in images) else (OMIT_HISTORY,)


def format_options(image: Image) -> tuple[str, ...]:
    """Return the option that keeps HEALTHCHECK, SHELL and ONBUILD of the image that a signing starts from."""
    return (DOCKER_FORMAT,) if image.config().docker_fields else ()
