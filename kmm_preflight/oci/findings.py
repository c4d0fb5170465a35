"""Findings about an image in its registry."""

from __future__ import annotations

from kmm_preflight import errors
from kmm_preflight.catalogue import REFUTES, UNDECIDED, WARNING, FindingKind, define
from kmm_preflight.model import Finding

IMAGE_NOT_FOUND = define(
    "image-not-found",
    REFUTES,
    "{problem}",
    "Build and push the image for {kernel}, or correct containerImage in the mapping that matches {kernel}.",
)

IMAGE_ACCESS_UNDECIDED = define(
    "image-access-undecided",
    UNDECIDED,
    "{problem} (with --authfile, which nodes do not use)",
    "Pass an --authfile that may pull this image, or add the Module's imageRepoSecret to the manifests.",
)

REGISTRY_BLOCKED = define(
    "registry-blocked",
    REFUTES,
    "{problem}, so no node can pull the image",
    "Change registrySources of image.config.openshift.io/cluster or the mirror set, or move the image to a registry "
    "that nodes may use.",
)

IMAGE_PLATFORM_MISSING = define(
    "image-platform-missing",
    REFUTES,
    "{problem}",
    "Build the image for the architecture of {kernel} too, and push an image index with all architectures.",
)

IMAGE_PLATFORM_LABEL = define(
    "image-platform-label",
    WARNING,
    "{problem}; nodes pull the image anyway",
    "Build the image with the platform of {kernel} in its config.",
)

IMAGE_UNREADABLE = define(
    "image-unreadable",
    REFUTES,
    "{problem}",
    "Build and push the image again. Nodes cannot unpack this image.",
)

REGISTRY_UNREACHABLE = define(
    "registry-unreachable", UNDECIDED, "{problem}", "Check the network, the proxy and the registry, then run again."
)

REGISTRY_UNTRUSTED = define(
    "registry-untrusted",
    UNDECIDED,
    "{problem}",
    "Pass the registry's CA with --registry-ca.",
)

DIGEST_MISMATCH = define(
    "digest-mismatch", UNDECIDED, "{problem}", "Find the proxy or cache that changes the content, then run again."
)

TRANSFER_TRUNCATED = define(
    "transfer-truncated", UNDECIDED, "{problem}", "Check the network, the proxy and the registry, then run again."
)

BOUND_EXCEEDED = define(
    "bound-exceeded",
    UNDECIDED,
    "{problem}",
    "Inspect the image by hand. An image for kernel modules does not need to be this large.",
)

_OF_ERROR: dict[type[errors.PreflightError], FindingKind] = {
    errors.PlatformMissing: IMAGE_PLATFORM_MISSING,
    errors.NotFound: IMAGE_NOT_FOUND,
    errors.Malformed: IMAGE_UNREADABLE,
    errors.Blocked: REGISTRY_BLOCKED,
    errors.AccessUndecided: IMAGE_ACCESS_UNDECIDED,
    errors.Unreachable: REGISTRY_UNREACHABLE,
    errors.Untrusted: REGISTRY_UNTRUSTED,
    errors.DigestMismatch: DIGEST_MISMATCH,
    errors.Truncated: TRANSFER_TRUNCATED,
    errors.BoundExceeded: BOUND_EXCEEDED,
}


def finding_of(error: errors.PreflightError, kernel: str) -> Finding:
    """Return the finding for an error while reading an image. AccessDenied needs the credentials and is not here."""
    kind = next(_OF_ERROR[parent] for parent in type(error).__mro__ if parent in _OF_ERROR)
    return kind(problem=error.message, kernel=kernel)
