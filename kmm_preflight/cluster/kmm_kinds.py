"""Kinds of KMM's API groups, and the use that a run makes of their objects."""

from __future__ import annotations

from enum import Enum

from kmm_preflight.planning.kinds import HUB_GROUP, SOURCE_KINDS
from kmm_preflight.planning.module import GROUP

GROUPS = (GROUP, HUB_GROUP)
"""The API groups of KMM: on a cluster, and on a hub for its spokes."""


class Use(Enum):
    """The use that a run makes of the objects of a kind."""

    JUDGED = "its kmods have cases"
    INPUT = "other cases read it"
    BOOKKEEPING = "KMM writes it for its own work, and it brings no kmod that no other object names"


USES: dict[tuple[str, str], Use] = {
    (GROUP, "Module"): Use.JUDGED,
    **{(row.group, row.kind): Use.JUDGED for row in SOURCE_KINDS},
    (GROUP, "NodeModulesConfig"): Use.INPUT,
    (GROUP, "PreflightValidation"): Use.INPUT,
    (GROUP, "PreflightValidationOCP"): Use.INPUT,
    (GROUP, "ModuleImagesConfig"): Use.BOOKKEEPING,
    (GROUP, "ModuleBuildSignConfig"): Use.BOOKKEEPING,
}
"""Use by group and kind. Objects of another kind in these groups are not judged, and every report lists them."""


def is_skipped(group: str, kind: str) -> bool:
    """True if KMM may load kmods because of the object, and no case covers the object.

    Objects of a judged kind are skipped only if their version is unknown.
    """
    return group in GROUPS and USES.get((group, kind), Use.JUDGED) is Use.JUDGED
