"""Deletion of objects that builds left in a cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.build.objects import SELECTOR, SLACK, delete, has_ended, object_name
from kmm_preflight.build.prepare import request_id
from kmm_preflight.cluster.api import BUILDS, JOBS, Api, ResourceKind
from kmm_preflight.model import Manifest, Stage
from kmm_preflight.planning.plan import Plan


def remove_leftovers(api: Api, now: datetime, plans: Iterable[Plan] = (), everything: bool = False) -> tuple[str, ...]:
    """Delete what builds of these plans and of ended runs left in the cluster. Return the names. Raise as Api."""
    ids = [request_id(plan, stage) for plan in plans for stage in (Stage.BUILD, Stage.SIGN)]
    return clean_up(api, [kind for kind in (JOBS, BUILDS) if api.serves(kind)], now, ids, everything)


def clean_up(
    api: Api, kinds: Iterable[ResourceKind], now: datetime, ids: Collection[str] = (), everything: bool = False
) -> tuple[str, ...]:
    """Delete objects of these ids, and those that ended or passed their deadline. Return their names.

    With everything, delete all objects that this suite made. A kind that the cluster does not serve has no objects.
    """
    names = {object_name(id) for id in ids}
    deleted = []
    for kind in kinds:
        for manifest in api.list(kind, labels=SELECTOR) or ():
            metadata = Field(manifest)["metadata"]
            name, namespace = metadata["name"].text(), metadata["namespace"].text()
            if everything or name in names or has_ended(manifest) or _is_overdue(manifest, now):
                delete(api, kind, manifest)
                deleted.append(f"{kind.resource} {namespace}/{name}")
    return tuple(deleted)


def _is_overdue(manifest: Manifest, now: datetime) -> bool:
    spec, created = Field(manifest)["spec"], Field(manifest)["metadata"]["creationTimestamp"].text()
    seconds = spec["activeDeadlineSeconds"].number() or spec["completionDeadlineSeconds"].number()
    return now > datetime.fromisoformat(created) + timedelta(seconds=seconds) + SLACK
