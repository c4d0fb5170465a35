"""Label selectors of Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field

Labels = Mapping[str, str]

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


@dataclass(frozen=True)
class Requirement:
    """An item of matchExpressions."""

    key: str
    """The label."""
    operator: str
    """In, NotIn, Exists or DoesNotExist."""
    values: tuple[str, ...] = ()
    """Values for In and NotIn."""

    def holds(self, labels: Labels) -> bool:
        """True if these labels meet the requirement. NotIn also holds without the label."""
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
        """True if no object with these labels can meet the requirement, whatever other labels the object has."""
        return not self.holds(labels) and (self.key in labels or self.operator in ("NotIn", "DoesNotExist"))


@dataclass(frozen=True)
class Selector:
    """A label selector."""

    requirements: tuple[Requirement, ...] = ()
    """Requirements of matchLabels and matchExpressions. All must hold."""

    def matches(self, labels: Labels) -> bool:
        """True if all requirements hold. A selector without requirements matches every object."""
        return all(requirement.holds(labels) for requirement in self.requirements)

    def forbids(self, labels: Labels) -> bool:
        """True if the selector matches no object with these labels, whatever other labels the object has."""
        return any(requirement.forbids(labels) for requirement in self.requirements)

    def claimed_by(self, labels: Labels) -> bool:
        """True if the selector matches these labels because of at least one of these labels."""
        claims = any(requirement.key in labels for requirement in self.requirements)
        return claims and self.matches(labels)


def parse_selector(field: Field) -> Selector | None:
    """Return the selector, or None if it is absent or empty: in a pool an empty selector matches no object."""
    labels = tuple(Requirement(key, "In", (value,)) for key, value in field["matchLabels"].text_pairs())
    requirements = labels + tuple(_requirement(item) for item in field["matchExpressions"])
    return Selector(requirements) if requirements else None


def _requirement(field: Field) -> Requirement:
    operator = field["operator"].text()
    if operator not in _OPERATORS:
        raise field["operator"].refuse(f"one of {', '.join(_OPERATORS)}")
    return Requirement(field["key"].present("a label").text(), operator, field["values"].texts())
