"""Where a release's images come from, and the small files in them."""

from __future__ import annotations

from typing import Protocol

from kmm_preflight.model import RegistryTLS
from kmm_preflight.oci.credentials import Keyring
from kmm_preflight.oci.image import Image

_FILE_BYTES = 32 << 20


class Images(Protocol):
    """Where images come from."""

    def platforms(self, name: str, keyring: Keyring) -> tuple[str, ...] | None:
        """Architectures of an index, None for a single image."""

    def image(self, name: str, arch: str | None, keyring: Keyring, tls: RegistryTLS) -> Image:
        """The image for linux/arch."""


def read_file(image: Image, path: str) -> bytes | None:
    """The bytes of a file, found in whichever layer; None when there is no such file. BoundExceeded above 32 MiB."""
    located = image.files.file(path)
    if located is None:
        return None
    with image.content(located).open("rb") as file:
        return file.read(_FILE_BYTES)
