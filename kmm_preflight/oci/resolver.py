"""ImageResolver: the only way to open an image by its name, in registries as a node would, or in a local layout."""

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

_NO_CLUSTER = Registries()


class ImageResolver:
    """Opens images by name. If a layout is given, it looks up registry names only in the layout."""

    def __init__(
        self,
        network: Network,
        cache: Cache,
        layout: LayoutReference | None,
        keep: KeepRules,
        registries: Registries = _NO_CLUSTER,
    ) -> None:
        self._connections = Connections(network)
        self._cache = cache
        self._layout = Layout(layout) if layout else None
        self._keep = keep
        self._registries = registries

    @property
    def replaces_registries(self) -> bool:
        """True if a layout replaces every registry."""
        return self._layout is not None

    def refusal(self, name: ImageName) -> str | None:
        """Return why the cluster allows no node to pull this name, or None."""
        return self._registries.refusal(name) if isinstance(name, Reference) else None

    def platforms(self, name: ImageName, credentials: PullCredentials) -> tuple[str, ...] | None:
        """Return the architectures of the index for the name, or None for a single image. Raise PreflightError."""
        return platforms(self._fetch(name, credentials, VERIFIED_HTTPS), f"image {name.name}")

    def image(self, name: ImageName, arch: str | None, credentials: PullCredentials, tls: RegistryTLS) -> Image:
        """Return the image for linux and the architecture.

        Without an architecture, return the only image, or the image of an index for amd64. Raise PlatformMissing if a
        single image is for another platform, and any other PreflightError from reading the image.
        """
        image = self.pulled(name, arch or "amd64", credentials, tls)
        if problem := image.other_platform(arch):
            raise PlatformMissing(problem)
        return image

    def pulled(self, name: ImageName, arch: str, credentials: PullCredentials, tls: RegistryTLS) -> Image:
        """Return the image that a node of the architecture pulls. The platform in the image's config does not count.

        Raise PlatformMissing if an index has no image for the architecture, and any other PreflightError.
        """
        fetched = self._fetch(name, credentials, tls)
        image = Image(find_image(fetched, name.name, arch), fetched.repository, self._cache, self._keep)
        image.config()
        return image

    def _fetch(self, name: ImageName, credentials: PullCredentials, tls: RegistryTLS) -> FetchedManifest:
        if isinstance(name, LayoutReference):
            layout = Layout(name)
            return _from_layout(layout, _layout_digest(layout, name.tag))
        if self._layout is None:
            return self._from_registries(name, credentials, tls)
        return _from_layout(self._layout, name.digest or self._layout.digest(*layout_names(name)))

    def _from_registries(self, reference: Reference, credentials: PullCredentials, tls: RegistryTLS) -> FetchedManifest:
        """Return the first manifest that a source has for the name.

        Later requests for this image go to this source only, as on a node.
        """
        failures: list[tuple[PullSource, PreflightError]] = []
        for source in self._registries.mirrors.pull_sources(reference):
            try:
                return self._from_source(source, reference.host, credentials, tls)
            except PreflightError as exc:
                failures.append((source, exc))
        raise combined_error(reference, failures)

    def _from_source(
        self, source: PullSource, host: str, credentials: PullCredentials, tls: RegistryTLS
    ) -> FetchedManifest:
        if problem := self._registries.mirror_refusal(source):
            raise Blocked(problem)
        place = source.reference
        keychains = credentials.keychains(on_other_host=place.host != host)
        authority = self._registries.authorities.get(place.host)
        allowed = self._registries.tls(source, tls)
        repository = RegistryRepository(place, keychains, allowed, self._connections, authority)
        answer = repository.manifest(place.identifier)
        return FetchedManifest(repository, place.identifier, answer, str(place) if source.mirror else None)


def _from_layout(layout: Layout, digest: str) -> FetchedManifest:
    return FetchedManifest(layout, digest, layout.manifest(digest))


def _layout_digest(layout: Layout, tag: str | None) -> str:
    if tag is None:
        return layout.digest()
    return tag if tag.startswith("sha256:") else layout.digest(tag)


def combined_error(reference: Reference, failures: Sequence[tuple[PullSource, PreflightError]]) -> PreflightError:
    """Return one error for all sources that failed: the message of the name itself, then that of each mirror.

    It is Undecidable if the error of any source is: a mirror that is down may have the image.
    """
    if not failures:
        return Blocked(
            f"image {reference}: its mirror set says NeverContactSource, and no mirror serves "
            f"{'digests' if reference.digest else 'tags'}"
        )
    repository = f"{reference.host}/{reference.repository}"
    shown = next((exc for source, exc in failures if not source.mirror), failures[-1][1])
    if len(failures) == 1 and not failures[0][0].mirror:
        return shown
    undecided = [exc for exc in (shown, *(exc for _, exc in failures)) if isinstance(exc, Undecidable)]
    mirrors = "; ".join(exc.message for source, exc in failures if source.mirror and exc is not shown)
    words = f"{shown.message}; its mirrors failed too: {mirrors}" if mirrors else shown.message
    if all(source.mirror for source, _ in failures):
        words = f"{words}; nodes never contact {repository} itself (NeverContactSource)"
    return type(undecided[0] if undecided else shown)(words)


def check_layout(layout: LayoutReference) -> None:
    """Raise NotFound or Malformed unless the path is an OCI layout."""
    try:
        Layout(layout)
    except Malformed as exc:
        raise Malformed(f"{layout.path} is not an OCI layout: {exc.message}") from exc
