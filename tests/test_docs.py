"""The pages say what the code does: findings, fields, options, commands, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.options.definitions import OPTIONS
from kmm_preflight.catalogue import CATALOGUE, FindingKind
from kmm_preflight.stages import report
from kmm_preflight.status.dialects import Dialect, kubectl_line

from .demo import DEMO, GREEN, RED
from .runs import ROOT, run_preflight

FINDINGS = ROOT / "docs" / "findings"
REPORT = (ROOT / "docs" / "report.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PYTEST_OPTIONS = {"--collect-only", "--dist", "--help", "--html", "--junitxml", "--lf"}
# Whatever follows one of these on a line is that program's own.
PROGRAMS = {
    "COPY",
    "apt-get",
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


def test_every_finding_has_a_page_and_every_page_a_finding() -> None:
    assert sorted(path.stem for path in FINDINGS.glob("*.md")) == sorted([*CATALOGUE, "README"])


@pytest.mark.parametrize("kind", CATALOGUE.values(), ids=lambda kind: kind.id)
def test_a_finding_s_page_tells_its_id_weight_and_sentence(kind: FindingKind) -> None:
    title, *lines = (FINDINGS / f"{kind.id}.md").read_text().splitlines()
    assert title == f"# {kind.id}"
    assert [line for line in lines if line.startswith(f"Weight: **{kind.severity.value}**. ")]
    assert [line for line in lines if is_example(kind, line)], "no example that the suite could print"


def is_example(kind: FindingKind, line: str) -> bool:
    """Whether a line is an example of the finding: its sentence with something in the place of each name."""
    words = re.split(r"\{\w+\}", f"    {kind.id}: {kind.sentence}")
    return bool(re.fullmatch(".+".join(re.escape(one) for one in words), line))


def test_the_table_of_findings_has_all_with_their_weights() -> None:
    rows = re.findall(
        r"^\| \[([\w-]+)\]\(([\w-]+)\.md\) \| (\w+) \| .+ \|$", (FINDINGS / "README.md").read_text(), re.M
    )
    assert rows == [(kind.id, kind.id, kind.severity.value) for kind in CATALOGUE.values()]


def test_every_field_of_a_report_is_documented(tmp_path: Path) -> None:
    run = run_preflight(tmp_path, *DEMO, GREEN, RED, "-n0")
    assert run.returncode == report.EXIT_REFUTED, run.output
    section = REPORT.partition("\n## preflight.json\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `([\w.\[\]]+)` \| ", section, re.M)
    assert len(documented) == len(set(documented))
    told = set(fields(run.document))
    assert told <= set(documented)
    assert set(documented) - told == {"problem.sentence", "problem.finding"}, "fields of a run that ended early"


def fields(value: object, path: str = "") -> Iterator[str]:
    """The paths of all fields, as docs/report.md spells them: modules[].name."""
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
def test_options_exist(page: Path) -> None:
    known = {option.name for option in OPTIONS} | PYTEST_OPTIONS
    assert {name for command in commands(page.read_text()) for name in options(command)} - known == set()


def commands(text: str) -> Iterator[str]:
    """What can be one command: pieces of lines between the signs that begin or end one, in shell or Markdown."""
    for line in text.splitlines():
        yield from re.split(r"`|&&|[|;]", line)


def options(command: str) -> list[str]:
    """The long options in a piece of text, unless it calls another program."""
    words = command.lstrip(" #-").removeprefix("run: ").removeprefix("RUN ").split()
    program = words[0].rpartition("/")[2] if words else ""
    return [] if program in PROGRAMS else re.findall(r"(?<![\w-])--[a-z][a-z-]*", command)
