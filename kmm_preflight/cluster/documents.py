"""Read Kubernetes objects from YAML and JSON text, each with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

import yaml

from kmm_preflight.model import Manifest

# libyaml's loader recurses in C: much deeper text would end the process.
NESTING = 500


@dataclass(frozen=True)
class DocumentPlace:
    """The place of an object."""

    file: str
    """The file, for messages."""
    document: int
    """The number of the document in the file, from 1."""
    item: str | None = None
    """The item of a list, such as items[0], or None outside a list."""

    def __str__(self) -> str:
        return f"{self.file}, document {self.document}{', ' + self.item if self.item else ''}"


class _Loader(yaml.CSafeLoader):
    """The safe loader. It refuses a duplicate key: the API server would take one of its values without a warning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in keys:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value}", key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)


def _as_written(_: _Loader, node: yaml.ScalarNode) -> str:
    return str(node.value)


# Kubernetes reads an unquoted date, and an unquoted =, as text.
for _tag in ("timestamp", "value"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _as_written)


@dataclass(frozen=True)
class NoObject:
    """A part of a text that is not a Kubernetes object."""

    place: str
    """The file, with document and item, or with line and column."""
    problem: str
    """The reason."""


def read_documents(text: str, file: str) -> Iterator[tuple[DocumentPlace, Manifest] | NoObject]:
    """Yield the objects of a text, the items of lists one by one. Yield a NoObject for everything else in the text.

    An empty document is left out. If the text is neither YAML nor JSON, the last value is a NoObject with the place.
    """
    try:
        for number, document in enumerate(_documents(text), 1):
            yield from _objects(document, DocumentPlace(file, number))
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        yield NoObject(f"{file}{where}", f"invalid YAML: {exc.problem or exc.context}")
    except json.JSONDecodeError as exc:
        where = f", line {exc.lineno}, column {exc.colno}"
        yield NoObject(f"{file}{where}", f"invalid JSON: {exc.msg}")
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        yield NoObject(file, f"invalid YAML: {exc}")


def _documents(text: str) -> Iterable[object]:
    """Return the decoded documents. Read JSON as JSON: YAML has no surrogate pairs, and no JSON lines."""
    values = _json_values(text)
    if values is not None:
        return values
    _check_nesting(text)
    return yaml.load_all(text, _Loader)


def _json_values(text: str) -> list[object] | None:
    """Return the JSON values of a text, one after the other, or None if the text may be YAML."""
    values: list[object] = []
    position = _skip(text, 0)
    if text[position : position + 1] not in ("{", "["):
        return None
    try:
        while position < len(text):
            value, end = _DECODER.raw_decode(text, position)
            values.append(value)
            position = _skip(text, end)
    except json.JSONDecodeError:
        if len(values) > 1:  # YAML does not allow two mappings one after the other
            raise
        return None  # YAML in flow style
    except RecursionError:
        return None  # the check of the nesting reports the place
    return values


def _skip(text: str, position: int) -> int:
    """Return the position after white space."""
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key {next(name for name in mapping if names.count(name) > 1)}")
    return mapping


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
_SPACE = re.compile(r"[ \t\r\n]*")


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


def _objects(document: object, place: DocumentPlace) -> Iterator[tuple[DocumentPlace, Manifest] | NoObject]:
    match document:
        case None:
            return
        case list():
            for index, item in enumerate(document):
                yield from _objects(item, DocumentPlace(place.file, place.document, f"item [{index}]"))
        case dict():
            yield from _object(document, place)
        case _:
            yield NoObject(str(place), "this is not a Kubernetes object")


def _object(document: dict[str, object], place: DocumentPlace) -> Iterator[tuple[DocumentPlace, Manifest] | NoObject]:
    match document:
        case {"kind": str() as kind} if kind.endswith("List"):
            yield from _items(document, kind, place)
        case {"kind": str(), "apiVersion": str()}:
            yield place, document
        case _:
            lacking = [name for name in ("apiVersion", "kind") if not isinstance(document.get(name), str)]
            yield NoObject(str(place), f"{' and '.join(lacking)} missing: this is not a Kubernetes object")


def _items(
    document: dict[str, object], kind: str, place: DocumentPlace
) -> Iterator[tuple[DocumentPlace, Manifest] | NoObject]:
    items = document.get("items")
    if items is not None and not isinstance(items, list):
        yield NoObject(str(place), f"items is not a list, expected the items of a {kind}")
        return
    # Items of a typed list may lack kind and apiVersion.
    head = {"kind": kind.removesuffix("List"), "apiVersion": document.get("apiVersion")} if kind != "List" else {}
    for index, item in enumerate(items or []):
        here = f"{place.item}.items[{index}]" if place.item else f"items[{index}]"
        whole = {**head, **item} if isinstance(item, dict) else item
        yield from _objects(whole, DocumentPlace(place.file, place.document, here))
