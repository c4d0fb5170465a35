"""Memory of a run that repeats: what the last round judged, and what has changed since."""

from __future__ import annotations

from kmm_preflight.cluster.api_reader import Snapshot

_MODULE = "Module "


class SnapshotMemory:
    """Versions of Modules, ConfigMaps and Secrets, as they were read last."""

    def __init__(self) -> None:
        self._last: Snapshot = {}

    def begin_round(self, modules: Snapshot | None) -> None:
        """Keep the Modules that the next round judges. None means that the cluster could not be read."""
        if modules is not None:
            others = {name: version for name, version in self._last.items() if not name.startswith(_MODULE)}
            self._last = {**others, **modules}

    def changes(self, now: Snapshot | None) -> list[str]:
        """Return the names of objects that have changed, and keep the new versions.

        A new or deleted Module counts. A ConfigMap or Secret counts only if its version was read before: it is read
        only while a Module that names it is not verified.
        """
        if now is None:
            return []
        before, self._last = self._last, now
        return [name for name in now.keys() | before.keys() if _has_changed(name, before, now)]


def _has_changed(name: str, before: Snapshot, now: Snapshot) -> bool:
    if name.startswith(_MODULE):
        return now.get(name) != before.get(name)
    return name in now and name in before and now[name] != before[name]
