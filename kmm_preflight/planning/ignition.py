"""Ignition of a MachineConfig: its units of systemd, and the files that it writes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from kmm_preflight.base.decompression import decompress
from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import BoundExceeded, Malformed

FILE_BYTES = 1 << 20
"""Maximal size of a file that is read."""
_ASSIGNMENT = re.compile(r"\"([A-Za-z_]\w*)=([^\"]*)\"|'([A-Za-z_]\w*)=([^']*)'|([A-Za-z_]\w*)=(\S*)")


def enabled_units(config: Field) -> dict[str, str]:
    """Return the units that are neither masked nor disabled, by name."""
    return {
        unit["name"].text(): unit["contents"].text()
        for unit in config["systemd"]["units"]
        if not unit["mask"].flag() and (not unit["enabled"].given or unit["enabled"].flag())
    }


def unit_environment(unit: str) -> Mapping[str, str]:
    """Return the variables of the Environment= lines of a unit. A later line overrides an earlier one."""
    variables: dict[str, str] = {}
    for line in unit.replace("\\\n", " ").splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.strip() != "Environment":
            continue
        if not value.strip():
            variables.clear()
        for match in _ASSIGNMENT.finditer(value):
            variables[match[1] or match[3] or match[5]] = match[2] or match[4] or match[6] or ""
    return variables


def file_text(config: Field, path: str) -> str | None:
    """Return the text of the file that is written to a path, or None. Raise Malformed, or BoundExceeded."""
    found = [file for file in config["storage"]["files"] if file["path"].text() == path]
    if not found:
        return None
    contents = found[-1]["contents"]
    body = _data(contents["source"])
    if contents["compression"].text() == "gzip":
        body = _plain(body, path)
    if len(body) > FILE_BYTES:
        raise BoundExceeded(f"{path}: the file has more than {FILE_BYTES >> 20} MiB")
    return body.decode(errors="replace")


def _data(source: Field) -> bytes:
    """Return the bytes of a data URL (RFC 2397)."""
    scheme, colon, rest = source.text().partition(":")
    kind, comma, body = rest.partition(",")
    if not colon or scheme.lower() != "data" or not comma:
        raise source.refuse("a data URL, because files from other places are not read")
    if not kind.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(unquote_to_bytes(body), validate=True)
    except binascii.Error as exc:
        raise source.refuse("base64") from exc


def _plain(body: bytes, path: str) -> bytes:
    plain = b""
    for piece in decompress([body], path):
        plain += piece
        if len(plain) > FILE_BYTES:
            raise BoundExceeded(f"{path}: the file has more than {FILE_BYTES >> 20} MiB")
    if not plain:
        raise Malformed(f"{path}: the compressed file is empty")
    return plain
