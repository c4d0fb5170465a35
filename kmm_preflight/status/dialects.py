"""Verdicts become the status of a PreflightValidationOCP, in the dialect of each API generation; and nowhere else."""

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
    """The three generations of the status (docs/reference/kmm.md 1.4)."""

    SEED = "1.0 to 2.0"
    LIST = "2.1 to 2.3"
    LATER = "2.4 and later"

    @classmethod
    def of_version(cls, text: str | None) -> Dialect:
        """The dialect of a KMM version such as 2.3; without one the seed's. UsageProblem for what is no version."""
        if text is None:
            return cls.SEED
        version = parse_kmm_version(text)
        if version < (2, 1):
            return cls.SEED
        return cls.LIST if version < (2, 4) else cls.LATER

    @property
    def api_version(self) -> str:
        """API version to write the status with: on KMM 2.1 and later never v1beta1 (docs/reference/kmm.md 1.5)."""
        return "v1beta1" if self is Dialect.SEED else "v1beta2"


@dataclass(frozen=True)
class StatusEntry:
    """A Module's status, in words of the CRD; reason "" when there is none yet."""

    verification_status: str
    verification_stage: str
    reason: str = ""


# Worst first: of several kernels, or namespaces in the seed's shape, an entry tells the first of these.
_WORST = (Conclusion.REFUTED, Conclusion.UNDECIDED, Conclusion.NOT_VERIFIED, Conclusion.VERIFIED)

_SEED_FIELDS = {
    Conclusion.VERIFIED: ("True", "Done"),
    Conclusion.REFUTED: ("False", "Requeued"),
    Conclusion.UNDECIDED: ("False", "Requeued"),
}
_LATER_FIELDS = {
    Conclusion.VERIFIED: ("Success", "Done"),
    Conclusion.REFUTED: ("Failure", "Done"),
    Conclusion.UNDECIDED: ("InProgress", "Image"),
}


def entry(verdict: Verdict, dialect: Dialect) -> StatusEntry | None:
    """The entry for a verdict; None for a Module that was not verified in this run, whose entry stays."""
    fields = _LATER_FIELDS if dialect is Dialect.LATER else _SEED_FIELDS
    if verdict.conclusion not in fields:
        return None
    status, stage = fields[verdict.conclusion]
    judged = f" ({verdict.image.reference}, {verdict.image.digest})" if verdict.image else ""
    return StatusEntry(status, stage, f"{verdict.case.kernel.version}: {verdict.reason}{judged}")


def preset(before: Mapping[str, str], modules: Iterable[str]) -> tuple[dict[str, StatusEntry], set[str]]:
    """The entries with which a run begins, and the names that are removed (docs/reference/kmm.md 7.1.2).

    before has the verification stage by Module. A Module that is new is False at stage Image, without a reason; one
    that was there keeps its stage; one that vanished is removed.
    """
    names = set(modules)
    entries = {
        name: StatusEntry("True" if before.get(name) == "Done" else "False", before.get(name, "Image"))
        for name in names
    }
    return entries, set(before) - names


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that an entry tells when several share it."""
    return min(verdicts, key=lambda verdict: _WORST.index(verdict.conclusion))


def status_patch(verdicts: Iterable[Verdict], dialect: Dialect, now: datetime) -> dict[str, object]:
    """The merge patch; now must be aware. Modules that were not judged are left out.

    Their entries stay in the seed's map; the list of the other dialects is replaced as a whole by any merge patch.
    """
    shared: dict[ModuleName, list[Verdict]] = {}
    for verdict in verdicts:
        shared.setdefault(key_of(verdict.case.module, dialect), []).append(verdict)
    told = {name: made for name, group in sorted(shared.items()) if (made := entry(worst(group), dialect))}
    return {"status": status_change({}, told, (), dialect, now) or {}}  # nothing told: a patch that changes nothing


def key_of(module: ModuleName, dialect: Dialect) -> ModuleName:
    """The name of a Module's entry: the seed's map knows names alone, so that several namespaces share one."""
    return ModuleName("", module.name) if dialect is Dialect.SEED else module


def status_change(
    status: Manifest,
    told: Mapping[ModuleName, StatusEntry],
    gone: Iterable[ModuleName],
    dialect: Dialect,
    now: datetime,
) -> dict[str, object] | None:
    """What a merge patch of the status must hold so that it tells these entries; None when it does already.

    An entry that says the same keeps its transition time; entries and fields of others stay as they are. The list of
    the later dialects comes whole, because a merge patch replaces it: such a patch must name the resourceVersion.
    """
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = entries_of(status, dialect)
    changed = {
        name: _change(made, entries.get(name, {}), time)
        for name, made in told.items()
        if name not in entries or _entry(entries[name]) != made
    }
    removed = {name for name in gone if name in entries}
    if not changed and not removed:
        return None
    if dialect is Dialect.SEED:
        told_names: dict[str, object] = {name.name: fields for name, fields in changed.items()}
        return {"crStatuses": told_names | {name.name: None for name in removed}}
    whole = {name: {**fields, **changed.get(name, {})} for name, fields in entries.items() if name not in removed}
    for name, fields in changed.items():
        whole.setdefault(name, {"namespace": name.namespace, "name": name.name, **fields})
    return {"modules": [{key: value for key, value in one.items() if value is not None} for one in whole.values()]}


def _change(made: StatusEntry, before: Mapping[str, object], time: str) -> dict[str, object]:
    """The fields of an entry; a reason that no longer holds becomes null, which a merge patch takes for removal."""
    fields: dict[str, object] = dict(_fields(made, time))
    return fields | ({"statusReason": None} if "statusReason" in before and not made.reason else {})


def entries_of(status: Manifest, dialect: Dialect) -> dict[ModuleName, Mapping[str, object]]:
    """The entries as they stand, with every field; what is no entry is passed over."""
    if dialect is Dialect.SEED:
        known = status.get("crStatuses")
        return (
            {ModuleName("", name): one for name, one in known.items() if isinstance(one, dict)}
            if isinstance(known, dict)
            else {}
        )
    listed = status.get("modules")
    items = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return {ModuleName(str(one.get("namespace")), str(one.get("name"))): one for one in items}


def claims(manifest: Manifest, dialect: Dialect) -> dict[ModuleName, str]:
    """Who says of which entries that they are verified: status, field manager and time, as managedFields tell."""
    status = manifest.get("status")
    entries = parse_entries(status, dialect) if isinstance(status, dict) else {}
    shared = " for all Modules of this name" if dialect is Dialect.SEED else ""
    return {
        name: f"{one.verification_status}{shared}, written by {author(manifest, name, dialect)}"
        for name, one in entries.items()
        if is_verified(one)
    }


def is_verified(one: StatusEntry) -> bool:
    """Whether the entry says so, in any dialect."""
    return one.verification_status in (_LATER_FIELDS[Conclusion.VERIFIED][0], _SEED_FIELDS[Conclusion.VERIFIED][0])


def author(manifest: Manifest, name: ModuleName, dialect: Dialect) -> str:
    """The manager that owns the entry's verificationStatus, else the entry, the list or the status around it."""
    path = _fields_path(name, dialect)
    metadata = manifest.get("metadata")
    managed = metadata.get("managedFields") if isinstance(metadata, dict) else None
    owners = [one for one in managed or () if isinstance(one, dict)] if isinstance(managed, list) else []
    for depth in range(len(path), 0, -1):
        for owner in owners:
            if _owns(owner.get("fieldsV1"), path[:depth]):
                return f"{owner.get('manager')} ({owner.get('operation')}, {owner.get('time')})"
    return "nobody who is known"


def _fields_path(name: ModuleName, dialect: Dialect) -> list[tuple[str, ...]]:
    """The steps to a verificationStatus in fieldsV1; each with its spellings, since a list's keys have no order."""
    leaf = ("f:verificationStatus",)
    if dialect is Dialect.SEED:
        return [("f:status",), ("f:crStatuses",), (f"f:{name.name}",), leaf]
    keys = {"namespace": name.namespace, "name": name.name}
    orders = (keys, dict(reversed(keys.items())))
    return [("f:status",), ("f:modules",), tuple(f"k:{json.dumps(one, separators=(',', ':'))}" for one in orders), leaf]


def _owns(fields: object, path: list[tuple[str, ...]]) -> bool:
    for spellings in path:
        if not isinstance(fields, dict):
            return False
        fields = next((fields[one] for one in spellings if one in fields), None)
    return fields is not None


def parse_entries(status: Manifest, dialect: Dialect) -> dict[ModuleName, StatusEntry]:
    """The entries as values."""
    return {name: _entry(fields) for name, fields in entries_of(status, dialect).items()}


def _entry(fields: Mapping[str, object]) -> StatusEntry:
    texts = (str(fields.get(key) or "") for key in ("verificationStatus", "verificationStage", "statusReason"))
    return StatusEntry(*texts)


def entry_so_far(verdicts: Sequence[Verdict], dialect: Dialect) -> StatusEntry:
    """The entry of a Module while a run goes on: what is known to be bad at once, verified only when all of it is."""
    known = worst(verdicts)
    if made := entry(known, dialect):
        return made
    return current(dialect, _stage_next(known))


def current(dialect: Dialect, stage: Stage) -> StatusEntry:
    """The entry of a Module that is being judged: not verified, at this stage; the later dialect knows one stage."""
    if dialect is Dialect.LATER:
        return StatusEntry("InProgress", Stage.IMAGE.value)
    return StatusEntry("False", stage.value)


def _stage_next(verdict: Verdict) -> Stage:
    """The stage that runs now: the first that applies and has no result."""
    settled = {result.stage for result in verdict.results}
    stages = [stage for stage in Stage if stage is Stage.IMAGE or _has_section(verdict.case, stage)]
    return next((stage for stage in stages if stage not in settled), verdict.stage)


def _has_section(case: Case, stage: Stage) -> bool:
    return isinstance(case, Plan) and bool(case.build if stage is Stage.BUILD else case.sign)


def _fields(made: StatusEntry, time: str) -> dict[str, str]:
    fields = {"verificationStatus": made.verification_status, "verificationStage": made.verification_stage}
    return {**fields, **({"statusReason": made.reason} if made.reason else {}), "lastTransitionTime": time}


def kubectl_line(dialect: Dialect, file: str) -> str:
    """The command that applies the patch; NAME stands for the CR's name."""
    resource = f"{RESOURCE}.{dialect.api_version}.{GROUP}"
    return f"kubectl patch {resource} NAME --subresource=status --type=merge --patch-file={file}"
