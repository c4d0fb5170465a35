"""Status of a preflight object from verdicts, in the dialect of each API generation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from kmm_preflight.kmm_version import parse_kmm_version
from kmm_preflight.model import Manifest, ModuleName, Stage
from kmm_preflight.planning.plan import Case, Plan
from kmm_preflight.stages.verdict import Conclusion, Verdict

RESOURCE = "preflightvalidationsocp"
GROUP = "kmm.sigs.x-k8s.io"


class Dialect(Enum):
    """Generations of the status (docs/reference/kmm.md 1.4)."""

    MAP = "1.0 to 2.0"
    """status.crStatuses: a map of entries by the Module's name, without its namespace."""
    LIST = "2.1 to 2.3"
    """status.modules: a list of entries with name and namespace."""
    ONE_KERNEL = "2.4 and later"
    """status.modules of an object for one kernel, with other words for the verification status."""

    @classmethod
    def of_version(cls, text: str | None) -> Dialect:
        """Return the dialect of a KMM version such as 2.3; without a version, MAP. Raise UsageProblem."""
        if text is None:
            return cls.MAP
        version = parse_kmm_version(text)
        if version < (2, 1):
            return cls.MAP
        return cls.LIST if version < (2, 4) else cls.ONE_KERNEL

    @property
    def api_version(self) -> str:
        """API version to write the status with: on KMM 2.1 and later never v1beta1 (docs/reference/kmm.md 1.5)."""
        return "v1beta1" if self is Dialect.MAP else "v1beta2"


@dataclass(frozen=True)
class StatusEntry:
    """Status of one Module, in the words of the CRD."""

    verification_status: str | None
    """verificationStatus, such as "True" or "Success"."""
    verification_stage: str | None
    """verificationStage, such as "Image" or "Done"."""
    reason: str | None = None
    """statusReason; None before the first verdict."""


# Worst first. An entry for several kernels or namespaces shows the worst verdict.
_WORST = (Conclusion.REFUTED, Conclusion.UNDECIDED, Conclusion.NOT_VERIFIED, Conclusion.VERIFIED)

_FIELDS = {
    Conclusion.VERIFIED: ("True", "Done"),
    Conclusion.REFUTED: ("False", "Requeued"),
    Conclusion.UNDECIDED: ("False", "Requeued"),
}
_ONE_KERNEL_FIELDS = {
    Conclusion.VERIFIED: ("Success", "Done"),
    Conclusion.REFUTED: ("Failure", "Done"),
    Conclusion.UNDECIDED: ("InProgress", "Image"),
}


def entry_of(verdict: Verdict, dialect: Dialect) -> StatusEntry | None:
    """Return the entry for a verdict, or None if the run did not judge the Module."""
    fields = _ONE_KERNEL_FIELDS if dialect is Dialect.ONE_KERNEL else _FIELDS
    if verdict.conclusion not in fields:
        return None
    status, stage = fields[verdict.conclusion]
    image = f" ({verdict.image.reference}, {verdict.image.digest})" if verdict.image else ""
    return StatusEntry(status, stage, f"{verdict.case.kernel_words}: {verdict.reason}{image}")


def initial_entries(before: Mapping[str, str], modules: Iterable[str]) -> tuple[dict[str, StatusEntry], set[str]]:
    """Return the entries at the start of a run, and the names to remove (docs/reference/kmm.md 7.1.2).

    before maps each Module to its verification stage. A new Module is "False" at stage Image. A known Module keeps its
    stage. A deleted Module is removed.
    """
    names = set(modules)
    entries = {
        name: StatusEntry("True" if before.get(name) == "Done" else "False", before.get(name, "Image"))
        for name in names
    }
    return entries, set(before) - names


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict that an entry shows if several verdicts share it."""
    return min(verdicts, key=lambda verdict: _WORST.index(verdict.conclusion))


def status_patch(verdicts: Iterable[Verdict], dialect: Dialect, now: datetime) -> dict[str, object]:
    """Return the merge patch for a file; now must be aware. Leave out Modules that the run did not judge.

    In the dialect MAP their entries stay. In the other dialects a merge patch replaces the whole list.
    """
    shared: dict[ModuleName, list[Verdict]] = {}
    for verdict in verdicts:
        shared.setdefault(key_of(verdict.case.module, dialect), []).append(verdict)
    entries = {name: entry for name, group in sorted(shared.items()) if (entry := entry_of(worst(group), dialect))}
    return {"status": status_change({}, entries, (), dialect, now) or {}}


def key_of(module: ModuleName, dialect: Dialect) -> ModuleName:
    """Return the key of a Module's entry. In the dialect MAP, Modules of one name in several namespaces share it."""
    return ModuleName("", module.name) if dialect is Dialect.MAP else module


def status_change(
    status: Manifest,
    wanted: Mapping[ModuleName, StatusEntry],
    gone: Iterable[ModuleName],
    dialect: Dialect,
    now: datetime,
) -> dict[str, object] | None:
    """Return the status of a merge patch that writes the wanted entries and removes those that are gone.

    Return None if the status has these entries already. An unchanged entry keeps its transition time, and fields of
    other writers stay. Outside of the dialect MAP the patch holds the whole list: send it with the resourceVersion.
    """
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    present = raw_entries(status, dialect)
    changed = {
        name: _changed_fields(entry, present.get(name, {}), time)
        for name, entry in wanted.items()
        if name not in present or _parsed(present[name]) != entry
    }
    removed = {name for name in gone if name in present}
    if not changed and not removed:
        return None
    if dialect is Dialect.MAP:
        by_name: dict[str, object] = {name.name: fields for name, fields in changed.items()}
        return {"crStatuses": by_name | {name.name: None for name in removed}}
    whole = {name: {**fields, **changed.get(name, {})} for name, fields in present.items() if name not in removed}
    for name, fields in changed.items():
        whole.setdefault(name, {"namespace": name.namespace, "name": name.name, **fields})
    return {
        "modules": [{key: value for key, value in fields.items() if value is not None} for fields in whole.values()]
    }


def _changed_fields(entry: StatusEntry, before: Mapping[str, object], time: str) -> dict[str, object]:
    fields: dict[str, object] = dict(_fields(entry, time))
    if "statusReason" in before and not entry.reason:
        fields["statusReason"] = None  # a merge patch removes a field that is null
    return fields


def raw_entries(status: Manifest, dialect: Dialect) -> dict[ModuleName, Mapping[str, object]]:
    """Return the entries with all fields. Skip entries of another type."""
    if dialect is Dialect.MAP:
        statuses = status.get("crStatuses")
        named = statuses.items() if isinstance(statuses, dict) else ()
        return {ModuleName("", name): fields for name, fields in named if isinstance(fields, dict)}
    modules = status.get("modules")
    listed = [fields for fields in modules if isinstance(fields, dict)] if isinstance(modules, list) else []
    return {ModuleName(str(fields.get("namespace")), str(fields.get("name"))): fields for fields in listed}


def verified_claims(manifest: Manifest, dialect: Dialect) -> dict[ModuleName, str]:
    """Map each entry that says "verified" to its status and its writer, in words."""
    status = manifest.get("status")
    entries = parse_entries(status, dialect) if isinstance(status, dict) else {}
    shared = " for all Modules of this name" if dialect is Dialect.MAP else ""
    return {
        name: f"{entry.verification_status}{shared}, written by {author(manifest, name, dialect)}"
        for name, entry in entries.items()
        if is_verified(entry)
    }


def is_verified(entry: StatusEntry) -> bool:
    """True if the entry says "verified", in any dialect."""
    return entry.verification_status in (_ONE_KERNEL_FIELDS[Conclusion.VERIFIED][0], _FIELDS[Conclusion.VERIFIED][0])


def author(manifest: Manifest, name: ModuleName, dialect: Dialect) -> str:
    """Return the field manager of the entry's verificationStatus, with operation and time.

    If managedFields has no owner of the field, return the owner of the entry, of the list, or of the status.
    """
    path = _fields_path(name, dialect)
    metadata = manifest.get("metadata")
    managed = metadata.get("managedFields") if isinstance(metadata, dict) else None
    owners = [owner for owner in managed or () if isinstance(owner, dict)] if isinstance(managed, list) else []
    for depth in range(len(path), 0, -1):
        for owner in owners:
            if _owns(owner.get("fieldsV1"), path[:depth]):
                return f"{owner.get('manager')} ({owner.get('operation')}, {owner.get('time')})"
    return "an unknown writer"


def _fields_path(name: ModuleName, dialect: Dialect) -> list[tuple[str, ...]]:
    """Return the keys of fieldsV1 that lead to a verificationStatus. A key has several spellings if order is free."""
    leaf = ("f:verificationStatus",)
    if dialect is Dialect.MAP:
        return [("f:status",), ("f:crStatuses",), (f"f:{name.name}",), leaf]
    keys = {"namespace": name.namespace, "name": name.name}
    orders = (keys, dict(reversed(keys.items())))
    item = tuple(f"k:{json.dumps(order, separators=(',', ':'))}" for order in orders)
    return [("f:status",), ("f:modules",), item, leaf]


def _owns(fields: object, path: list[tuple[str, ...]]) -> bool:
    for spellings in path:
        if not isinstance(fields, dict):
            return False
        fields = next((fields[spelling] for spelling in spellings if spelling in fields), None)
    return fields is not None


def parse_entries(status: Manifest, dialect: Dialect) -> dict[ModuleName, StatusEntry]:
    """Return the entries as values."""
    return {name: _parsed(fields) for name, fields in raw_entries(status, dialect).items()}


def _parsed(fields: Mapping[str, object]) -> StatusEntry:
    status, stage, reason = (fields.get(key) for key in ("verificationStatus", "verificationStage", "statusReason"))
    return StatusEntry(*(str(text) if text else None for text in (status, stage, reason)))


def entry_so_far(verdicts: Sequence[Verdict], dialect: Dialect) -> StatusEntry:
    """Return the entry of a Module during a run: bad as soon as one verdict is, verified only if all are."""
    shown = worst(verdicts)
    if entry := entry_of(shown, dialect):
        return entry
    return in_progress(dialect, _next_stage(shown))


def in_progress(dialect: Dialect, stage: Stage) -> StatusEntry:
    """Return the entry of a Module at a stage. The dialect ONE_KERNEL always shows the stage Image."""
    if dialect is Dialect.ONE_KERNEL:
        return StatusEntry("InProgress", Stage.IMAGE.value)
    return StatusEntry("False", stage.value)


def _next_stage(verdict: Verdict) -> Stage:
    """Return the first stage that applies and has no result."""
    settled = {result.stage for result in verdict.results}
    stages = [stage for stage in Stage if stage is Stage.IMAGE or _has_section(verdict.case, stage)]
    return next((stage for stage in stages if stage not in settled), verdict.stage)


def _has_section(case: Case, stage: Stage) -> bool:
    return isinstance(case, Plan) and bool(case.build if stage is Stage.BUILD else case.sign)


def _fields(entry: StatusEntry, time: str) -> dict[str, str]:
    texts = {
        "verificationStatus": entry.verification_status,
        "verificationStage": entry.verification_stage,
        "statusReason": entry.reason,
        "lastTransitionTime": time,
    }
    return {key: text for key, text in texts.items() if text}


def kubectl_line(dialect: Dialect, file: str, plural: str = RESOURCE) -> str:
    """Return the command that applies the patch. The user replaces NAME by the object's name."""
    resource = f"{plural}.{dialect.api_version}.{GROUP}"
    return f"kubectl patch {resource} NAME --subresource=status --type=merge --patch-file={file}"
