"""Variables in KMM's dialect of envsubst, rule by rule."""

from __future__ import annotations

import pytest

from kmm_preflight.errors import Malformed
from kmm_preflight.planning.template import image_variables, kernel_fields, kernel_variables, normalized, substitute

VARIABLES = {"A": "one", "B": "two", "EMPTY": "", "A_1": "three", "1": "digit", "Ä": "umlaut"}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        pytest.param("plain", "plain", id="no variable"),
        pytest.param("", "", id="nothing"),
        pytest.param("x$A", "xone", id="bare"),
        pytest.param("x${A}y", "xoney", id="braced"),
        pytest.param("$A$B${A}", "onetwoone", id="side by side"),
        pytest.param("$A_1", "three", id="names are greedy"),
        pytest.param("$A_x", "", id="greedy and unknown"),
        pytest.param("$A.$A-$A/$A:$A", "one.one-one/one:one", id="what ends a name"),
        pytest.param("$1 ${1}", "digit digit", id="a name may begin with a digit"),
        pytest.param("$Ä", "umlaut", id="a letter of any script"),
        pytest.param("x${NOPE}y$NOPE", "xy", id="unknown is empty"),
        pytest.param("$a", "", id="case counts"),
        pytest.param("$$", "$", id="double dollar"),
        pytest.param("$$A", "$A", id="double dollar before a name"),
        pytest.param("$${A}", "${A}", id="double dollar before a brace"),
        pytest.param("$$$A", "$one", id="three dollars"),
        pytest.param("a$", "a$", id="dollar at the end"),
        pytest.param("a$ b$-c$}", "a$ b$-c$}", id="lonely dollars"),
        pytest.param("$_ $_x", "$_ ", id="underscore alone stays"),
        pytest.param("${}", "${}", id="empty braces stay"),
        pytest.param("{A} }", "{A} }", id="braces without a dollar"),
        pytest.param("${A}}", "one}", id="first brace ends"),
        pytest.param("${NOPE:-d}${EMPTY:-d}${A:-d}", "ddone", id=":- if empty or unset"),
        pytest.param("${NOPE:=d}${EMPTY:=d}${A:=d}", "ddone", id=":= if empty or unset"),
        pytest.param("${NOPE-d}${EMPTY-d}${A-d}", "done", id="- if unset"),
        pytest.param("${NOPE=d}${EMPTY=d}${A=d}", "done", id="= if unset"),
        pytest.param("${NOPE+a}${EMPTY+a}${A+a}", "aa", id="+ if set"),
        pytest.param("${NOPE:+a}${EMPTY:+a}${A:+a}", "aa", id=":+ if set, even to nothing"),
        pytest.param("${NOPE:-}${A:-}${A+}", "oneone", id="an operator without a word is none"),
        pytest.param("${NOPE:-$B}${A+$B}", "twotwo", id="word is a variable"),
        pytest.param("${NOPE:-$ALSO}", "", id="word is an unknown variable"),
        pytest.param("${NOPE:-$A$B}", "two", id="the last of several variables counts"),
        pytest.param("${NOPE:-$A/b}", "/b", id="text behind a variable takes its place"),
        pytest.param("${NOPE:-a$B}", "a$B", id="text before a variable leaves it alone"),
        pytest.param("${NOPE:-${B}}", "{B}", id="no nesting"),
        pytest.param("${NOPE:-a b:c-d}", "a b:c-d", id="word of several characters"),
        pytest.param("${NOPE:--d}", "-d", id="word begins with an operator"),
        pytest.param("${A.x}${A:x}${A/o/0}", "oneoneone", id="no operator: passed over"),
    ],
)
def test_substitute(template: str, text: str) -> None:
    assert substitute(template, VARIABLES) == text


@pytest.mark.parametrize(
    "template", ["${", "${A", "x${A:-d", "${A\n}", "${A:-d\n}", "${A:}", "${-x}", "${.A}", "a ${ A"]
)
def test_substitute_refuses(template: str) -> None:
    with pytest.raises(Malformed) as caught:
        substitute(template, VARIABLES)
    assert f"template {template!r}".replace("\\n", "\n").splitlines()[0] in caught.value.message.replace("\\n", "\n")
    assert "no name or no closing brace" in caught.value.message


def test_a_long_template_is_quick() -> None:
    assert substitute("${A}" * 20_000, VARIABLES) == "one" * 20_000


@pytest.mark.parametrize(
    ("kernel", "shown"),
    [
        ("5.14.0-570.19.1.el9_6.x86_64", "5.14.0-570.19.1.el9_6.x86_64"),
        ("5.14.0-570.19.1.el9_6.x86_64+rt", "5.14.0-570.19.1.el9_6.x86_64_rt"),
        ("6.12.9+bpo-amd64", "6.12.9_bpo-amd64"),
        ("1.2.3~rc1 4é", "1.2.3_rc1_4_"),
    ],
)
def test_normalized(kernel: str, shown: str) -> None:
    assert normalized(kernel) == shown


@pytest.mark.parametrize(
    ("kernel", "xyz", "x", "y", "z"),
    [
        ("6.0.15-300.fc37.x86_64", "6.0.15", "6", "0", "15"),
        ("5.14.0-570.19.1.el9_6.x86_64+rt", "5.14.0", "5", "14", "0"),
        ("6.12.9+bpo-amd64", "6.12.9_bpo", "6", "12", "9_bpo"),
        ("6.1-28-amd64", "6.1.28", "6", "1", "28"),
        ("1.2.3", "1.2.3", "1", "2", "3"),
    ],
)
def test_kernel_variables(kernel: str, xyz: str, x: str, y: str, z: str) -> None:
    whole = normalized(kernel)
    expected = {
        "KERNEL_FULL_VERSION": whole,
        "KERNEL_VERSION": whole,
        "KERNEL_XYZ": xyz,
        "KERNEL_X": x,
        "KERNEL_Y": y,
        "KERNEL_Z": z,
    }
    assert kernel_variables(kernel) == expected
    assert image_variables(kernel, "ns", "m") == {**expected, "MOD_NAME": "m", "MOD_NAMESPACE": "ns"}


@pytest.mark.parametrize(
    ("kernel", "fields"),
    [
        ("6.0.15-300.fc37", ["6", "0", "15", "300", "fc37"]),
        ("a,b,c", ["a", "b", "c"]),
        ("1.2.3 foo", ["1", "2", "3 foo"]),
        ("..", ["", "", ""]),
    ],
)
def test_kernel_fields(kernel: str, fields: list[str]) -> None:
    assert kernel_fields(kernel) == fields


@pytest.mark.parametrize("kernel", ["", "test", "tesdt", "5.14", "5_14_0"])
def test_kernel_fields_refuses(kernel: str) -> None:
    with pytest.raises(Malformed, match="expected at least three fields"):
        kernel_fields(kernel)
