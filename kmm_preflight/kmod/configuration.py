"""What a kernel was built with: its .config, and the release that its header names."""

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
    """The options that are set, without CONFIG_; strings without their quotes."""

    options: Mapping[str, str]

    def on(self, option: str) -> bool:
        """Whether the option is built in."""
        return self.options.get(option) == "y"


def parse_configuration(text: bytes) -> KernelConfiguration:
    """The options of a .config. Malformed when it sets none; BoundExceeded for more than 4 MiB."""
    if len(text) > CONFIGURATION_BYTES:
        raise BoundExceeded(f".config: {len(text)} bytes, expected at most {CONFIGURATION_BYTES}")
    options = {
        name.decode("ascii", "replace"): value.decode("utf-8", "replace").strip().strip('"')
        for name, value in _LINE.findall(text)
    }
    if "MODULES" not in options:
        raise Malformed(".config: no CONFIG_MODULES, so it is none of a kernel that loads modules")
    return KernelConfiguration(options)


def parse_release(text: bytes) -> str:
    """The release that include/generated/utsrelease.h defines. Malformed when it defines none."""
    found = _RELEASE.search(text[:CONFIGURATION_BYTES])
    if found is None:
        raise Malformed("utsrelease.h: no UTS_RELEASE")
    return found[1].decode("ascii")


def built_in_with_parameters(modinfo: Iterable[str]) -> frozenset[str]:
    """The built-in modules that have a parameter or a version, and so a folder in /sys/module.

    modinfo: the strings of modules.builtin.modinfo, such as `workqueue.parmtype=…`.
    """
    owners = (re.match(r"([\w-]+)\.(?:parm|parmtype|version)=", line) for line in modinfo)
    return frozenset(owner[1].replace("-", "_") for owner in owners if owner)
