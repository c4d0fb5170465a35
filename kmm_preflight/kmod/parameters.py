"""Parameters of a kmod: those that it has, and values that its own parser refuses (docs/reference/loader.md 1.7)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from kmm_preflight.kmod import findings
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.model import Finding
from kmm_preflight.text import listed

# The kernel takes these for every kmod.
_OF_EVERY_KMOD = frozenset(("dyndbg", "async_probe"))
# Ranges of the standard types, as the number of bits; negative for types with a sign.
_BITS = {
    "byte": 8,
    "short": -16,
    "ushort": 16,
    "int": -32,
    "uint": 32,
    "hexint": 32,
    "long": -64,
    "ulong": 64,
    "ullong": 64,
}
_NUMBER = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_BOOLEAN = re.compile(r"[yYnN01tTfF]|[oO][nNfF]")
_NEED_VALUE = (*_BITS, "charp", "invbool")
_LISTED = 10


def judge_parameters(name: str, kmod: KernelObject, words: Iterable[str]) -> Iterator[Finding]:
    """Yield findings for parameters that the kmod does not have, and for values that it refuses.

    name: the kmod's name in findings. words: parameters as modprobe passes them to the kernel.
    """
    types = _types(kmod)
    given = [(word, *word.partition("=")) for word in words]
    unknown = [of for _, of, *_ in given if _key(of) not in types and _key(of) not in _OF_EVERY_KMOD]
    if unknown:
        known = listed(sorted(types), most=_LISTED)
        yield findings.KMOD_PARAMETER_UNKNOWN(kmod=name, parameters=listed(unknown), known=known)
    for word, of, equals, value in given:
        kind = types.get(_key(of))
        if kind and (problem := _problem(kind, value if equals else None)):
            yield findings.KMOD_PARAMETER_REFUSED(kmod=name, parameter=word, got=problem)


def _types(kmod: KernelObject) -> Mapping[str, str]:
    """Map the names of the kmod's parameters to their types. A type that modinfo does not state is empty."""
    names = {_key(text.partition(":")[0]): "" for text in kmod.modinfo.all("parm")}
    pairs = (text.partition(":") for text in kmod.modinfo.all("parmtype"))
    return names | {_key(name): kind for name, _, kind in pairs}


def _key(name: str) -> str:
    return name.replace("-", "_")


def _problem(kind: str, value: str | None) -> str | None:
    """Return words for a value that the standard parser of the type refuses. Other types accept any value here."""
    if value is None:
        return "the parameter needs a value" if kind in _NEED_VALUE else None
    if '"' in value or " " in value:
        return None  # modprobe and the kernel treat quotes and blanks in ways of their own
    if kind in _BITS:
        return None if _fits(value, _BITS[kind]) else f"{value or 'an empty text'} is not a number of type {kind}"
    if kind == "bool":
        return None if _BOOLEAN.match(value) else f"{value or 'an empty text'} is not a value of type bool"
    return None


def _fits(value: str, bits: int) -> bool:
    match = _NUMBER.fullmatch(value)
    if not match:
        return False
    sign, digits = match[1], match[2].lower()
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
    number = int(digits, base) * (-1 if sign == "-" else 1)
    if bits > 0:
        return sign != "-" and number < 1 << bits
    return -(1 << (-bits - 1)) <= number < 1 << (-bits - 1)
