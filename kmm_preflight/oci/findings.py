"""Findings about an image in its registry."""

from __future__ import annotations

from kmm_preflight import errors
from kmm_preflight.catalogue import REFUTES, UNDECIDED, FindingKind, define
from kmm_preflight.model import Finding

IMAGE_NOT_FOUND = define(
    "image-not-found",
    REFUTES,
    "{problem}",
    "Build and push the image for {kernel}, or correct containerImage of the mapping that matches it.",
)

IMAGE_ACCESS_UNDECIDED = define(
    "image-access-undecided",
    UNDECIDED,
    "{problem} (with --authfile, which is not what the node uses)",
    "Pass an --authfile that may pull this image, or put the Module's imageRepoSecret among the manifests.",
)

REGISTRY_BLOCKED = define(
    "registry-blocked",
    REFUTES,
    "{problem}, so no node pulls it",
    "Change registrySources of image.config.openshift.io/cluster or the mirror set, or move the image to a registry "
    "that nodes may ask.",
)

IMAGE_PLATFORM_MISSING = define(
    "image-platform-missing",
    REFUTES,
    "{problem}",
    "Push the image for the architecture of {kernel} too, as part of an image index.",
)

IMAGE_UNREADABLE = define(
    "image-unreadable",
    REFUTES,
    "{problem}",
    "Build and push the image again: a node cannot unpack this one.",
)

REGISTRY_UNREACHABLE = define(
    "registry-unreachable", UNDECIDED, "{problem}", "Check network, proxy and registry, then run again."
)

REGISTRY_UNTRUSTED = define(
    "registry-untrusted",
    UNDECIDED,
    "{problem}",
    "Pass the registry's CA with --registry-ca.",
)

DIGEST_MISMATCH = define(
    "digest-mismatch", UNDECIDED, "{problem}", "Look for a proxy or cache that alters content, then run again."
)

TRANSFER_TRUNCATED = define(
    "transfer-truncated", UNDECIDED, "{problem}", "Check network, proxy and registry, then run again."
)

BOUND_EXCEEDED = define(
    "bound-exceeded",
    UNDECIDED,
    "{problem}",
    "Look at the image by hand: no image of a kernel module should be like this.",
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


def finding_of(trouble: errors.PreflightError, kernel: str) -> Finding:
    """Return the finding for an error while reading an image. AccessDenied needs the credentials and is not here."""
    return _OF_ERROR[type(trouble)](problem=trouble.message, kernel=kernel)
