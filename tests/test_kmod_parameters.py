"""Parameters of kmods: names that the kmod has, and values that its parser refuses."""

from __future__ import annotations

import pytest

from kmm_preflight.kmod.parameters import judge_parameters

from .loader_cases import read
from .objects import Object

TYPES = ("byte", "short", "ushort", "int", "uint", "long", "ulong", "ullong", "hexint", "bool", "invbool", "charp")
TAGS = (
    *(f"parmtype=a_{kind}:{kind}" for kind in TYPES),
    "parmtype=list:array of int", "parm=described:a text (int)", "parmtype=own:mytype", "license=GPL",
)  # fmt: skip


def told(*words: str) -> list[str]:
    """Return the ids of the findings for a kmod with one parameter of each type."""
    return [finding.id for finding in judge_parameters("made.ko", read(Object(modinfo=TAGS)), words)]


@pytest.mark.parametrize(
    "word",
    [
        "a_int=5", "a_int=-5", "a_int=+5", "a_int=0x1F", "a_int=017", "a_int=0", "a_int=2147483647", "a-int=5",
        "a_int=-2147483648", "a_byte=255", "a_short=-32768", "a_uint=4294967295", "a_ullong=18446744073709551615",
        "a_bool", "a_bool=1", "a_bool=N", "a_bool=on", "a_bool=yes", "a_charp=", "a_charp=x", "list=1,2,x", "list",
        "described=x", "described", "own", "own=x", 'a_int="5"', "dyndbg=+p", "async_probe", "dyndbg",
    ],
)  # fmt: skip
def test_parameters_that_the_kmod_takes(word: str) -> None:
    assert told(word) == []


@pytest.mark.parametrize(
    "word",
    [
        "a_int=x", "a_int=", "a_int", "a_int=5x", "a_int=08", "a_int=1.5", "a_int=2147483648", "a_int=0x", "a_int=--5",
        "a_byte=256", "a_byte=-1", "a_short=32768", "a_ushort=-1", "a_uint=4294967296", "a_ulong=-1", "a_charp",
        "a_ullong=18446744073709551616", "a_bool=", "a_bool=maybe", "a_bool=2", "a_invbool", "a_hexint=g",
    ],
)  # fmt: skip
def test_values_that_the_kmod_refuses(word: str) -> None:
    assert told(word) == ["kmod-parameter-refused"]


def test_parameters_that_the_kmod_does_not_have() -> None:
    assert told("size=1", "a_int=1", "other") == ["kmod-parameter-unknown"]
    (finding,) = judge_parameters("made.ko", read(Object(modinfo=("license=GPL",))), ["size=1", "other"])
    assert finding.sentence.endswith("ignores them: size, other; it has nothing")
