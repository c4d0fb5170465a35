"""Pull policy of a Module's image, and the images of its name that nodes hold already (docs/reference/kmm.md 12.4)."""

from __future__ import annotations

from dataclasses import dataclass

from kmm_preflight.oci.reference import Reference

ALWAYS, IF_NOT_PRESENT, NEVER = "Always", "IfNotPresent", "Never"


@dataclass(frozen=True)
class HeldImages:
    """The image that nodes hold under one name, as their status lists it."""

    digests: tuple[str, ...]
    """Digests of the image, at least one: of its index, of its manifest, or of both."""
    nodes: tuple[str, ...]
    """Names of the nodes, in alphabetical order."""


@dataclass(frozen=True)
class NodeStore:
    """Images that the nodes of a case hold under the name of its image."""

    held: tuple[HeldImages, ...] = ()
    """Each different image once."""
    without: tuple[str, ...] = ()
    """Nodes whose list of images is whole, and does not have the name."""
    unlisted: tuple[str, ...] = ()
    """Nodes whose list of images may be cut off, and does not have the name."""


NOTHING_KNOWN = NodeStore()
"""The store of a case whose nodes are not known."""


def effective_policy(policy: str | None, image: Reference) -> str:
    """Return the policy that Kubernetes applies: without a policy, the tag latest is always pulled."""
    if policy:
        return policy
    return ALWAYS if image.tag == "latest" and not image.digest else IF_NOT_PRESENT
