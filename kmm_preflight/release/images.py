"""Where a release's images come from, and the small files in them."""

from __future__ import annotations

from kmm_preflight.oci.image import Image

_FILE_BYTES = 32 << 20


def read_file(image: Image, path: str) -> bytes | None:
    """The bytes of a file, found in whichever layer; None when there is no such file. BoundExceeded above 32 MiB."""
    located = image.files.file(path)
    if located is None:
        return None
    with image.content(located).open("rb") as file:
        return file.read(_FILE_BYTES)
