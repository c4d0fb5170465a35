"""The one door through which every image name goes: to registries as a node asks them, or to a local layout."""

from __future__ import annotations

from collections.abc import Sequence

from kmm_preflight.errors import (
    Blocked,
    Malformed,
    PlatformMissing,
    PreflightError,
    Undecidable,
)
from kmm_preflight.model import VERIFIED_HTTPS, RegistryTLS
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Connections, Network
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.image import FetchedManifest, Image, find_image, platforms
from kmm_preflight.oci.layers import KeepRules
from kmm_preflight.oci.layout import Layout, layout_names
from kmm_preflight.oci.mirrors import PullSource
from kmm_preflight.oci.reference import ImageName, LayoutReference, Reference
from kmm_preflight.oci.registries import Registries
from kmm_preflight.oci.registry import RegistryRepository

_HERE = Registries()


class ImageResolver:
    """Opens images by name. With a layout, registry names are looked up there and nowhere else."""

    def __init__(
        self,
        network: Network,
        cache: Cache,
        layout: LayoutReference | None,
        wanted: KeepRules,
        registries: Registries = _HERE,
    ) -> None:
        self._connections = Connections(network)
        self._cache = cache
        self._layout = Layout(layout) if layout else None
        self._wanted = wanted
        self._registries = registries

    def refusal(self, name: ImageName) -> str:
        """Why the cluster lets no node pull this name, "" when it may be pulled."""
        return self._registries.refusal(name) if isinstance(name, Reference) else ""

    def platforms(self, name: ImageName, credentials: PullCredentials) -> tuple[str, ...] | None:
        """Architectures behind the name; None when it is a single image. Raises what reading the manifest raises."""
        return platforms(self._open(name, credentials, VERIFIED_HTTPS), f"image {name.name}")

    def image(self, name: ImageName, arch: str | None, credentials: PullCredentials, tls: RegistryTLS) -> Image:
        """The image for linux/arch; with None the only one there is, of an index that for amd64.

        PlatformMissing when a single image says that it is for another architecture.
        """
        source = self._open(name, credentials, tls)
        image = Image(find_image(source, name.name, arch or "amd64"), source.repository, self._cache, self._wanted)
        config = image.config()
        if config.os not in ("", "linux") or (arch and config.arch not in ("", arch)):
            got = config.arch if config.os in ("", "linux") else f"{config.os}/{config.arch}"
            raise PlatformMissing(f"image {name.name}: got an image for {got}, expected linux/{arch or 'any'}")
        return image

    def _open(self, name: ImageName, credentials: PullCredentials, tls: RegistryTLS) -> FetchedManifest:
        if isinstance(name, LayoutReference):
            layout = Layout(name)
            digest = name.tag if name.tag.startswith("sha256:") else layout.digest((name.tag,))
            return FetchedManifest(layout, digest, layout.manifest(digest))
        if self._layout is None:
            return self._first(name, credentials, tls)
        digest = name.digest or self._layout.digest(layout_names(name))
        return FetchedManifest(self._layout, digest, self._layout.manifest(digest))

    def _first(self, reference: Reference, credentials: PullCredentials, tls: RegistryTLS) -> FetchedManifest:
        """The first place that has a manifest for the name; whatever comes after is asked of it alone, as on a node."""
        failed: list[tuple[PullSource, PreflightError]] = []
        for hop in self._registries.mirrors.pull_sources(reference):
            try:
                return self._at(hop, reference.host, credentials, tls)
            except PreflightError as exc:
                failed.append((hop, exc))
        raise failure(reference, failed)

    def _at(self, hop: PullSource, source_host: str, credentials: PullCredentials, tls: RegistryTLS) -> FetchedManifest:
        if problem := self._registries.mirror_refusal(hop):
            raise Blocked(problem)
        place = hop.reference
        keychains = credentials.keychains(on_other_host=place.host != source_host)
        authority = self._registries.authorities.get(place.host, "")
        repository = RegistryRepository(place, keychains, self._registries.tls(hop, tls), self._connections, authority)
        return FetchedManifest(
            repository, place.wanted, repository.manifest(place.wanted), str(place) if hop.mirror else None
        )


def failure(reference: Reference, failed: Sequence[tuple[PullSource, PreflightError]]) -> PreflightError:
    """One error for all places that failed, in the words of the source and after it of each mirror.

    Undecidable when any place is: a mirror that is down may have the image.
    """
    if not failed:
        return Blocked(
            f"image {reference}: its mirror set says NeverContactSource, and no mirror serves "
            f"{'digests' if reference.digest else 'tags'}"
        )
    shown = next((exc for hop, exc in failed if not hop.mirror), failed[-1][1])
    if len(failed) == 1 and not failed[0][0].mirror:
        return shown
    undecided = [exc for exc in (shown, *(exc for _, exc in failed)) if isinstance(exc, Undecidable)]
    mirrors = "; ".join(exc.message for hop, exc in failed if hop.mirror and exc is not shown)
    words = f"{shown.message}; its mirrors failed too: {mirrors}" if mirrors else shown.message
    if all(hop.mirror for hop, _ in failed):
        words = f"{words}; {reference.host}/{reference.repository} itself is never asked (NeverContactSource)"
    return type(undecided[0] if undecided else shown)(words)


def check_layout(layout: LayoutReference) -> None:
    """Raises NotFound or Malformed unless there is a layout at the path."""
    try:
        Layout(layout)
    except Malformed as exc:
        raise Malformed(f"{layout.path} is no OCI layout: {exc.message}") from exc
