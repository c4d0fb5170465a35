"""The objects of builders in a cluster: made once for a request, found again, deleted."""

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
"""Everything that a builder made, whosever it is."""

# 63 for a Pod's name that is <name>-build, as OpenShift gives it.
NAME_CHARACTERS = 57
LABEL_CHARACTERS = 63
GONE_SECONDS = 60.0
# Clocks differ.
SLACK = timedelta(minutes=5)
_CREATIONS = 3
_ENDS = ("Complete", "Failed", "FailureTarget", "Error", "Cancelled")


def object_name(id: str) -> str:
    """The name that the object of a request has: its id, shortened and plain where that cannot be one."""
    plain = re.sub(r"[^a-z0-9-]+", "-", id.lower()).strip("-")
    if plain == id and len(id) <= NAME_CHARACTERS:
        return id
    digest = hashlib.sha256(id.encode()).hexdigest()[:10]
    return f"{plain[: NAME_CHARACTERS - 11]}-{digest}".strip("-")


def labels_of(request: BuildRequest) -> dict[str, str]:
    """By these an object is found, by a user as by this suite."""
    return {
        MANAGED_BY: OURS,
        STAGE: request.stage.value.lower(),
        INSTANCE: object_name(request.id),
        MODULE_NAME: label_value(request.plan.module.name),
        TARGET_KERNEL: label_value(request.plan.kernel.version),
    }


def label_value(text: str) -> str:
    """The text as a label takes it: of a kernel's name the + is refused."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)[:LABEL_CHARACTERS].strip("._-")


def metadata_of(request: BuildRequest, spec: Manifest, owner: Manifest | None, more: Mapping[str, str]) -> Manifest:
    """Return the metadata of a request's object. more are labels. If an owner is deleted, the object is too.

    It is not the controller: by that KMM knows its own. Nor is its deletion blocked, which OpenShift allows only to who
    may set its finalizers.
    """
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    metadata: dict[str, object] = {
        "name": object_name(request.id),
        "namespace": request.plan.module.namespace,
        "labels": {**labels_of(request), **more},
        "annotations": {SPEC_HASH: digest},
    }
    if owner is not None:
        known = Field(owner)
        reference = {key: known[key].text() for key in ("apiVersion", "kind")}
        reference |= {key: known["metadata"][key].text() for key in ("name", "uid")}
        metadata["ownerReferences"] = [reference]
    return metadata


def ended(manifest: Manifest) -> bool:
    """Whether a Job or Build goes on no longer, well or badly."""
    status = Field(manifest)["status"]
    return status["phase"].text() in _ENDS or any(condition(manifest, name) for name in _ENDS)


def condition(manifest: Manifest, name: str) -> Field | None:
    """The condition of that type, if it is true."""
    for one in Field(manifest)["status"]["conditions"]:
        if one["type"].text() == name and one["status"].text() == "True":
            return one
    return None


def settle(api: Api, kind: ResourceKind, manifest: Manifest) -> None:
    """Makes the object, unless one like it goes on already; what is there by its name otherwise is deleted before.

    Undecidable when that is not of this suite, or does not go away.
    """
    name, namespace = _name(manifest), _namespace(manifest)
    for _ in range(_CREATIONS):
        found = api.get(kind, name, namespace)
        if found is not None and _goes_on(found, manifest):
            return
        if found is not None:
            _remove(api, kind, found)
        _until(lambda: not _pods_in_the_way(api, kind, manifest), f"Pods of {namespace}/{name}")
        with suppress(Conflict):  # somebody was faster
            api.create(kind, manifest, namespace)
            return
    raise Undecidable(f"{kind.resource} {namespace}/{name}: got it made by somebody else again and again; run again")


def _goes_on(found: Manifest, manifest: Manifest) -> bool:
    """Whether what is there will do; Undecidable when it is not ours to judge."""
    labels = Field(found)["metadata"]["labels"]
    if labels[MANAGED_BY].text() != OURS or labels[INSTANCE].text() != _name(found):
        raise Undecidable(
            f"{Field(found)['kind'].text()} {_namespace(found)}/{_name(found)}: got an object that is not of this "
            "suite, expected none; delete it"
        )
    return _spec_hash(found) == _spec_hash(manifest) and not ended(found) and not _leaving(found)


def _remove(api: Api, kind: ResourceKind, found: Manifest) -> None:
    name, namespace = _name(found), _namespace(found)
    delete(api, kind, found)

    def gone() -> bool:
        now = api.get(kind, name, namespace, metadata_only=True)
        return now is None or _uid(now) != _uid(found)

    _until(gone, f"{kind.resource} {namespace}/{name}")


def _pods_in_the_way(api: Api, kind: ResourceKind, manifest: Manifest) -> bool:
    """Whether Pods of an earlier object are left: two would push the same image, and OpenShift gives them one name."""
    pods = _pods(api, manifest)
    return any(kind is not JOBS or Field(pod)["status"]["phase"].text() not in ("Succeeded", "Failed") for pod in pods)


def _until(gone: Callable[[], bool], what: str) -> None:
    for _ in polls(GONE_SECONDS, first=0.1):
        if gone():
            return
    raise Undecidable(f"{what}: got them still there {GONE_SECONDS:.0f} s after their deletion, expected none")


def delete(api: Api, kind: ResourceKind, found: Manifest) -> None:
    """Deletes this very object."""
    api.delete(kind, _name(found), _namespace(found), _uid(found))


def pods_of(api: Api, owner: Manifest) -> tuple[Manifest, ...]:
    """The Pods that this very Job or Build has made, the newest first."""
    own = [pod for pod in _pods(api, owner) if is_of(pod, owner)]
    return tuple(sorted(own, key=lambda pod: Field(pod)["metadata"]["creationTimestamp"].text(), reverse=True))


def is_of(pod: Manifest, owner: Manifest) -> bool:
    """Whether the Pod was made by this very object, and not by an earlier one of its name."""
    return any(one["uid"].text() == _uid(owner) for one in Field(pod)["metadata"]["ownerReferences"])


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


def _leaving(manifest: Manifest) -> bool:
    return Field(manifest)["metadata"]["deletionTimestamp"].given
