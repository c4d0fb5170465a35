"""Read a release image: image-references, then driver toolkits, then a target kernel per stream and architecture."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from kmm_preflight.errors import PlatformMissing, UsageProblem
from kmm_preflight.kernel_version import ARCHITECTURES
from kmm_preflight.model import VERIFIED_HTTPS, Release
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import parse_name
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.release.choice import MULTI, Choice
from kmm_preflight.release.comparison import ReadToolkits, compare_with_os
from kmm_preflight.release.driver_toolkit import (
    TOOLKIT_RELEASE,
    Kernels,
    read_toolkit,
    read_toolkit_if_present,
    stream_of_toolkit,
)
from kmm_preflight.release.image_references import IMAGE_REFERENCES, parse_image_references, read_references
from kmm_preflight.release.os_image import os_image_tags
from kmm_preflight.release.packages import LISTS
from kmm_preflight.text import listed

FILES = frozenset({IMAGE_REFERENCES, TOOLKIT_RELEASE}) | LISTS
"""Files that are read in release, toolkit and OS images."""


def read_release(
    images: ImageResolver, name: str, choice: Choice, credentials: PullCredentials
) -> tuple[Release, Kernels]:
    """Return the release, and the chosen kernels: one for each stream, architecture and flavour.

    Raise Malformed if the image is not a release image. Raise UsageProblem if an option names a stream or architecture
    that the release does not have.
    """
    arches = _architectures(images, name, choice, credentials)
    image = _release_image(images, name, arches, choice, credentials)
    references = read_references(image, name)
    version, pull_specs = parse_image_references(references, name)
    own_arch = image.config().arch or ""
    toolkits = [
        (tag, *toolkit)
        for tag, reference in pull_specs.items()
        for arch in arches
        if (toolkit := read_toolkit_if_present(images, tag, reference, arch or own_arch, choice, credentials))
    ]
    missing = set(choice.streams).difference(*((tag, toolkit.stream) for tag, toolkit, _ in toolkits))
    if missing and choice.filters:
        streams = _all_streams(images, pull_specs, arches[0] or own_arch, credentials)
        unknown = ", ".join(stream for stream in choice.streams if stream in missing)
        raise UsageProblem(f"--stream {unknown}: release {version} has streams {listed(streams)}")
    read_toolkits = ReadToolkits(
        kernels=[(toolkit, kernels) for _, toolkit, kernels in toolkits],
        only_one=len(pull_specs) == 1,
        complete=not choice.streams,
    )
    kernels, notes = compare_with_os(images, os_image_tags(references), read_toolkits, credentials)
    return Release(name, image.resolved.digest, version, tuple(toolkit for _, toolkit, _ in toolkits), notes), kernels


def _all_streams(
    images: ImageResolver, pull_specs: Mapping[str, str], arch: str, credentials: PullCredentials
) -> list[str]:
    """Return the streams of all driver toolkits."""
    any_stream = Choice(flavours=())
    toolkits = (
        read_toolkit(images, tag, reference, arch, any_stream, credentials) for tag, reference in pull_specs.items()
    )
    return [toolkit[0].stream for toolkit in toolkits if toolkit]


def read_streams(
    images: ImageResolver, name: str, arches: tuple[str, ...], credentials: PullCredentials
) -> tuple[str, tuple[str, ...]]:
    """Return the release's version, and the streams of its driver toolkits in the payload's order.

    In an index, read the first of the architectures whose image exists: a mirror may lack the others. No layer of a
    toolkit is read if its label has the stream. Raise the errors of read_release.
    """
    platforms = images.platforms(parse_name(name), credentials) or ()
    in_index = [arch for arch in dict.fromkeys((*arches, *ARCHITECTURES)) if arch in platforms]
    for arch in in_index[:-1]:
        with suppress(PlatformMissing):
            return _streams(images, name, arch, credentials)
    return _streams(images, name, in_index[-1] if in_index else None, credentials)


def _streams(
    images: ImageResolver, name: str, arch: str | None, credentials: PullCredentials
) -> tuple[str, tuple[str, ...]]:
    image = images.image(parse_name(name), arch, credentials, VERIFIED_HTTPS)
    version, pull_specs = parse_image_references(read_references(image, name), name)
    arch = arch or image.config().arch or None
    streams = (stream_of_toolkit(images, tag, reference, arch, credentials) for tag, reference in pull_specs.items())
    return version, tuple(stream for stream in streams if stream)


def _architectures(
    images: ImageResolver, name: str, choice: Choice, credentials: PullCredentials
) -> tuple[str, ...] | tuple[None]:
    """Return the architectures to read: those of the nodes that the release has, and those of the options.

    Do not read other children of an index: a mirror may lack them (docs/reference/openshift.md 1.3).
    """
    node_arches = choice.node_arches()
    if not node_arches:
        return _chosen_architectures(images, name, choice, credentials)
    platforms = images.platforms(parse_name(name), credentials)
    if platforms is None:
        return (None,)
    arches = tuple(arch for arch in node_arches if arch in platforms)
    if not arches or any(kernels.arch is None for kernels in choice.filters):
        chosen = _chosen_architectures(images, name, choice, credentials)
        arches = tuple(dict.fromkeys(arch for arch in (*chosen, *arches) if arch))
    return arches


def _chosen_architectures(
    images: ImageResolver, name: str, choice: Choice, credentials: PullCredentials
) -> tuple[str, ...] | tuple[None]:
    """Return the architectures of the options. If options name none, return amd64 for an index.

    None is the own architecture of an image that is not an index.
    """
    if choice.arches and MULTI not in choice.arches:
        return choice.arches
    platforms = images.platforms(parse_name(name), credentials)
    if choice.arches:
        arches = (*(platforms or ()), *choice.arches)
        return tuple(dict.fromkeys(arch for arch in arches if arch in ARCHITECTURES)) or (None,)
    return (None,) if platforms is None else ("amd64",)


def _release_image(
    images: ImageResolver, name: str, arches: tuple[str | None, ...], choice: Choice, credentials: PullCredentials
) -> Image:
    """Return the release image of the first architecture that the release has.

    Raise UsageProblem if an architecture of the options is missing.
    """
    opened: list[Image] = []
    for arch in arches:
        if opened and arch not in choice.arches:
            continue
        try:
            opened.append(images.image(parse_name(name), arch, credentials, VERIFIED_HTTPS))
        except PlatformMissing as exc:
            if arch in choice.arches:
                raise UsageProblem(f"--arch {arch}: {exc.message}") from exc
            if arch == arches[-1]:
                raise
    return opened[0]
