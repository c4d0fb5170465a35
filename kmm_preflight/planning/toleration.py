"""Taints of nodes, and the tolerations of a Module."""

from __future__ import annotations

from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field


@dataclass(frozen=True)
class Taint:
    """A taint of a node."""

    key: str
    """The key."""
    value: str
    """The value. Many taints have an empty one."""
    effect: str
    """NoSchedule, NoExecute or PreferNoSchedule."""


def parse_taint(field: Field) -> Taint:
    """Return the taint of a manifest."""
    return Taint(field["key"].text(), field["value"].text(), field["effect"].text())


@dataclass(frozen=True)
class Toleration:
    """A toleration of a Module, which only newer KMM versions have."""

    key: str | None = None
    """The key of the taints. None for every key."""
    operator: str = "Equal"
    """Equal or Exists."""
    value: str | None = None
    """The value of the taints, for operator Equal."""
    effect: str | None = None
    """The effect of the taints. None for every effect."""

    def tolerates(self, taint: Taint) -> bool:
        """True if the taint does not keep a Module with this toleration away."""
        if self.effect not in (None, taint.effect) or self.key not in (None, taint.key):
            return False
        return self.operator != "Equal" or (self.key is not None and (self.value or "") == taint.value)


def parse_tolerations(field: Field) -> tuple[Toleration, ...]:
    """Return the tolerations of a Module's spec."""
    return tuple(
        Toleration(
            key=item["key"].optional_text(),
            operator=item["operator"].text() or "Equal",
            value=item["value"].optional_text(),
            effect=item["effect"].optional_text(),
        )
        for item in field
    )
