"""Verdicts become the status of a PreflightValidationOCP, in the dialect of each API generation; and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from kmm_preflight.errors import UsageProblem
from kmm_preflight.model import Conclusion, ModuleName, Verdict

RESOURCE = "preflightvalidationsocp"
GROUP = "kmm.sigs.x-k8s.io"
_VERSION = re.compile(r"v?(\d+)\.(\d+)(\.\d+)?")


class Dialect(Enum):
    """The three generations of the status (kmm-reference 1.4)."""

    SEED = "1.0 to 2.0"
    LIST = "2.1 to 2.3"
    LATER = "2.4 and later"

    @classmethod
    def of_version(cls, text: str | None) -> Dialect:
        """The dialect of a KMM version such as 2.3; without one the seed's. UsageProblem for what is no version."""
        if text is None:
            return cls.SEED
        if not (hit := _VERSION.fullmatch(text)):
            raise UsageProblem(f"--kmm-version {text}: expected a version of KMM such as 2.3")
        version = (int(hit[1]), int(hit[2]))
        if version < (2, 1):
            return cls.SEED
        return cls.LIST if version < (2, 4) else cls.LATER

    @property
    def api_version(self) -> str:
        """The version through which the status is written; on 2.1 and later never v1beta1 (kmm-reference 1.5)."""
        return "v1beta1" if self is Dialect.SEED else "v1beta2"


@dataclass(frozen=True)
class Entry:
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


def entry(verdict: Verdict, dialect: Dialect) -> Entry | None:
    """The entry for a verdict; None for a Module that was not verified in this run, whose entry stays."""
    fields = _LATER_FIELDS if dialect is Dialect.LATER else _SEED_FIELDS
    if verdict.conclusion not in fields:
        return None
    status, stage = fields[verdict.conclusion]
    judged = f" ({verdict.image.reference}, {verdict.image.digest})" if verdict.image else ""
    return Entry(status, stage, f"{verdict.plan.kernel.version}: {verdict.reason}{judged}")


def preset(before: Mapping[str, str], modules: Iterable[str]) -> tuple[dict[str, Entry], set[str]]:
    """The entries with which a run begins, and the names that are removed (kmm-reference 7.1.2).

    before has the verification stage by Module. A Module that is new is False at stage Image, without a reason; one
    that was there keeps its stage; one that vanished is removed.
    """
    names = set(modules)
    entries = {
        name: Entry("True" if before.get(name) == "Done" else "False", before.get(name, "Image")) for name in names
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
        name = verdict.plan.module
        # The seed's map knows names alone: Modules of several namespaces share an entry.
        shared.setdefault(ModuleName("", name.name) if dialect is Dialect.SEED else name, []).append(verdict)
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {name: made for name, group in sorted(shared.items()) if (made := entry(worst(group), dialect))}
    fields = {name: _fields(made, time) for name, made in told.items()}
    if dialect is Dialect.SEED:
        return {"status": {"crStatuses": {name.name: one for name, one in fields.items()}}}
    modules = [{"namespace": name.namespace, "name": name.name, **one} for name, one in fields.items()]
    return {"status": {"modules": modules}}


def _fields(made: Entry, time: str) -> dict[str, str]:
    fields = {"verificationStatus": made.verification_status, "verificationStage": made.verification_stage}
    if made.reason:
        fields["statusReason"] = made.reason
    return {**fields, "lastTransitionTime": time}


def kubectl_line(dialect: Dialect, file: str) -> str:
    """The command that applies the patch; NAME stands for the CR's name."""
    resource = f"{RESOURCE}.{dialect.api_version}.{GROUP}"
    return f"kubectl patch {resource} NAME --subresource=status --type=merge --patch-file={file}"
