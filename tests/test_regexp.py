"""Go's regular expressions, with google-re2 and with the fallback for machines without google-re2."""

from __future__ import annotations

import pytest

from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.planning.regexp import PATTERN_CHARACTERS, _compile_shared, compile_pattern

KERNEL = "5.14.0-570.19.1.el9_6.x86_64"


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        pytest.param("570", KERNEL, True, id="anywhere"),
        pytest.param("^570", KERNEL, False, id="anchored"),
        pytest.param(r"^.+\.x86_64$", KERNEL, True, id="dot, plus, anchors"),
        pytest.param(r"^.+\fc37\.x86_64$", "6.0.15-300.fc37.x86_64", False, id="form feed of the documentation"),
        pytest.param("x86_64$", KERNEL + "\n", False, id="$ is the end of the text"),
        pytest.param(r"x86_64\z", KERNEL, True, id=r"\z is the end"),
        pytest.param("x{,3}", "xxx", False, id="x{,3} is text"),
        pytest.param("x{,3}", "x{,3}", True, id="x{,3} finds itself"),
        pytest.param("x{2,3}", "xx", True, id="repetition"),
        pytest.param(r"^\d+$", "\u0665", False, id=r"\d is ASCII"),
        pytest.param(r"^\w+$", "é", False, id=r"\w is ASCII"),
        pytest.param("[[:digit:]]{2}", "14", True, id="POSIX class"),
        pytest.param("[[:digit:]]", ":", False, id="POSIX class is no set of letters"),
        pytest.param(r"\Qa.b\E", "a.b", True, id="quoted text"),
        pytest.param(r"\Qa.b\E", "axb", False, id="quoted dot"),
        pytest.param(r"\x{41}", "A", True, id="hexadecimal"),
        pytest.param(r"\pL", "é", True, id="Unicode class"),
        pytest.param("a(?i)B", "ab", True, id="flag in the middle"),
        pytest.param("(?U)a+", "aa", True, id="ungreedy"),
        pytest.param("(?P<v>el9)", KERNEL, True, id="named group"),
        pytest.param("", KERNEL, True, id="empty"),
    ],
)
def test_search(pattern: str, text: str, found: bool) -> None:
    assert bool(compile_pattern(pattern).search(text)) is found


@pytest.mark.parametrize(
    "pattern",
    [
        "bad(", "*-invalid-regexp", "a)", "[z-a]", "[", "a**", "a++", "a*+", "(?=x)", "(?!x)", "(?<=x)", "(?<!x)",
        r"(a)\1", "(?>a)", "(?(1)a)", r"x\Z", "x{1001}", "x{2,1}", r"\q", "(?P<a", "\ud800",
    ],
)  # fmt: skip
def test_refused(pattern: str) -> None:
    with pytest.raises(Malformed, match="regexp"):
        compile_pattern(pattern)


def test_a_long_pattern_is_refused() -> None:
    with pytest.raises(BoundExceeded, match=f"regexp: got {PATTERN_CHARACTERS + 1} characters, this suite reads at"):
        compile_pattern("a" * (PATTERN_CHARACTERS + 1))


def test_a_pattern_that_backtracks_is_quick() -> None:
    assert not compile_pattern("^(a+)+$").search("a" * 5000 + "b")


SIMPLE = [
    "^.+$", r"^.+\.x86_64$", r"^5\.14\.0-570\..*$", "570", r"^.*\.el9_\d+\.x86_64(?:\+rt)?$", "[0-9]+", "[^a-z]*$",
    r"^(5\.14|6\.0)", r"\$|\^", "a|b|", r"\(\)\[\]\{\}", "x86_64", "^$", "()", ".*?", "(a|b)+", r"\s|\S", "-rt$",
]  # fmt: skip


@pytest.mark.parametrize("pattern", SIMPLE)
def test_fallback_agrees_with_re2(pattern: str) -> None:
    texts = [KERNEL, f"{KERNEL}+rt", "6.0.15-300.fc37.x86_64", "", "a", "b.c", "$()[]{}^", "6.1.0-28-rt"]
    both = (_compile_shared(pattern), compile_pattern(pattern))
    first, second = ([bool(compiled.search(text)) for text in texts] for compiled in both)
    assert first == second


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=x)", "(?i)x", "(?a)x", "(?x)x y", r"(a)\1", r"x\Z", r"\bx", "x{,3}", "x{2}", "a++", "a?+", "[[:alpha:]]",
        "[[]", "[a-z&&b]", r"[\d]", r"\pL", r"\fc37", "é", "(", "a**", "\n",
    ],
)  # fmt: skip
def test_fallback_refuses_syntax_that_python_reads_in_another_way(pattern: str) -> None:
    with pytest.raises((BoundExceeded, Malformed)):
        _compile_shared(pattern)
