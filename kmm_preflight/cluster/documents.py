"""YAML and JSON text becomes Kubernetes objects, each with the place where it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

import yaml

from kmm_preflight.errors import UsageProblem
from kmm_preflight.model import Manifest

# libyaml's loader goes down by recursion, in C: far deeper than this it would end the process.
NESTING = 500


@dataclass(frozen=True)
class DocumentPlace:
    """A file and the number of the document in it, from 1; item is set inside a list."""

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


def read_documents(text: str, file: str) -> Iterator[tuple[DocumentPlace, Manifest]]:
    """The objects in the text; List kinds and lists of objects are taken apart, what has no kind is passed over.

    UsageProblem with file, line and column for what is neither YAML nor JSON.
    """
    try:
        for number, document in enumerate(_documents(text), 1):
            yield from _objects(document, DocumentPlace(file, number))
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageProblem(f"{file}{where}: got no YAML ({exc.problem or exc.context}), expected manifests") from exc
    except json.JSONDecodeError as exc:
        where = f", line {exc.lineno}, column {exc.colno}"
        raise UsageProblem(f"{file}{where}: got no JSON ({exc.msg}), expected manifests") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise UsageProblem(f"{file}: got no YAML ({exc}), expected manifests") from exc


def _documents(text: str) -> Iterable[object]:
    """The documents, decoded. What is JSON is read as such: YAML knows no surrogate pairs, and no JSON lines."""
    values = _json_values(text)
    if values is not None:
        return values
    _check_nesting(text)
    return yaml.load_all(text, _Loader)


def _json_values(text: str) -> list[object] | None:
    """The JSON values that stand one after the other; None for what may be YAML."""
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
        if len(values) > 1:  # no YAML has two mappings side by side
            raise
        return None  # YAML in its flow style
    except RecursionError:
        return None  # refused with its place below
    return values


def _skip(text: str, position: int) -> int:
    """Where what follows the white space begins."""
    hit = _SPACE.match(text, position)
    return hit.end() if hit else position


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in made if names.count(name) > 1)} stands twice")
    return made


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


def _objects(document: object, place: DocumentPlace) -> Iterator[tuple[DocumentPlace, Manifest]]:
    if isinstance(document, list):
        for index, item in enumerate(document):
            if isinstance(item, dict):
                yield from _objects(item, DocumentPlace(place.file, place.document, f"item [{index}]"))
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
            yield from _objects({**own, **item}, DocumentPlace(place.file, place.document, here))
