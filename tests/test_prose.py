"""Plain English: docstrings, comments, messages and pages follow the rules that a pattern can check.

`python -m tests.test_prose PATH …` lists what is wrong in some files.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ("kmm_preflight", "fixtures", "reports", "preflight_tests", "commands")
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "docs")
WORDS_MOST = 25
"""Words in a sentence of README and docs."""


@dataclass(frozen=True)
class Rule:
    """A pattern of text that is hard to read, and the rule that it breaks."""

    pattern: str
    """The pattern; letter case counts only where the pattern has capitals."""
    rule: str
    """What to write."""


# The first words of a docstring.
STARTS = (
    Rule(
        r"(What|Which|Whether|How|Where|Who|Whose|When|Why)\b", "start with a verb or a noun, not with a question word"
    ),
    Rule(r"(See|As|Like|Ditto)\b", "say the fact here: a docstring reads alone"),
    Rule(r"(The same|Same|Those|These|That|This|They|It|One|None|All that|Each of|Nothing)\b(?!\w)", "name the noun"),
)
# Anywhere in a docstring.
DOCSTRINGS = (
    Rule(r"\bSee [A-Z]\w+\.", "say the fact here: a docstring reads alone"),
    Rule(r"\b[Tt]he same (of|for|as|in|where|when|with)\b", "name the noun and say the fact again"),
)
# Anywhere that a person reads: docstrings, comments, messages, pages.
EVERYWHERE = (
    Rule(r"\b(is|are|was|were|be) none (that|which|of)\b", "negate the verb: no X matches"),
    Rule(
        r"(?<![Tt]here )\bis (no|none) (file|kmod|text|base64|index|number|name|mapping|list|object|image|YAML|JSON)\b",
        "negate the verb: is not a file",
    ),
    Rule(r"\b(mend|mends|mended|mending)\b", "say fix or correct"),
    Rule(r"\b(speaks?|spoke|speaking) (against|for)\b", "say refutes, reports or warns"),
    Rule(r"\bis to be (had|told|found|said|seen)\b", "say exists, is reported, is available"),
    Rule(r"\b(comes?|came) to (be|an end|its end|no end)\b", "say becomes, ends"),
    Rule(r"\b(thereof|therein|thereby|wherein|whereby|whom|whereof|hereof|thereupon)\b", "use everyday words"),
    Rule(r"(?<!not )\bhave it\b|\bhas it\b(?! been)", "say writes, requires, reports"),
    Rule(
        r"\b(stands?|standing|stood) (beside|behind|above|below|in|on|at|there|for|still|alone|around|before|as)\b",
        "say is, or is next to",
    ),
    Rule(r"\b(in|as) its stead\b|\bin place thereof\b", "say instead"),
    Rule(r"\b(tells?|told|telling)\b", "say reports, says, shows, prints or means"),
    Rule(r"\b(asks?|asked|asking) (of|the|a|an|no|for|it|them|whether|again)\b", "say requests, reads or requires"),
    Rule(r"\blets? (it|them|the|a|no|us|this)\b", "say allows"),
    Rule(r"\bof (it|them|which|whom|whose|such|those|these) (is|are|was|were|has|have)\b", "name the noun"),
    Rule(r"\bgot (none|nothing)\b", "say what happened: no X in Y"),
    Rule(r"\bNone is needed\b", "say: No action needed."),
    Rule(r"\bat hand\b", "say available"),
    Rule(r"\b(is|are|was) (said|known|told) (of|by) (it|them)\b", "name the noun"),
)


def _docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Docstrings of modules, classes, functions and attributes, with their lines."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for position, statement in enumerate(body):
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    first = position == 0 and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
                    if first or (position and isinstance(body[position - 1], ast.AnnAssign | ast.Assign)):
                        yield statement.lineno, text


def _messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """String literals that a person may read: those with a space."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


def _broken(rules: tuple[Rule, ...], text: str, start: bool = False) -> Iterator[str]:
    for rule in rules:
        found = (re.match if start else re.search)(rule.pattern, text)
        if found:
            yield f"{found[0]!r}: {rule.rule}"


def problems_of_source(source: str) -> Iterator[tuple[int, str]]:
    """Lines of Python source with the rules that they break."""
    tree = ast.parse(source)
    for line, text in _docstrings(tree):
        yield from ((line, words) for words in _broken(STARTS, text, start=True))
        yield from ((line, words) for words in _broken(DOCSTRINGS, text))
    for line, text in (*_messages(tree), *_comments(source)):
        yield from ((line, words) for words in _broken(EVERYWHERE, text))


def problems_of_page(text: str) -> Iterator[tuple[int, str]]:
    """Lines of a Markdown page with the rules that they break. Code blocks are left out."""
    prose = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.M | re.S)
    for number, line in enumerate(prose.splitlines(), 1):
        yield from ((number, words) for words in _broken(EVERYWHERE, re.sub(r"`[^`]*`", "`x`", line)))
    for number, sentence in _sentences(prose):
        count = len(re.findall(r"[\w'./:-]+", re.sub(r"`[^`]*`", "x", sentence)))
        if count > WORDS_MOST:
            yield number, f"{count} words in a sentence, at most {WORDS_MOST}: {sentence[:50]!r}"


def _sentences(prose: str) -> Iterator[tuple[int, str]]:
    """Sentences of paragraphs and list items, with the line of the paragraph. Leave out tables, headings and quotes."""
    number = 1
    for paragraph in re.split(r"(\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) ))", prose):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph).strip("\n")
        if plain.strip() and not plain.startswith(("|", "#", ">", "    ", "<")):
            for sentence in re.split(r"(?:(?<=[.!?:;])|(?<=[.!?:;]\*\*))\s+", " ".join(plain.split())):
                yield number, sentence
        number += paragraph.count("\n")


def problems(path: Path) -> list[str]:
    """Problems of a file as path:line: words."""
    text = path.read_text()
    found = problems_of_source(text) if path.suffix == ".py" else problems_of_page(text)
    return [f"{path}:{line}: {words}" for line, words in sorted(set(found))]


def _sources() -> list[Path]:
    return sorted(path for folder in PACKAGE for path in (ROOT / folder).rglob("*.py"))


def _pages() -> list[Path]:
    named = [ROOT / name for name in PAGES if (ROOT / name).exists()]
    return sorted(page for path in named for page in (path.rglob("*.md") if path.is_dir() else [path]))


@pytest.mark.parametrize("path", [*_sources(), *_pages()], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_follows_the_rules(path: Path) -> None:
    assert problems(path) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('"""Whether it is so."""', 1),
        ('"""Return the newest copy."""', 0),
        ('x = 1\n"""See Sources."""', 2),
        ("# what is told", 1),
        ('error("the toolkit told nothing")', 1),
        ('error("told")', 0),
    ],
)
def test_what_counts_as_a_problem_of_a_source(source: str, count: int) -> None:
    assert len(list(problems_of_source(source))) == count


def test_a_long_sentence_of_a_page_is_a_problem_and_code_is_not() -> None:
    assert [line for line, _ in problems_of_page("One.\n\n" + "word " * 26 + ".")] == [3]
    assert list(problems_of_page("```\n" + "told " * 26 + "\n```\n")) == []


if __name__ == "__main__":
    found = [line for name in sys.argv[1:] for line in problems(Path(name))]
    print("\n".join(found))
    sys.exit(bool(found))
