"""The dialect of envsubst that KMM applies to containerImage, unsignedImage and filesToSign (not string.Template)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kmm_preflight.errors import Malformed

# Names are letters, digits and underscores of any script, and may begin with a digit. \w++ gives nothing back.
_PIECE = re.compile(r"\$\$|\$(?P<name>\w+)|\$\{(?P<empty>\})?")
_BRACED = re.compile(r"(?P<name>\w++)(?:(?P<op>:?[-=+])(?P<word>[^}\r\n]*)|(?!:\})[^}\r\n]*)\}")
_OTHER = re.compile(r"\$(\w*)")
_FIELDS = re.compile(r"[.,-]")
_NOT_IN_A_TAG = re.compile(r"[^A-Za-z0-9._-]")


def normalized(kernel: str) -> str:
    """The kernel as templates see it since KMM 2.1: what cannot stand in a tag (+rt) becomes an underscore."""
    return _NOT_IN_A_TAG.sub("_", kernel)


def kernel_fields(kernel: str) -> list[str]:
    """The kernel split as KMM splits it; Malformed when there are fewer than the three of KERNEL_XYZ."""
    fields = _FIELDS.split(kernel)
    if not kernel or len(fields) < 3:
        problem = f"kernel version: got {kernel!r}, expected at least three fields such as 5.14.0-570.el9.x86_64"
        raise Malformed(problem)
    return fields


def kernel_variables(kernel: str) -> dict[str, str]:
    """KERNEL_FULL_VERSION, KERNEL_VERSION, KERNEL_XYZ, KERNEL_X, KERNEL_Y and KERNEL_Z of a kernel."""
    whole = normalized(kernel)
    x, y, z = kernel_fields(whole)[:3]
    return {
        "KERNEL_FULL_VERSION": whole,
        "KERNEL_VERSION": whole,
        "KERNEL_XYZ": f"{x}.{y}.{z}",
        "KERNEL_X": x,
        "KERNEL_Y": y,
        "KERNEL_Z": z,
    }


def image_variables(kernel: str, namespace: str, name: str) -> dict[str, str]:
    """The variables of containerImage: those of the kernel, MOD_NAME and MOD_NAMESPACE."""
    return kernel_variables(kernel) | {"MOD_NAME": name, "MOD_NAMESPACE": namespace}


def substitute(template: str, variables: Mapping[str, str]) -> str:
    """The template with its variables replaced; an unknown one becomes nothing.

    $V, ${V}, ${V:-d}, ${V:=d} (d if empty or unset), ${V-d}, ${V=d} (d if unset), ${V+a}, ${V:+a} (a if set); d and a
    may be $OTHER; $$ is $; a lonely $, $_ and ${} stay. What else stands behind a name in braces is passed over.
    Malformed for a brace without an end or a name.
    """
    out, position = [], 0
    while hit := _PIECE.search(template, position):
        out.append(template[position : hit.start()])
        position = hit.end()
        if hit[0] == "$$":
            out.append("$")
        elif hit["name"] == "_" or hit["empty"]:
            out.append(hit[0])
        elif hit["name"]:
            out.append(variables.get(hit["name"], ""))
        else:
            braced = _BRACED.match(template, position)
            if not braced:
                raise Malformed(f"template {template!r}: got a ${{ without an end or a name, expected a closing brace")
            out.append(_braced(braced, variables))
            position = braced.end()
    return "".join([*out, template[position:]])


def _braced(hit: re.Match[str], variables: Mapping[str, str]) -> str:
    value = variables.get(hit["name"])
    if not hit["word"]:  # an operator without a word is none
        return value or ""
    word = _word(hit["word"], variables)
    match hit["op"]:
        case "+" | ":+":
            return "" if value is None else word
        case "-" | "=":
            return word if value is None else value
        case _:
            return value or word


def _word(text: str, variables: Mapping[str, str]) -> str:
    """What a default stands for: of several $OTHER the last, but text behind them takes their place as it is."""
    value = text
    while hit := _OTHER.match(text):
        value, text = variables.get(hit[1], ""), text[hit.end() :]
    return text or value
