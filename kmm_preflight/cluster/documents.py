"""YAML and JSON text becomes Kubernetes objects, each with the place where it stands."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import yaml

from kmm_preflight.errors import UsageProblem
from kmm_preflight.model import Manifest


@dataclass(frozen=True)
class Place:
    """A file and the number of the document in it, from 1; item is set inside a List."""

    file: str
    document: int
    item: str = ""

    def __str__(self) -> str:
        return f"{self.file}, document {self.document}{', ' + self.item if self.item else ''}"


class _Loader(yaml.CSafeLoader):
    """The safe loader, which refuses a key that stands twice: the API server would not say which one it took."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_documents(text: str, file: str) -> Iterator[tuple[Place, Manifest]]:
    """The objects in the text; List kinds are taken apart, documents that are no mapping with a kind passed over.

    UsageProblem with file, line and column for what is no YAML.
    """
    try:
        for number, document in enumerate(yaml.load_all(text, _Loader), 1):
            yield from _objects(document, Place(file, number))
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageProblem(f"{file}{where}: got no YAML ({exc.problem or exc.context}), expected manifests") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise UsageProblem(f"{file}: got no YAML ({exc}), expected manifests") from exc


def _objects(document: object, place: Place) -> Iterator[tuple[Place, Manifest]]:
    if not isinstance(document, dict) or not isinstance(kind := document.get("kind"), str):
        return
    if not kind.endswith("List"):
        yield place, document
        return
    items = document.get("items")
    if items is not None and not isinstance(items, list):
        raise UsageProblem(f"{place}: items: got no list, expected the items of a {kind}")
    for index, item in enumerate(items or []):
        if isinstance(item, dict):
            # The items of a typed list need not repeat what the list says.
            own = (
                {"kind": kind.removesuffix("List"), "apiVersion": document.get("apiVersion")} if kind != "List" else {}
            )
            yield Place(place.file, place.document, f"items[{index}]"), {**own, **item}
