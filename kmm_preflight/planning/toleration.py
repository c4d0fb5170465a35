"""Taints of nodes, and the tolerations of a Module."""

from __future__ import annotations

from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field


@dataclass(frozen=True)
class Taint:
    """A taint of a node."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class Toleration:
    """A toleration of a Module, which newer KMM has; key "" is every one, effect "" too."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Whether the taint keeps nothing away that has this."""
        if self.effect not in ("", taint.effect) or (self.key and self.key != taint.key):
            return False
        return self.operator != "Equal" or (bool(self.key) and self.value == taint.value)


def parse_tolerations(field: Field) -> tuple[Toleration, ...]:
    """The tolerations of a Module's spec."""
    return tuple(
        Toleration(one["key"].text(), one["operator"].text() or "Equal", one["value"].text(), one["effect"].text())
        for one in field
    )
