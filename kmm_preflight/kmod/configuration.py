"""Build configuration of a kernel: its .config, and the release in its header."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kmm_preflight.errors import BoundExceeded, Malformed

CONFIGURATION_BYTES = 4 << 20
_LINE = re.compile(rb"^CONFIG_(\w+)=(.*)$", re.MULTILINE)
_RELEASE = re.compile(rb'^#define[ \t]+UTS_RELEASE[ \t]+"([\x21-\x7e]{1,64})"', re.MULTILINE)


@dataclass(frozen=True)
class KernelConfiguration:
    """Options of a kernel build."""

    options: Mapping[str, str]
    """Values of the options that are set, by name without CONFIG_. Strings have no quotes."""

    def on(self, option: str) -> bool:
        """True if the option is built in."""
        return self.options.get(option) == "y"


def parse_configuration(text: bytes) -> KernelConfiguration:
    """Return the options of a .config.

    Raise Malformed if the kernel cannot load modules, and BoundExceeded if the text has more than 4 MiB.
    """
    if len(text) > CONFIGURATION_BYTES:
        raise BoundExceeded(f".config: {len(text)} bytes, expected at most {CONFIGURATION_BYTES}")
    options = {
        name.decode("ascii", "replace"): value.decode("utf-8", "replace").strip().strip('"')
        for name, value in _LINE.findall(text)
    }
    if "MODULES" not in options:
        raise Malformed(".config: no CONFIG_MODULES, which every kernel that loads modules sets")
    return KernelConfiguration(options)


def parse_release(text: bytes) -> str:
    """Return the release that include/generated/utsrelease.h defines. Raise Malformed if it defines none."""
    release = _RELEASE.search(text[:CONFIGURATION_BYTES])
    if release is None:
        raise Malformed("utsrelease.h: no UTS_RELEASE")
    return release[1].decode("ascii")


def built_in_with_parameters(modinfo: Iterable[str]) -> frozenset[str]:
    """Return the built-in modules that have a parameter or a version, and so a folder in /sys/module.

    modinfo: lines of modules.builtin.modinfo, such as `workqueue.parmtype=…`.
    """
    owners = (re.match(r"([\w-]+)\.(?:parm|parmtype|version)=", line) for line in modinfo)
    return frozenset(owner[1].replace("-", "_") for owner in owners if owner)
