"""The one writer of a PreflightValidationOCP: patches what changed in status and record, nothing of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from kmm_preflight.cluster.api import Api, Conflict
from kmm_preflight.errors import NotFound
from kmm_preflight.model import Manifest, ModuleName
from kmm_preflight.status.dialects import StatusEntry, author, parse_entries, status_change
from kmm_preflight.status.preflight import KIND, Preflight, identity_of, preflights, record_of
from kmm_preflight.status.record import ANNOTATION, Record, format_record

CONFLICTS = 10


class StatusWriter:
    """Keeps the object as the server last gave it, so that a change costs one request.

    Only the object that was read is written: not one that was made anew under its name, or whose spec is another.
    """

    def __init__(self, api: Api, preflight: Preflight, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._kind = preflights(preflight.dialect)
        self._name = preflight.name
        self._dialect = preflight.dialect
        self._identity = preflight.identity
        self._clock = clock
        self._object: Manifest | None = None
        self._tried: dict[ModuleName, StatusEntry] = {}
        self._told: dict[ModuleName, StatusEntry] = {}
        self._others: dict[ModuleName, str] = {}

    def entries(self) -> dict[ModuleName, StatusEntry]:
        """The entries as the server last gave them."""
        return parse_entries(_mapping(self._read(afresh=False), "status"), self._dialect)

    def check(self, told: Mapping[ModuleName, StatusEntry]) -> None:
        """Raises as write would for these entries; the server only tries it."""
        made = status_change({}, told, (), self._dialect, self._clock())
        if made is not None:
            self._api.patch(self._kind, self._name, {"status": made}, "status", dry_run=True)

    def write(self, told: Mapping[ModuleName, StatusEntry], gone: Iterable[ModuleName] = ()) -> None:
        """Makes the status tell these entries, and no longer those that are gone.

        NotFound when the object was deleted; Conflict when others write faster than this; else as Api.
        """
        removed = tuple(gone)
        self._tried |= told
        for name in removed:
            self._told.pop(name, None)

        def change(current: Manifest) -> Manifest | None:
            made = status_change(_mapping(current, "status"), told, removed, self._dialect, self._clock())
            if made is None:
                return None
            return {"metadata": _version(current), "status": made}

        self._patch(change, "status")
        self._told |= told

    def remember(self, renew: Callable[[Record], Record]) -> None:
        """Keeps what renew makes of the record that is there; errors as write, BoundExceeded when it does not fit."""

        def change(current: Manifest) -> Manifest | None:
            known, _ = record_of(current)
            made = renew(known)
            if made == known:
                return None
            return {"metadata": {**_version(current), "annotations": {ANNOTATION: format_record(made)}}}

        self._patch(change, "")

    def _patch(self, change: Callable[[Manifest], Manifest | None], subresource: str) -> None:
        for attempt in range(CONFLICTS):
            body = change(self._read(afresh=attempt > 0))
            if body is None:
                return
            try:
                self._look(self._api.patch(self._kind, self._name, body, subresource))
                return
            except NotFound as exc:
                raise self._gone() from exc
            except Conflict:
                if attempt == CONFLICTS - 1:
                    raise

    def _read(self, afresh: bool) -> Manifest:
        if self._object is not None and not afresh:
            return self._object
        found = self._api.get(self._kind, self._name)
        if found is None:
            raise self._gone()
        if identity_of(found) != self._identity:
            raise NotFound(f"{KIND} {self._name}: it was made anew, or its spec changed, during the run; run again")
        self._look(found)
        return found

    def _gone(self) -> NotFound:
        return NotFound(f"{KIND} {self._name}: it was deleted during the run")

    def overwritten(self) -> dict[ModuleName, str]:
        """Which of the entries written here said something else at any later look, and who had written that."""
        self._read(afresh=True)
        return dict(sorted(self._others.items()))

    def _look(self, manifest: Manifest) -> None:
        """Notes what others made of entries that were written here; a write without an answer may have arrived."""
        entries = parse_entries(_mapping(manifest, "status"), self._dialect)
        for name, made in self._told.items():
            if entries.get(name) not in (made, self._tried.get(name)):
                self._others[name] = author(manifest, name, self._dialect)
        self._object = manifest


def _version(manifest: Manifest) -> dict[str, object]:
    """What makes a patch a conflict when somebody else has written in between, or made the object anew."""
    return {"resourceVersion": _mapping(manifest, "metadata").get("resourceVersion")}


def _mapping(manifest: Manifest, key: str) -> Manifest:
    found = manifest.get(key)
    return found if isinstance(found, dict) else {}
