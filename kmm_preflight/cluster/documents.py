"""YAML and JSON text becomes Kubernetes objects, each with the place where it stands."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

import yaml

from kmm_preflight.errors import UsageProblem
from kmm_preflight.model import Manifest

# libyaml's loader goes down by recursion, in C: far deeper than this it would end the process.
NESTING = 500


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


def _as_written(_: _Loader, node: yaml.ScalarNode) -> str:
    return str(node.value)


# Kubernetes reads a plain date, and a plain =, as text.
for _tag in ("timestamp", "value"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _as_written)


def read_documents(text: str, file: str) -> Iterator[tuple[Place, Manifest]]:
    """The objects in the text; List kinds are taken apart, documents that are no mapping with a kind passed over.

    UsageProblem with file, line and column for what is no YAML.
    """
    try:
        for number, document in enumerate(_documents(text), 1):
            yield from _objects(document, Place(file, number))
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageProblem(f"{file}{where}: got no YAML ({exc.problem or exc.context}), expected manifests") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise UsageProblem(f"{file}: got no YAML ({exc}), expected manifests") from exc


def _documents(text: str) -> Iterable[object]:
    """The documents, decoded. What is one whole JSON document is read as such: YAML knows no surrogate pairs."""
    if text.lstrip().startswith("{"):
        try:
            return [json.loads(text, object_pairs_hook=_unique)]
        except json.JSONDecodeError:
            pass  # YAML in its flow style, or several documents
    _check_nesting(text)
    return yaml.load_all(text, _Loader)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in made if names.count(name) > 1)} stands twice")
    return made


def _check_nesting(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, yaml.CLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > NESTING:
            problem = f"nested more than {NESTING} deep"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)  # type: ignore[arg-type]  # libyaml's


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
        here = f"{place.item}.items[{index}]".lstrip(".")
        if isinstance(item, dict):
            # The items of a typed list need not repeat what the list says.
            own = (
                {"kind": kind.removesuffix("List"), "apiVersion": document.get("apiVersion")} if kind != "List" else {}
            )
            yield from _objects({**own, **item}, Place(place.file, place.document, here))
