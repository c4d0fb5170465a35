"""Citations such as kmm.md 3.2 lead to a section of docs/reference, and each section there is cited."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .runs import ROOT

REFERENCE = ROOT / "docs" / "reference"
CODE = ("kmm_preflight", "fixtures", "reports", "preflight_tests", "tests", "bench", "demo")
MENTION = re.compile(r"docs/reference/(\w+)\.md")
NUMBER = r"\d+(?:\.\d+)*"
CITATION = re.compile(rf"(?<=[(\s])docs/reference/(\w+)\.md ({NUMBER}(?:, {NUMBER})*)")
HEADING = re.compile(rf"^#+ ({NUMBER}) \S", re.M)
OLD_FORM = re.compile(r"\b(?:kmm|openshift|loader)-reference\b")

Section = tuple[str, str]
"""Page and number, such as ("kmm", "3.2")."""


def cited_in(text: str) -> Iterator[Section]:
    """Return the sections that a text cites."""
    for page, numbers in CITATION.findall(text):
        yield from ((page, number) for number in numbers.split(", "))


def headings() -> dict[str, list[str]]:
    """Return the section numbers of each page, in the page's order."""
    return {page.stem: HEADING.findall(page.read_text()) for page in sorted(REFERENCE.glob("*.md"))}


def sources() -> list[Path]:
    """Return all Python files that may cite a section, except this one, which has examples."""
    return sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))


def pages() -> list[Path]:
    """Return all pages that may cite a section, without the reference pages themselves."""
    return sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent != REFERENCE)


def test_every_citation_leads_to_a_section() -> None:
    known = {(page, number) for page, numbers in headings().items() for number in numbers}
    dangling = [
        f"{path.relative_to(ROOT)}: {page}.md {number}"
        for path in (*sources(), *pages())
        for page, number in cited_in(path.read_text())
        if (page, number) not in known
    ]
    assert dangling == []


def test_every_section_is_cited() -> None:
    cited = {section for path in (*sources(), *pages()) for section in cited_in(path.read_text())}
    assert [
        (page, number) for page, numbers in headings().items() for number in numbers if (page, number) not in cited
    ] == []


def test_citations_have_one_form() -> None:
    other = [
        str(path.relative_to(ROOT))
        for path in sources()
        if len(MENTION.findall(text := path.read_text())) != len(CITATION.findall(text)) or OLD_FORM.search(text)
    ]
    assert other == []


@pytest.mark.parametrize("page", sorted(headings()))
def test_sections_are_in_order_and_name_their_source(page: str) -> None:
    numbers = headings()[page]
    assert numbers == sorted(set(numbers), key=lambda number: [int(part) for part in number.split(".")])
    sections = re.split(r"^## ", (REFERENCE / f"{page}.md").read_text(), flags=re.M)[1:]
    assert [section.partition("\n")[0] for section in sections if "\nSource: " not in section] == []


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("(docs/reference/kmm.md 3.4, 3.5)", [("kmm", "3.4"), ("kmm", "3.5")]),
        ("(docs/reference/loader.md 5, docs/reference/kmm.md 11)", [("loader", "5"), ("kmm", "11")]),
        ("(docs/reference/loader.md 1, step 14)", [("loader", "1")]),
        ("docs/reference/loader.md, 1", []),
    ],
)
def test_what_counts_as_a_citation(text: str, sections: list[Section]) -> None:
    assert list(cited_in(text)) == sections
