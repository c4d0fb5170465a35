"""Text from outside is safe for terminals and CI logs."""

from __future__ import annotations

import pytest

from kmm_preflight.errors import Malformed
from kmm_preflight.text import SHOWN_CHARACTERS, clean, listed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain — ünïcode ✓", "plain — ünïcode ✓", id="plain"),
        pytest.param("a\nb", "a b", id="line feed"),
        pytest.param("a\r\tb", "a\\r\\tb", id="carriage return and tab"),
        pytest.param("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m", id="terminal colours"),
        pytest.param("\x1b]8;;http://x\x07y", "\\x1b]8;;http://x\\x07y", id="terminal link"),
        pytest.param("a\x9bb\x7f\0", "a\\x9bb\\x7f\\x00", id="C1, delete and NUL"),
        pytest.param("a\u202eb\u2066c", "a\\u202eb\\u2066c", id="writing direction"),
        pytest.param("a\u200bb\ufeffc", "a\\u200bb\\ufeffc", id="invisible"),
        pytest.param("a\u2028b\u2029c", "a b c", id="separators of lines and paragraphs"),
        pytest.param("a\ud800b", "a\\ud800b", id="half a surrogate pair"),
        pytest.param("\U000e0041", "\\U000e0041", id="tag character"),
        pytest.param("::error::x", ": :error: :x", id="GitHub command"),
        pytest.param("\n::set-env name=x::y", " : :set-env name=x: :y", id="GitHub command on a line of its own"),
        pytest.param("##[error]x", "# #[error]x", id="Azure group"),
        pytest.param("##vso[task.x]y", "# #vso[task.x]y", id="Azure command"),
        pytest.param("## a :: b", "## a :: b", id="no command"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_long_text_is_cut_and_counted() -> None:
    assert clean("x" * SHOWN_CHARACTERS) == "x" * SHOWN_CHARACTERS
    assert clean("x" * (SHOWN_CHARACTERS + 7)) == "x" * SHOWN_CHARACTERS + "… (7 characters more)"


def test_every_error_is_clean() -> None:
    assert str(Malformed("a\x1bb\nc")) == Malformed("a\x1bb\nc").message == "a\\x1bb c"


@pytest.mark.parametrize(
    ("names", "most", "shown"),
    [([], 5, "nothing"), (["a"], 5, "a"), (["a", "b"], 2, "a, b"), (["a", "b", "c", "d"], 2, "a, b and 2 more")],
    ids=["none", "one", "all", "too many"],
)
def test_listed(names: list[str], most: int, shown: str) -> None:
    assert listed(names, most) == shown
