"""Variables in containerImage, unsignedImage and filesToSign: KMM's dialect of envsubst, not string.Template."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kmm_preflight.errors import Malformed

# A name has letters, digits and underscores of any script, and may begin with a digit. \w++ does not backtrack.
_PIECE = re.compile(r"\$\$|\$(?P<name>\w+)|\$\{(?P<empty>\})?")
_BRACED = re.compile(r"(?P<name>\w++)(?:(?P<op>:?[-=+])(?P<word>[^}\r\n]*)|(?!:\})[^}\r\n]*)\}")
_OTHER = re.compile(r"\$(\w*)")
_FIELDS = re.compile(r"[.,-]")
_NOT_IN_A_TAG = re.compile(r"[^A-Za-z0-9._-]")


def normalized(kernel: str) -> str:
    """Return the kernel for a tag (KMM 2.1 or later): each character that a tag cannot have becomes an underscore."""
    return _NOT_IN_A_TAG.sub("_", kernel)


def kernel_fields(kernel: str) -> list[str]:
    """Split the kernel as KMM does. Raise Malformed for fewer than the three fields of KERNEL_XYZ."""
    fields = _FIELDS.split(kernel)
    if not kernel or len(fields) < 3:
        problem = f"kernel version: got {kernel!r}, expected at least three fields such as 5.14.0-570.el9.x86_64"
        raise Malformed(problem)
    return fields


def kernel_variables(kernel: str) -> dict[str, str]:
    """Return KERNEL_FULL_VERSION, KERNEL_VERSION, KERNEL_XYZ, KERNEL_X, KERNEL_Y and KERNEL_Z of a kernel."""
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
    """Return the variables of containerImage: the kernel's, MOD_NAME and MOD_NAMESPACE."""
    return kernel_variables(kernel) | {"MOD_NAME": name, "MOD_NAMESPACE": namespace}


def substitute(template: str, variables: Mapping[str, str]) -> str:
    """Return the template with its variables replaced. An unknown variable becomes empty.

    - $V and ${V}: the value.
    - ${V:-d} and ${V:=d}: the value, or d if the value is empty or unset.
    - ${V-d} and ${V=d}: the value, or d if the value is unset.
    - ${V+a} and ${V:+a}: a if the variable is set.
    - d and a may be $OTHER.
    - $$ becomes $. A $ alone, $_ and ${} do not change.
    - Other text after a name in braces is ignored.

    Raise Malformed for an opening brace without a name or a closing brace.
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
                raise Malformed(f"template {template!r}: a ${{ has no name or no closing brace")
            out.append(_braced(braced, variables))
            position = braced.end()
    return "".join([*out, template[position:]])


def _braced(hit: re.Match[str], variables: Mapping[str, str]) -> str:
    value = variables.get(hit["name"])
    if not hit["word"]:  # an operator without a word has no effect
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
    """Return the value of a default: the last $OTHER, or the text after the last $OTHER."""
    value = text
    while hit := _OTHER.match(text):
        value, text = variables.get(hit[1], ""), text[hit.end() :]
    return text or value
