"""Pages agree with the code: findings, fields, options, commands and links."""

from __future__ import annotations

import ast
import importlib
import json
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.options.definitions import OPTIONS
from kmm_preflight.catalogue import CATALOGUE, NOTE, FindingKind, define
from kmm_preflight.stages import report
from kmm_preflight.status.dialects import Dialect, kubectl_line

from .demo import DEMO, GREEN, RED
from .runs import ROOT, run_preflight

FINDINGS = ROOT / "docs" / "findings"
SECTIONS = ["What it means", "Why it matters", "How to fix it", "How it is checked", "Limits"]
"""Headings of a finding's page, in their order. The last two may be absent."""
REPORT = (ROOT / "docs" / "report.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PYTEST_OPTIONS = {"--collect-only", "--dist", "--help", "--html", "--junitxml", "--lf", "--timeout", "--timeout-method"}
SUBCOMMAND_OPTIONS = {"--output", "--with-pull-secret"}
# The options after one of these words on a line are those of the program.
PROGRAMS = {
    "COPY",
    "apt-get",
    "cosign",
    "curl",
    "git",
    "kubectl",
    "modprobe",
    "mokutil",
    "oc",
    "pip",
    "podman",
    "ruff",
    "skopeo",
    "strip",
}


def room(path: Path) -> str:
    """Return the name of the module that a file of the package is."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


ROOMS = [importlib.import_module(room(path)) for path in sorted(ROOT.glob("kmm_preflight/*/findings.py"))]
"""The findings of each room. The import fills CATALOGUE."""
KINDS = {module.__name__: [kind for kind in vars(module).values() if isinstance(kind, FindingKind)] for module in ROOMS}
"""The findings by room, in the order of their definitions."""
EVERY_FINDING = pytest.mark.parametrize("kind", CATALOGUE.values(), ids=lambda kind: kind.id)


def placeholders(text: str) -> set[str]:
    """Return the names of the placeholders in a text."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_every_finding_has_a_page_and_every_page_a_finding() -> None:
    assert sorted(path.stem for path in FINDINGS.glob("*.md")) == sorted([*CATALOGUE, "README"])


def test_every_finding_belongs_to_a_room() -> None:
    assert sorted(kind.id for kinds in KINDS.values() for kind in kinds) == sorted(CATALOGUE)


def test_an_id_that_is_defined_twice_is_refused() -> None:
    used = next(iter(CATALOGUE))
    with pytest.raises(ValueError, match=f"finding {used} is defined twice"):
        define(used, NOTE, "a sentence", "A remedy.")


@EVERY_FINDING
def test_a_finding_is_a_sentence_without_a_full_stop_and_a_remedy_with_one(kind: FindingKind) -> None:
    names = placeholders(kind.sentence) | placeholders(kind.remedy)
    finding = kind(**{name: "Do this." if name == "remedy" else f"<{name}>" for name in names})
    for text in (finding.sentence, finding.remedy):
        assert text.strip() == text != ""
        assert "\n" not in text
        assert "{" not in text.replace("${", "")
    assert not finding.sentence.endswith(".")
    assert finding.remedy.endswith(".")


def calls_of_findings(path: Path) -> Iterator[tuple[int, FindingKind, set[str], bool]]:
    """Find the calls findings.NAME(…) of a file: line, finding, keywords, and True if a mapping adds more keywords."""
    tree = ast.parse(path.read_text())
    rooms = {
        name.asname or name.name: importlib.import_module(f"{node.module}.{name.name}")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 0 and f"{node.module}.findings" in KINDS
        for name in node.names
        if name.name == "findings"
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=alias), attr=name), args=[]) if alias in rooms:
                kind = getattr(rooms[alias], name)
                if isinstance(kind, FindingKind):
                    keywords = {keyword.arg for keyword in node.keywords}
                    yield node.lineno, kind, {keyword for keyword in keywords if keyword}, None in keywords


def test_calls_give_a_finding_exactly_its_placeholders() -> None:
    called, wrong = set(), []
    for path in sorted(path for folder in ("kmm_preflight", "fixtures") for path in (ROOT / folder).rglob("*.py")):
        for line, kind, given, more in calls_of_findings(path):
            called.add(kind.id)
            names = placeholders(kind.sentence) | placeholders(kind.remedy)
            if given - names or (names - given and not more):
                wrong.append(f"{path}:{line}: {kind.id} has {sorted(names)}, the call gives {sorted(given)}")
    assert wrong == []
    assert len(called) > len(CATALOGUE) / 2, "most findings are called by name"


@EVERY_FINDING
def test_a_page_of_a_finding_has_its_id_weight_and_sentence(kind: FindingKind) -> None:
    title, *lines = (FINDINGS / f"{kind.id}.md").read_text().splitlines()
    assert title == f"# {kind.id}"
    assert [line for line in lines if line.startswith(f"Weight: **{kind.severity.value}**. ")]
    assert [line for line in lines if is_example(kind, line)], "no example that the suite could print"


def is_example(kind: FindingKind, line: str) -> bool:
    """True if the line is the id and the sentence of the finding, with some text for each placeholder."""
    words = re.split(r"\{\w+\}", f"{kind.id}: {kind.sentence}")
    return bool(re.fullmatch(".+".join(re.escape(piece) for piece in words), line.strip()))


@EVERY_FINDING
def test_a_page_of_a_finding_has_the_sections_that_readers_search_for(kind: FindingKind) -> None:
    headings = re.findall(r"^## (.+)$", (FINDINGS / f"{kind.id}.md").read_text(), re.M)
    assert headings[:3] == SECTIONS[:3]
    assert headings == [heading for heading in SECTIONS if heading in headings]


def test_the_guide_for_new_findings_names_functions_that_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)`: `(\w+)`", (ROOT / "docs" / "how-to-add-a-finding.md").read_text())
    assert {Path(name).parent.name for name, _ in named} == {module.__name__.split(".")[1] for module in ROOMS}
    assert [(name, function) for name, function in named if function not in functions(ROOT / name)] == []


def functions(path: Path) -> set[str]:
    """Return the names of the functions and methods of a file."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_the_tables_have_each_finding_once_with_its_weight_and_each_room_in_its_order() -> None:
    text = (FINDINGS / "README.md").read_text()
    rows = re.findall(r"^\| \[([\w-]+)\]\(([\w-]+)\.md\) \| (\w+) \| .+ \|$", text, re.M)
    for kinds in KINDS.values():
        ids = {kind.id for kind in kinds}
        assert [row for row in rows if row[0] in ids] == [(kind.id, kind.id, kind.severity.value) for kind in kinds]
    assert len(rows) == len(CATALOGUE)


def test_every_field_of_a_report_is_documented(tmp_path: Path) -> None:
    unknown = {"apiVersion": "kmm.sigs.x-k8s.io/v1beta1", "kind": "InitramfsModule", "metadata": {"name": "early"}}
    (tmp_path / "unknown.json").write_text(json.dumps(unknown))
    run = run_preflight(tmp_path, *DEMO, GREEN, RED, f"--manifests={tmp_path / 'unknown.json'}", "-n0")
    assert run.returncode == report.EXIT_REFUTED, run.output
    section = REPORT.partition("\n## preflight.json\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `([\w.\[\]]+)` \| ", section, re.M)
    assert len(documented) == len(set(documented))
    written = set(fields(run.document))
    assert written <= set(documented)
    assert set(documented) - written == {"problem.sentence", "problem.finding"}, "fields of a run that ended early"


def fields(value: object, path: str = "") -> Iterator[str]:
    """Return the paths of all fields, as docs/report.md spells them: modules[].name."""
    match value:
        case dict():
            for name, below in value.items():
                yield f"{path}.{name}".lstrip(".")
                yield from fields(below, f"{path}.{name}".lstrip("."))
        case list():
            for below in value:
                yield from fields(below, f"{path}[]")


def test_every_exit_code_is_documented() -> None:
    codes = {value for name, value in vars(report).items() if name.startswith("EXIT_")}
    internal = {int(pytest.ExitCode.INTERNAL_ERROR)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \| ", REPORT, re.M)} == codes | internal


@pytest.mark.parametrize("dialect", Dialect)
def test_the_command_that_applies_a_patch_is_documented(dialect: Dialect) -> None:
    assert f"    {kubectl_line(dialect, 'status-patch.yaml')}\n" in REPORT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    inside = [link.partition("#")[0] for link in links if "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", page.read_text())
    missing = [
        (name, anchor) for name, anchor in links if anchor not in anchors((page.parent / name) if name else page)
    ]
    assert missing == []


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_exist(page: Path) -> None:
    known = {option.name for option in OPTIONS} | PYTEST_OPTIONS | SUBCOMMAND_OPTIONS
    assert {name for command in commands(page.read_text()) for name in options(command)} - known == set()


def commands(text: str) -> Iterator[str]:
    """Return the pieces of lines that may be one command: a sign of shell or Markdown ends a piece."""
    for line in text.splitlines():
        yield from re.split(r"`|&&|[|;]", line)


def options(command: str) -> list[str]:
    """Return the long options in a piece of text, or no options if the text calls another program."""
    words = command.lstrip(" #-").removeprefix("run: ").removeprefix("RUN ").split()
    program = words[0].rpartition("/")[2] if words else ""
    return [] if program in PROGRAMS else re.findall(r"(?<![\w-])--[a-z][a-z-]*", command)
