"""Label selectors, as Kubernetes reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field

Labels = Mapping[str, str]

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


@dataclass(frozen=True)
class Requirement:
    """One of matchExpressions."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Labels) -> bool:
        """Whether these labels meet it; NotIn holds without the label too."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels

    def forbids(self, labels: Labels) -> bool:
        """Whether nothing that has these labels, whatever else it has, can meet it."""
        return not self.holds(labels) and (self.key in labels or self.operator in ("NotIn", "DoesNotExist"))


@dataclass(frozen=True)
class Selector:
    """matchLabels as Requirements of one value, and matchExpressions; all must hold."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether all requirements hold; without any it takes everything."""
        return all(one.holds(labels) for one in self.requirements)

    def forbids(self, labels: Labels) -> bool:
        """Whether nothing with these labels can be selected."""
        return any(one.forbids(labels) for one in self.requirements)

    def claimed_by(self, labels: Labels) -> bool:
        """Whether these labels alone are enough, and needed: what has them is selected."""
        return bool(self.requirements) and any(one.key in labels for one in self.requirements) and self.matches(labels)


def parse_selector(field: Field) -> Selector | None:
    """The selector, None where there is none or an empty one, which in a pool takes nothing."""
    labels = tuple(Requirement(key, "In", (value,)) for key, value in field["matchLabels"].text_pairs())
    requirements = labels + tuple(_requirement(one) for one in field["matchExpressions"])
    return Selector(requirements) if requirements else None


def _requirement(field: Field) -> Requirement:
    operator = field["operator"].text()
    if operator not in _OPERATORS:
        raise field["operator"].refuse(f"one of {', '.join(_OPERATORS)}")
    return Requirement(field["key"].present("a label").text(), operator, field["values"].texts())
