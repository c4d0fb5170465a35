"""The one writer of a preflight object. It patches its own entries and the record, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from kmm_preflight.cluster.api import Api, Conflict
from kmm_preflight.errors import NotFound
from kmm_preflight.model import Manifest, ModuleName
from kmm_preflight.status.dialects import StatusEntry, author, parse_entries, status_change
from kmm_preflight.status.preflight import Preflight, identity_of, record_of
from kmm_preflight.status.record import ANNOTATION, Record, format_record

CONFLICTS = 10


class StatusWriter:
    """Writes one object. It keeps the last version from the server, so a change costs one request.

    Write only the object that was read: raise NotFound if it was created again, or if its spec changed.
    """

    def __init__(self, api: Api, preflight: Preflight, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._kind = preflight.resource
        self._name = preflight.name
        self._subject = preflight.subject
        self._dialect = preflight.dialect
        self._identity = preflight.identity
        self._clock = clock
        self._object: Manifest | None = None
        self._attempted: dict[ModuleName, StatusEntry] = {}
        self._written: dict[ModuleName, StatusEntry] = {}
        self._overwritten: dict[ModuleName, str] = {}

    def entries(self) -> dict[ModuleName, StatusEntry]:
        """Return the entries of the last version from the server."""
        return parse_entries(_mapping(self._read(again=False), "status"), self._dialect)

    def check(self, entries: Mapping[ModuleName, StatusEntry]) -> None:
        """Raise the errors of write for these entries. The server only tries the write."""
        change = status_change({}, entries, (), self._dialect, self._clock())
        if change is not None:
            self._api.patch(self._kind, self._name, {"status": change}, "status", dry_run=True)

    def write(self, entries: Mapping[ModuleName, StatusEntry], gone: Iterable[ModuleName] = ()) -> None:
        """Write these entries and remove those that are gone.

        Raise NotFound if the object was deleted, Conflict if others always write first, and the errors of Api.
        """
        removed = tuple(gone)
        self._attempted |= entries
        for name in removed:
            self._written.pop(name, None)

        def change(manifest: Manifest) -> Manifest | None:
            status = status_change(_mapping(manifest, "status"), entries, removed, self._dialect, self._clock())
            return {"metadata": _version(manifest), "status": status} if status is not None else None

        self._patch(change, "status")
        self._written |= entries

    def write_record(self, renew: Callable[[Record], Record]) -> None:
        """Replace the record by the one that renew returns for it.

        Raise the errors of write, and BoundExceeded if the record is too large for an annotation.
        """

        def change(manifest: Manifest) -> Manifest | None:
            before, _ = record_of(manifest)
            record = renew(before)
            if record == before:
                return None
            return {"metadata": {**_version(manifest), "annotations": {ANNOTATION: format_record(record)}}}

        self._patch(change, "")

    def _patch(self, change: Callable[[Manifest], Manifest | None], subresource: str) -> None:
        for attempt in range(CONFLICTS):
            body = change(self._read(again=attempt > 0))
            if body is None:
                return
            try:
                self._keep(self._api.patch(self._kind, self._name, body, subresource))
                return
            except NotFound as exc:
                raise self._deleted() from exc
            except Conflict:
                if attempt == CONFLICTS - 1:
                    raise

    def _read(self, again: bool) -> Manifest:
        if self._object is not None and not again:
            return self._object
        manifest = self._api.get(self._kind, self._name)
        if manifest is None:
            raise self._deleted()
        if identity_of(manifest) != self._identity:
            raise NotFound(f"{self._subject}: it was created again, or its spec changed, during the run. Run again.")
        self._keep(manifest)
        return manifest

    def _deleted(self) -> NotFound:
        return NotFound(f"{self._subject}: it was deleted during the run")

    def overwritten(self) -> dict[ModuleName, str]:
        """Return entries of this run that another writer changed at any time, with the name of that writer."""
        self._read(again=True)
        return dict(sorted(self._overwritten.items()))

    def _keep(self, manifest: Manifest) -> None:
        """Keep the version, and note entries of this run that differ. A write without an answer may have arrived."""
        entries = parse_entries(_mapping(manifest, "status"), self._dialect)
        for name, written in self._written.items():
            if entries.get(name) not in (written, self._attempted.get(name)):
                self._overwritten[name] = author(manifest, name, self._dialect)
        self._object = manifest


def _version(manifest: Manifest) -> dict[str, object]:
    """Return the resourceVersion: with it, the server refuses a patch of a version that is not the newest."""
    return {"resourceVersion": _mapping(manifest, "metadata").get("resourceVersion")}


def _mapping(manifest: Manifest, key: str) -> Manifest:
    value = manifest.get(key)
    return value if isinstance(value, dict) else {}
