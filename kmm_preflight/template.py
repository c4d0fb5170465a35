"""The dialect of envsubst that KMM applies to containerImage, unsignedImage and filesToSign (not string.Template)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kmm_preflight.errors import Malformed

_PIECE = re.compile(r"\$\$|\$(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\$\{", re.ASCII)
_BRACED = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<op>:?[-=+])(?P<rest>[^}\n]*))?\}", re.ASCII)
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
    may be $OTHER; $$ is $; a lonely $ stays. Malformed for a brace without an end.
    """
    out, position = [], 0
    while hit := _PIECE.search(template, position):
        out.append(template[position : hit.start()])
        position = hit.end()
        if hit[0] == "$$":
            out.append("$")
        elif hit["name"] == "_":
            out.append("$_")
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
    value, op = variables.get(hit["name"]), hit["op"] or ""
    instead = hit["rest"] or ""
    if instead.startswith("$"):
        instead = variables.get(instead[1:], "")
    if "+" in op:
        return instead if value is not None else ""
    if op:
        missing = not value if op.startswith(":") else value is None
        return instead if missing else value or ""
    return value or ""
