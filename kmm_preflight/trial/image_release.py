"""Of which kernel a vmlinuz is, as far as the file says it in plain."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from kmm_preflight.kernel_version import looks_like_kernel

# The kernel's own Documentation/arch/x86/boot.rst: a signature, and where the version stands, counted from 0x200 on.
_SIGNATURE_AT, _VERSION_AT, _SETUP = 0x202, 0x20E, 0x200
_BANNER = re.compile(rb"Linux version (\S{1,64}) \(")
_READ_BYTES = 64 << 20


def release_of(vmlinuz: Path) -> str:
    """The release; "" where the file does not tell it, as when all of it is compressed."""
    with vmlinuz.open("rb") as file:
        data = file.read(_READ_BYTES)
    if data[_SIGNATURE_AT : _SIGNATURE_AT + 4] == b"HdrS":
        (at,) = struct.unpack_from("<H", data, _VERSION_AT)
        found = re.match(rb"\S{1,64}", data[at + _SETUP : at + _SETUP + 64]) if at else None
    else:
        banner = _BANNER.search(data)
        found = re.match(rb"\S+", banner[1]) if banner else None
    release = found[0].decode("ascii", "replace") if found else ""
    return release if looks_like_kernel(release) else ""
