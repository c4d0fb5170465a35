"""Check of the signatures that a cluster's policies require of an image (docs/reference/openshift.md 5.3, 5.4)."""

from __future__ import annotations

from collections.abc import Iterable

from kmm_preflight.catalogue import heaviest_first
from kmm_preflight.model import Finding
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import ImageName, Reference
from kmm_preflight.oci.signature_policy import SignaturePolicy
from kmm_preflight.oci.sigstore import Attachment, UnknownKey, refusal
from kmm_preflight.stages import findings


def judge_policies(
    policies: Iterable[SignaturePolicy], image: Image, name: ImageName, in_layout: bool = False
) -> Finding | None:
    """Return the heaviest finding about the policies that apply to the image, or None. Raise PreflightError.

    in_layout: a layout replaces the registry, and layouts have no signatures. An image that this run built has no
    signature either: the build stage reports that.
    """
    if not isinstance(name, Reference):
        return None
    required = tuple(policies)
    if not required:
        return None
    if in_layout:
        problem = "the image was read from a layout, which has no signatures"
        return findings.IMAGE_SIGNATURE_OPEN(policy=required[0].name, image=name.name, problem=problem)
    attachments = image.attachments()
    judged = (_judge(policy, attachments, image, name) for policy in required)
    return next(iter(heaviest_first(finding for finding in judged if finding)), None)


def _judge(
    policy: SignaturePolicy, attachments: tuple[Attachment, ...], image: Image, name: Reference
) -> Finding | None:
    digest = image.resolved.manifest_digest
    try:
        problem = refusal(policy, attachments, name, digest)
    except UnknownKey as exc:
        return findings.IMAGE_SIGNATURE_OPEN(policy=policy.name, image=name.name, problem=exc)
    if problem:
        return findings.IMAGE_SIGNATURE_REFUSED(policy=policy.name, image=name.name, problem=problem, digest=digest)
    if policy.beyond_key:
        problem = f"{policy.beyond_key} are not verified"
        return findings.IMAGE_SIGNATURE_OPEN(policy=policy.name, image=name.name, problem=problem)
    return None
