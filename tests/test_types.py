"""Types: each field of a dataclass has its own line of documentation, class names are unique, unknown is None."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ("kmm_preflight", "fixtures", "reports", "preflight_tests", "commands")

# Texts that can really be empty: the empty text is a value, not a sign of an unknown one.
EMPTY_IS_A_VALUE = frozenset(
    {
        "kmm_preflight/base/manifest_fields.py:Field.path",  # the document itself
        "kmm_preflight/build/builder.py:BuildResult.log",  # a log without lines
        "kmm_preflight/build/job_manifest.py:JobSettings.authorities",  # PEM blocks one after the other
        "kmm_preflight/oci/connections.py:Network.authorities",  # the same blocks
        "fixtures/options/trial.py:TrialOptions.path",  # a PATH without folders
        "kmm_preflight/oci/index.py:LayerEntry.link",  # as the index on disk has it
    }
)


@dataclass(frozen=True)
class FieldOfClass:
    """A field of a dataclass in the source."""

    name: str
    """File, class and field."""
    documented: bool
    """True if an attribute docstring follows the field."""
    empty_default: bool
    """True if the field is typed str and its default is an empty text."""


def _sources() -> list[Path]:
    return sorted(path for folder in PACKAGE for path in (ROOT / folder).rglob("*.py"))


def _is_dataclass(node: ast.ClassDef) -> bool:
    names = [ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list]
    return any(name.rpartition(".")[2] == "dataclass" for name in names)


def fields(source: str, place: str = "") -> Iterator[FieldOfClass]:
    """Return the public fields of all public dataclasses of a source."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_") or not _is_dataclass(node):
            continue
        for position, statement in enumerate(node.body):
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if not name.startswith("_"):
                    following = node.body[position + 1] if position + 1 < len(node.body) else None
                    empty = ast.unparse(annotation) == "str" and _is_empty_text(statement.value)
                    yield FieldOfClass(f"{place}:{node.name}.{name}", _is_docstring(following), empty)


def _is_docstring(statement: ast.stmt | None) -> bool:
    match statement:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case _:
            return False


def _is_empty_text(value: ast.expr | None) -> bool:
    """True for "", and for field(default="")."""
    match value:
        case ast.Constant(value=""):
            return True
        case ast.Call(func=ast.Name(id="field"), keywords=keywords):
            return any(keyword.arg == "default" and _is_empty_text(keyword.value) for keyword in keywords)
        case _:
            return False


def _fields_of(path: Path) -> list[FieldOfClass]:
    return list(fields(path.read_text(), str(path.relative_to(ROOT))))


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_field_has_its_own_line_of_documentation(path: Path) -> None:
    assert [field.name for field in _fields_of(path) if not field.documented] == []


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_an_unknown_text_is_none(path: Path) -> None:
    empty = {field.name for field in _fields_of(path) if field.empty_default}
    assert empty - EMPTY_IS_A_VALUE == set()


def test_no_two_classes_share_a_name() -> None:
    classes = [
        node.name
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert {name: count for name, count in Counter(classes).items() if count > 1} == {}


def test_the_list_of_empty_texts_names_only_such_fields() -> None:
    every = [field for path in _sources() for field in _fields_of(path)]
    assert {field.name for field in every if field.empty_default} >= EMPTY_IS_A_VALUE


@pytest.mark.parametrize(
    ("body", "documented", "empty"),
    [
        ('a: int\n    """Count."""', [True], [False]),
        ("a: int\n    b: int = 0", [False, False], [False, False]),
        ('a: str = ""\n    """Name."""', [True], [True]),
        ('a: str = field(default="", repr=False)', [False], [True]),
        ('a: str | None = None\n    """Name."""', [True], [False]),
        ("_a: int", [], []),
    ],
)
def test_what_counts_as_a_field(body: str, documented: list[bool], empty: list[bool]) -> None:
    found = list(fields(f"@dataclass(frozen=True)\nclass A:\n    {body}\n"))
    assert ([field.documented for field in found], [field.empty_default for field in found]) == (documented, empty)
