"""The one door through which every image name goes: to a registry, to a local layout, or to a layout in its stead."""

from __future__ import annotations

from kmm_preflight.errors import Malformed, PlatformMissing
from kmm_preflight.model import VERIFIED_HTTPS, RegistryTLS
from kmm_preflight.oci.auth import Keychain
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.image import Image, Repository, find_image, platforms
from kmm_preflight.oci.layers import Wanted
from kmm_preflight.oci.layout import Layout, layout_names
from kmm_preflight.oci.reference import LayoutReference, parse_name
from kmm_preflight.oci.registry import Connections, Network, RegistryRepository


class Images:
    """Opens images by name. With a layout, registry names are looked up there and nowhere else."""

    def __init__(self, network: Network, cache: Cache, layout: LayoutReference | None, wanted: Wanted) -> None:
        self._connections = Connections(network)
        self._cache = cache
        self._layout = Layout(layout) if layout else None
        self._wanted = wanted

    def platforms(self, name: str, keychain: Keychain | None) -> tuple[str, ...] | None:
        """Architectures behind the name; None when it is a single image. Raises what reading the manifest raises."""
        repository, reference = self._open(name, keychain, VERIFIED_HTTPS)
        return platforms(repository, f"image {name}", reference)

    def image(self, name: str, arch: str | None, keychain: Keychain | None, tls: RegistryTLS) -> Image:
        """The image for linux/arch; with None the only one there is, of an index that for amd64.

        PlatformMissing when a single image says that it is for another architecture.
        """
        repository, reference = self._open(name, keychain, tls)
        image = Image(find_image(repository, name, reference, arch or "amd64"), repository, self._cache, self._wanted)
        got = image.config().arch
        if arch and got not in ("", arch):
            raise PlatformMissing(f"image {name}: got an image for {got}, expected linux/{arch}")
        return image

    def _open(self, name: str, keychain: Keychain | None, tls: RegistryTLS) -> tuple[Repository, str]:
        parsed = parse_name(name)
        if isinstance(parsed, LayoutReference):
            layout = Layout(parsed)
            return layout, parsed.tag if parsed.tag.startswith("sha256:") else layout.digest((parsed.tag,))
        if self._layout is None:
            return RegistryRepository(parsed, keychain, tls, self._connections), parsed.wanted
        return self._layout, parsed.digest or self._layout.digest(layout_names(parsed, name))


def check_layout(layout: LayoutReference) -> None:
    """Raises NotFound or Malformed unless there is a layout at the path."""
    try:
        Layout(layout)
    except Malformed as exc:
        raise Malformed(f"{layout.path} is no OCI layout: {exc.message}") from exc
