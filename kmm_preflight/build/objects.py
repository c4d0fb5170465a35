"""Objects of builds in a cluster: create, find and delete a Job or a Build and its Pods."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.base.polling import polls
from kmm_preflight.build.builder import BuildRequest
from kmm_preflight.cluster.api import JOBS, PODS, Api, Conflict, ResourceKind
from kmm_preflight.errors import Undecidable
from kmm_preflight.model import Manifest

MANAGED_BY, OURS = "app.kubernetes.io/managed-by", "kmm-preflight"
STAGE = "app.kubernetes.io/component"
INSTANCE = "app.kubernetes.io/instance"
MODULE_NAME = "kmm.node.kubernetes.io/module.name"
TARGET_KERNEL = "kmm.node.kubernetes.io/target-kernel"
SPEC_HASH = "kmm-preflight/spec-hash"
SELECTOR = f"{MANAGED_BY}={OURS},{STAGE}"
"""Label selector of all objects that builders of this suite made, in any run."""

# OpenShift names the Pod <name>-build, and a Pod's name has at most 63 characters.
NAME_CHARACTERS = 57
LABEL_CHARACTERS = 63
GONE_SECONDS = 60.0
# The clocks of this machine and of the cluster may differ.
SLACK = timedelta(minutes=5)
_CREATIONS = 3
_ENDS = ("Complete", "Failed", "FailureTarget", "Error", "Cancelled")


def object_name(id: str) -> str:
    """Return the name of a request's object: its id, or a shorter name if the API server would refuse the id."""
    plain = re.sub(r"[^a-z0-9-]+", "-", id.lower()).strip("-")
    if plain == id and len(id) <= NAME_CHARACTERS:
        return id
    digest = hashlib.sha256(id.encode()).hexdigest()[:10]
    return f"{plain[: NAME_CHARACTERS - 11]}-{digest}".strip("-")


def labels_of(request: BuildRequest) -> dict[str, str]:
    """Return the labels of a request's object. This suite and users find it by them."""
    return {
        MANAGED_BY: OURS,
        STAGE: request.stage.value.lower(),
        INSTANCE: object_name(request.id),
        MODULE_NAME: label_value(request.plan.module.name),
        TARGET_KERNEL: label_value(request.plan.kernel.version),
    }


def label_value(text: str) -> str:
    """Return the text as a label value. Replace characters that the API server refuses, such as +."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)[:LABEL_CHARACTERS].strip("._-")


def metadata_of(request: BuildRequest, spec: Manifest, owner: Manifest | None, more: Mapping[str, str]) -> Manifest:
    """Return the metadata of a request's object, with more labels. Kubernetes deletes the object with its owner.

    The owner is not the controller, because KMM recognises its own objects by that. Its deletion is not blocked:
    OpenShift allows that only to accounts that may set the owner's finalizers.
    """
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    metadata: dict[str, object] = {
        "name": object_name(request.id),
        "namespace": request.plan.module.namespace,
        "labels": {**labels_of(request), **more},
        "annotations": {SPEC_HASH: digest},
    }
    if owner is not None:
        fields = Field(owner)
        reference = {key: fields[key].text() for key in ("apiVersion", "kind")}
        reference |= {key: fields["metadata"][key].text() for key in ("name", "uid")}
        metadata["ownerReferences"] = [reference]
    return metadata


def has_ended(manifest: Manifest) -> bool:
    """True if a Job or Build no longer runs."""
    status = Field(manifest)["status"]
    return status["phase"].text() in _ENDS or any(condition(manifest, name) for name in _ENDS)


def condition(manifest: Manifest, name: str) -> Field | None:
    """Return the condition of that type if its status is True."""
    for entry in Field(manifest)["status"]["conditions"]:
        if entry["type"].text() == name and entry["status"].text() == "True":
            return entry
    return None


def create_object(api: Api, kind: ResourceKind, manifest: Manifest) -> None:
    """Create the object. If the same object runs already, keep it. Delete another object of its name first.

    Raise Undecidable if this suite did not make that other object, or if it is not deleted in time.
    """
    name, namespace = _name(manifest), _namespace(manifest)
    for _ in range(_CREATIONS):
        existing = api.get(kind, name, namespace)
        if existing is not None and _is_same_and_runs(existing, manifest):
            return
        if existing is not None:
            _remove(api, kind, existing)
        _wait_until(lambda: not _has_old_pods(api, kind, manifest), f"Pods of {namespace}/{name}")
        with suppress(Conflict):  # another process created it first
            api.create(kind, manifest, namespace)
            return
    raise Undecidable(f"{kind.resource} {namespace}/{name}: another process creates it again and again. Run again.")


def _is_same_and_runs(existing: Manifest, manifest: Manifest) -> bool:
    labels = Field(existing)["metadata"]["labels"]
    if labels[MANAGED_BY].text() != OURS or labels[INSTANCE].text() != _name(existing):
        kind = Field(existing)["kind"].text()
        raise Undecidable(
            f"{kind} {_namespace(existing)}/{_name(existing)}: the object exists and is not of this suite. Delete it."
        )
    is_same = _spec_hash(existing) == _spec_hash(manifest)
    return is_same and not has_ended(existing) and not Field(existing)["metadata"]["deletionTimestamp"].given


def _remove(api: Api, kind: ResourceKind, existing: Manifest) -> None:
    name, namespace = _name(existing), _namespace(existing)
    delete(api, kind, existing)

    def is_gone() -> bool:
        now = api.get(kind, name, namespace, metadata_only=True)
        return now is None or _uid(now) != _uid(existing)

    _wait_until(is_gone, f"{kind.resource} {namespace}/{name}")


def _has_old_pods(api: Api, kind: ResourceKind, manifest: Manifest) -> bool:
    """True if Pods of an earlier object exist. Two Pods would push one image, and OpenShift reuses the Pod's name."""
    pods = _pods(api, manifest)
    return any(kind is not JOBS or Field(pod)["status"]["phase"].text() not in ("Succeeded", "Failed") for pod in pods)


def _wait_until(is_gone: Callable[[], bool], subject: str) -> None:
    for _ in polls(GONE_SECONDS, first=0.1):
        if is_gone():
            return
    raise Undecidable(f"{subject}: they still exist {GONE_SECONDS:.0f} s after their deletion")


def delete(api: Api, kind: ResourceKind, manifest: Manifest) -> None:
    """Delete this object, but not a later one of its name."""
    api.delete(kind, _name(manifest), _namespace(manifest), _uid(manifest))


def pods_of(api: Api, owner: Manifest) -> tuple[Manifest, ...]:
    """Return the Pods of this Job or Build, the newest first."""
    own = [pod for pod in _pods(api, owner) if is_of(pod, owner)]
    return tuple(sorted(own, key=lambda pod: Field(pod)["metadata"]["creationTimestamp"].text(), reverse=True))


def is_of(pod: Manifest, owner: Manifest) -> bool:
    """True if the Pod is of this object, and not of an earlier one of its name."""
    return any(reference["uid"].text() == _uid(owner) for reference in Field(pod)["metadata"]["ownerReferences"])


def _pods(api: Api, owner: Manifest) -> tuple[Manifest, ...]:
    selector = f"{MANAGED_BY}={OURS},{INSTANCE}={_name(owner)}"
    return api.list(PODS, _namespace(owner), labels=selector) or ()


def _name(manifest: Manifest) -> str:
    return Field(manifest)["metadata"]["name"].text()


def _namespace(manifest: Manifest) -> str:
    return Field(manifest)["metadata"]["namespace"].text()


def _uid(manifest: Manifest) -> str:
    return Field(manifest)["metadata"]["uid"].text()


def _spec_hash(manifest: Manifest) -> str:
    return Field(manifest)["metadata"]["annotations"][SPEC_HASH].text()
