"""Check of the bytes that nodes run, if they hold another image under the name than the registry has.

With imagePullPolicy IfNotPresent, a node keeps the image that it holds under the name (docs/reference/kmm.md 12.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from kmm_preflight.model import Finding, Outcome, StageResult
from kmm_preflight.oci import findings as oci_findings
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from kmm_preflight.planning.pull_policy import NEVER, HeldImages, effective_policy
from kmm_preflight.stages import findings
from kmm_preflight.stages.decision import Decision
from kmm_preflight.text import listed

Judge = Callable[[Reference], StageResult]
"""The image stage for another name of the plan's image."""

# The registry does not give the bytes that the node holds.
_NOT_READ = {oci_findings.IMAGE_NOT_FOUND.id, findings.IMAGE_ACCESS_DENIED.id}
_MOST = 5


def with_held_images(plan: Plan, result: StageResult, judge: Judge) -> StageResult:
    """Return the result of the image stage together with what nodes hold under the name of the image."""
    found = tuple(_findings(plan, result, judge))
    decision = Decision.of(found)
    from_nodes_alone = result.image is None and effective_policy(plan.pull_policy, plan.image) == NEVER
    is_lighter = result.outcome in (Outcome.FAILED, decision.outcome) and not from_nodes_alone
    if decision.finding is None or is_lighter:
        return replace(result, findings=(*result.findings, *found))
    findings_ = (*decision.findings, *result.findings)
    return replace(result, outcome=decision.outcome, reason=decision.finding.sentence, findings=findings_)


def _findings(plan: Plan, result: StageResult, judge: Judge) -> Iterator[Finding]:
    store, policy = plan.store, effective_policy(plan.pull_policy, plan.image)
    if policy == NEVER and store.without:
        yield findings.IMAGE_NEVER_PULLED(image=plan.image.name, nodes=_words(store.without))
    if policy == NEVER and (store.unlisted or not (store.held or store.without)):
        nodes = _words(store.unlisted) if store.unlisted else "the nodes"
        yield findings.IMAGE_NEVER_OPEN(image=plan.image.name, nodes=nodes)
    for number, held in enumerate(store.held):
        if result.image and {result.image.digest, result.image.manifest_digest} & set(held.digests):
            continue
        yield _held(plan, result, held, judge if number < _MOST else None)


def _held(plan: Plan, result: StageResult, held: HeldImages, judge: Judge | None) -> Finding:
    """Return the finding about an image that nodes hold and the registry does not have under the name any more."""
    values = {
        "nodes": _words(held.nodes),
        "image": plan.image.name,
        "held": held.digests[0],
        "now": result.image.digest if result.image else "no image that could be read",
        "policy": effective_policy(plan.pull_policy, plan.image),
    }
    if judge is None:
        return findings.NODE_IMAGE_OPEN(**values, problem="there are too many different images")
    reference = replace(plan.image, tag=None, digest=held.digests[0], written=None)
    judged = judge(reference)
    if judged.outcome is Outcome.VERIFIED:
        return findings.NODE_IMAGE_OTHER(**values)
    first = judged.findings[0] if judged.findings else None
    if judged.outcome is Outcome.FAILED and not (first and first.id in _NOT_READ):
        return findings.NODE_IMAGE_BAD(**values, problem=judged.reason)
    return findings.NODE_IMAGE_OPEN(**values, problem=judged.reason)


def _words(nodes: tuple[str, ...]) -> str:
    return f"{'node' if len(nodes) == 1 else 'nodes'} {listed(list(nodes))}"
