"""The one writer of a PreflightValidationOCP's status: patches what changed, and nothing that others wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from kmm_preflight.cluster.api import Api, Conflict
from kmm_preflight.errors import NotFound
from kmm_preflight.model import Manifest, ModuleName
from kmm_preflight.preflight import preflights
from kmm_preflight.status import Dialect, Entry, parse_entries, status_change

CONFLICTS = 10


class StatusWriter:
    """Keeps the object as the server last gave it, so that a change costs one request."""

    def __init__(self, api: Api, name: str, dialect: Dialect, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._kind = preflights(dialect)
        self._name = name
        self._dialect = dialect
        self._clock = clock
        self._object: Manifest | None = None

    def write(self, told: Mapping[ModuleName, Entry], gone: Iterable[ModuleName] = ()) -> None:
        """Makes the status tell these entries, and no longer those that are gone.

        NotFound when the object was deleted; Conflict when others write faster than this; else as Api.
        """
        removed = tuple(gone)
        for attempt in range(CONFLICTS):
            current = self._read(afresh=attempt > 0)
            change = status_change(_status(current), told, removed, self._dialect, self._clock())
            if change is None:
                return
            try:
                self._object = self._api.patch(self._kind, self._name, self._body(current, change), "status")
                return
            except Conflict:
                if attempt == CONFLICTS - 1:
                    raise

    def _body(self, current: Manifest, change: Mapping[str, object]) -> Manifest:
        if self._dialect is Dialect.SEED:
            return {"status": change}  # the map's other entries are not in the patch: nobody's write is lost
        metadata = current.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        return {"metadata": {"resourceVersion": version}, "status": change}

    def _read(self, afresh: bool) -> Manifest:
        if self._object is None or afresh:
            self._object = self._api.get(self._kind, self._name)
        if self._object is None:
            raise NotFound(f"PreflightValidationOCP {self._name}: it was deleted during the run")
        return self._object

    def overwritten(self, told: Mapping[ModuleName, Entry]) -> list[ModuleName]:
        """Which of these entries say something else by now: somebody writes the same status."""
        entries = parse_entries(_status(self._read(afresh=True)), self._dialect)
        return sorted(name for name, made in told.items() if entries.get(name) != made)


def _status(manifest: Manifest) -> Manifest:
    status = manifest.get("status")
    return status if isinstance(status, dict) else {}
