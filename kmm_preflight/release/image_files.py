"""Read small files of a release's images."""

from __future__ import annotations

from kmm_preflight.oci.image import Image

_FILE_BYTES = 32 << 20


def read_file(image: Image, path: str) -> bytes | None:
    """Return the first 32 MiB of a file, from any layer. If the image has no such file, return None."""
    located = image.files.file(path)
    if located is None:
        return None
    with image.content(located).open("rb") as file:
        return file.read(_FILE_BYTES)
