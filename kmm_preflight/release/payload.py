"""A release image becomes target kernels: image-references, driver toolkits, one stream and architecture each."""

from __future__ import annotations

from contextlib import suppress

from kmm_preflight.errors import PlatformMissing, UsageProblem
from kmm_preflight.kernel_version import ARCHITECTURES
from kmm_preflight.model import VERIFIED_HTTPS, Release
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import parse_name
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.release.choice import MULTI, Choice
from kmm_preflight.release.comparison import Toolkits, compare_with_os
from kmm_preflight.release.driver_toolkit import (
    TOOLKIT_RELEASE,
    Kernels,
    needed_toolkit,
    read_toolkit,
    stream_of_toolkit,
)
from kmm_preflight.release.image_references import IMAGE_REFERENCES, parse_image_references, read_references
from kmm_preflight.release.os_image import os_image_tags
from kmm_preflight.release.packages import LISTS
from kmm_preflight.text import listed

FILES = frozenset({IMAGE_REFERENCES, TOOLKIT_RELEASE}) | LISTS
"""What is read of release, toolkit and OS images."""


def read_release(
    images: ImageResolver, name: str, choice: Choice, credentials: PullCredentials
) -> tuple[Release, Kernels]:
    """The release behind the name, and the kernels that the choice takes of it, one for each stream and architecture.

    Malformed when it is no release image; UsageProblem when it lacks a stream or architecture that was chosen; else
    what reading images raises.
    """
    arches = _architectures(images, name, choice, credentials)
    image = _release_image(images, name, arches, choice, credentials)
    references = read_references(image, name)
    version, toolkits = parse_image_references(references, name)
    read = [
        (tag, *toolkit)
        for tag, reference in toolkits.items()
        for arch in arches
        if (toolkit := needed_toolkit(images, tag, reference, arch or image.config().arch, choice, credentials))
    ]
    missing = set(choice.streams).difference(*((tag, toolkit.stream) for tag, toolkit, _ in read))
    if missing and choice.wants:
        arch = arches[0] or image.config().arch
        every = Choice(flavours=())
        have = [
            toolkit[0].stream
            for tag, reference in toolkits.items()
            if (toolkit := read_toolkit(images, tag, reference, arch, every, credentials))
        ]
        named = ", ".join(stream for stream in choice.streams if stream in missing)
        raise UsageProblem(f"--stream {named}: release {version} has streams {listed(have)}")
    theirs = Toolkits([(one, kernels) for _, one, kernels in read], len(toolkits) == 1, not choice.streams)
    kernels, notes = compare_with_os(images, os_image_tags(references), theirs, credentials)
    return Release(name, image.resolved.digest, version, tuple(toolkit for _, toolkit, _ in read), notes), kernels


def read_streams(
    images: ImageResolver, name: str, arches: tuple[str, ...], credentials: PullCredentials
) -> tuple[str, tuple[str, ...]]:
    """The release's version, and the streams of its driver toolkits in the payload's order.

    Of an index the first of the architectures is read that is there; others may be missing. No layer of a toolkit is
    needed where its label tells the stream. Raises what read_release raises.
    """
    platforms = images.platforms(parse_name(name), credentials) or ()
    have = [one for one in dict.fromkeys((*arches, *ARCHITECTURES)) if one in platforms]
    for arch in have[:-1]:
        with suppress(PlatformMissing):
            return _streams(images, name, arch, credentials)
    return _streams(images, name, have[-1] if have else None, credentials)


def _streams(
    images: ImageResolver, name: str, arch: str | None, credentials: PullCredentials
) -> tuple[str, tuple[str, ...]]:
    image = images.image(parse_name(name), arch, credentials, VERIFIED_HTTPS)
    version, toolkits = parse_image_references(read_references(image, name), name)
    arch = arch or image.config().arch or None
    streams = (stream_of_toolkit(images, tag, reference, arch, credentials) for tag, reference in toolkits.items())
    return version, tuple(stream for stream in streams if stream)


def _architectures(
    images: ImageResolver, name: str, choice: Choice, credentials: PullCredentials
) -> tuple[str, ...] | tuple[None]:
    """The architectures that are read: those that nodes have, as far as the release has them, and those chosen.

    No other child of an index is asked for, since it may be missing (docs/reference/openshift.md 1.3).
    """
    wanted = choice.wanted_arches()
    if not wanted:
        return _chosen_architectures(images, name, choice, credentials)
    platforms = images.platforms(parse_name(name), credentials)
    if platforms is None:
        return (None,)
    have = tuple(arch for arch in wanted if arch in platforms)
    if not have or any(not want.arch for want in choice.wants):
        chosen = _chosen_architectures(images, name, choice, credentials)
        have = tuple(dict.fromkeys(one for one in (*chosen, *have) if one))
    return have


def _chosen_architectures(
    images: ImageResolver, name: str, choice: Choice, credentials: PullCredentials
) -> tuple[str, ...] | tuple[None]:
    """The chosen architectures; the image's own (None) where nothing was chosen, of an index amd64."""
    if choice.arches and MULTI not in choice.arches:
        return choice.arches
    platforms = images.platforms(parse_name(name), credentials)
    if choice.arches:
        every = (*(platforms or ()), *choice.arches)
        return tuple(dict.fromkeys(arch for arch in every if arch in ARCHITECTURES)) or (None,)
    return (None,) if platforms is None else ("amd64",)


def _release_image(
    images: ImageResolver, name: str, arches: tuple[str | None, ...], choice: Choice, credentials: PullCredentials
) -> Image:
    """The release image of the first architecture that it has; UsageProblem when one that was chosen is not there."""
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
