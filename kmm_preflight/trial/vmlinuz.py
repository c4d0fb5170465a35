"""Kernel file of a trial: the file to boot, and the kernel release that a file names."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from kmm_preflight.kernel_version import looks_like_kernel
from kmm_preflight.model import TargetKernel
from kmm_preflight.trial.programs import MissingTool

# Documentation/arch/x86/boot.rst of the kernel: a signature, and the offset of the version, counted from 0x200.
_SIGNATURE_AT, _VERSION_AT, _SETUP = 0x202, 0x20E, 0x200
_BANNER = re.compile(rb"Linux version (\S{1,64}) \(")
_READ_BYTES = 64 << 20


def find_vmlinuz(files: Iterable[Path], kernel: TargetKernel, own: Callable[[], Path | None]) -> Path | MissingTool:
    """Return the file to boot: the one of --vmlinuz for this kernel, else the kernel's own.

    own returns the vmlinuz of the driver toolkit or the OS image. It is called only if no given file matches.
    """
    chosen = chosen_vmlinuz(files, kernel.version)
    if isinstance(chosen, Path):
        return chosen
    return own() or replace(chosen, remedy=f"{chosen.remedy}{_searched_images(kernel)}")


def _searched_images(kernel: TargetKernel) -> str:
    images = {"driver toolkit": kernel.driver_toolkit, "OS image": kernel.os_image}
    searched = " and the ".join(name for name, image in images.items() if image)
    return f" lib/modules/{kernel.version} of the {searched} has no vmlinuz." if searched else ""


def chosen_vmlinuz(files: Iterable[Path], kernel: str) -> Path | MissingTool:
    """Return the file that names this kernel, else the first that names no kernel."""
    releases = {path: release_of(path) for path in files}
    for release in (kernel, None):
        if file := next((path for path, named in releases.items() if named == release), None):
            return file
    if releases:
        return other_kernel(", ".join(release for release in releases.values() if release), kernel)
    return MissingTool("no vmlinuz", f"Name the vmlinuz of {kernel} with --vmlinuz.")


def other_kernel(got: str, expected: str) -> MissingTool:
    """Return the message that only kernel files of other kernels are available."""
    return MissingTool(f"the vmlinuz is for {got}", f"Name the vmlinuz of {expected} with --vmlinuz.")


def release_of(vmlinuz: Path) -> str | None:
    """Return the kernel release that the file names; None if it names none, such as a compressed file."""
    with vmlinuz.open("rb") as file:
        data = file.read(_READ_BYTES)
    if data[_SIGNATURE_AT : _SIGNATURE_AT + 4] == b"HdrS":
        (at,) = struct.unpack_from("<H", data, _VERSION_AT)
        hit = re.match(rb"\S{1,64}", data[at + _SETUP : at + _SETUP + 64]) if at else None
    else:
        banner = _BANNER.search(data)
        hit = re.match(rb"\S+", banner[1]) if banner else None
    release = hit[0].decode("ascii", "replace") if hit else ""
    return release if looks_like_kernel(release) else None
