"""Check that a result reaches nodes: without a push, nodes take the image that the name resolves to already.

KMM builds and signs only under a name that does not resolve (docs/reference/kmm.md 5.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kmm_preflight.build import findings
from kmm_preflight.model import Finding, Outcome, Stage, StageResult
from kmm_preflight.oci import findings as oci_findings
from kmm_preflight.oci.signature_policy import SignaturePolicy
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages import findings as stages_findings

# The pull of such an image fails, so KMM builds.
_NOT_PULLED = {oci_findings.IMAGE_UNREADABLE.id}
# With these, nodes refuse every image of the name, also an image that KMM will build.
_REFUSED_BY_NAME = {
    oci_findings.REGISTRY_BLOCKED.id,
    stages_findings.REGISTRY_TLS_IGNORED.id,
    stages_findings.NODE_IMAGE_BAD.id,
    stages_findings.IMAGE_NEVER_PULLED.id,
}


def reach_nodes(
    plan: Plan, image: StageResult, result: StageResult, policies: Sequence[SignaturePolicy] = ()
) -> StageResult:
    """Return the result of a section. Fail the last section if no node takes the image that it made.

    image is the result of the image stage. policies require a signature of the image.
    """
    last = Stage.SIGN if plan.sign else Stage.BUILD
    if result.stage is not last or result.outcome is not Outcome.VERIFIED:
        return result
    refusal = next((finding for finding in image.findings if finding.id in _REFUSED_BY_NAME), None)
    if refusal:
        return _failed(result, refusal)
    if policies:
        return _failed(result, findings.BUILD_UNSIGNED(policy=policies[0].name, image=plan.image.name))
    made = result.image
    if made is None or made.stored:
        return result
    if image.image is None or (image.findings and image.findings[0].id in _NOT_PULLED):
        return result
    got = image.findings[0].sentence if image.findings else image.reason
    finding = findings.BUILD_UNUSED(image=plan.image.name, digest=image.image.digest, got=got)
    return _failed(result, finding)


def _failed(result: StageResult, finding: Finding) -> StageResult:
    return replace(result, outcome=Outcome.FAILED, reason=finding.sentence, findings=(finding, *result.findings))
