"""What an API server was asked, as its audit log tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AuditEvent:
    """One answered request; discovery and other paths that are no resource's have only verb, uri, user and code."""

    verb: str
    """Of the API, such as get, list, watch, patch."""
    resource: str
    """The plural, without its group."""
    namespace: str
    name: str
    subresource: str
    user: str
    code: int
    uri: str
    """Path and query."""


def read_events(log: str) -> list[AuditEvent]:
    """The events of a log, oldest first; a watch, which is told at its beginning and its end, counts once."""
    told: dict[str, AuditEvent] = {}
    for line in log.splitlines():
        event = json.loads(line)
        told[event["auditID"]] = _event(event)
    return list(told.values())


def policy(harness: str, marker: str, parts: Iterable[str]) -> dict[str, object]:
    """Log no bodies, nothing that the server or parts of the cluster ask, of the harness only what has the marker."""
    silent = ["system:apiserver", harness, *parts]
    rules = [
        {"level": "Metadata", "users": [harness], "nonResourceURLs": [marker]},
        {"level": "None", "users": silent},
        {"level": "Metadata"},
    ]
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}


def _event(event: Mapping[str, Any]) -> AuditEvent:
    about: Mapping[str, str] = event.get("objectRef", {})
    return AuditEvent(
        verb=event["verb"],
        resource=about.get("resource", ""),
        namespace=about.get("namespace", ""),
        name=about.get("name", ""),
        subresource=about.get("subresource", ""),
        user=event["user"]["username"],
        code=event.get("responseStatus", {}).get("code", 0),
        uri=event["requestURI"],
    )
