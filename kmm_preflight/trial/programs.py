"""The programs in the virtual machine: a shell, mount and kmod's modprobe, with what they are linked to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.machine import MACHINES, machine_word
from kmm_preflight.trial.initramfs import Entry, File, Link
from kmm_preflight.trial.linked import LinkedProgram, read_linked

Root = Callable[[str], Path | None]
"""The file behind an absolute path of a root file system, links followed; None where there is none."""

LIBRARIES = "lib/preflight"
"""Where libraries are in the virtual machine."""
FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
_PACKAGES = {"sh": "dash or bash", "mount": "util-linux", "modprobe": "kmod"}
_TRIPLETS = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "powerpc64le", "s390x": "s390x"}
# Newer builds of kmod open these at need, and name them nowhere but in their text.
_OPENED = ("libzstd.so.1", "liblzma.so.5", "libz.so.1", "libcrypto.so.3")
_KMOD = b"kmod version"
_PROGRAM_BYTES = 64 << 20
_LIBRARIES_MOST = 64


@dataclass(frozen=True)
class MissingTool:
    """What a trial load needs and does not have here, and how that is mended: a noun, and a sentence."""

    what: str
    remedy: str


def own_root(path: str) -> Path | None:
    """The file system of the machine that the suite runs on."""
    try:
        found = Path(path).resolve()
        return found if found.is_file() else None
    except (OSError, RuntimeError):  # a circle of links
        return None


def own_programs(arch: str, path: str) -> dict[str, Entry] | MissingTool:
    """Gather the programs of this machine, from the usual folders and from those of a PATH."""
    return programs(arch, own_root, [*FOLDERS, *(folder for folder in path.split(os.pathsep) if folder)])


def programs(arch: str, root: Root, folders: Sequence[str] = FOLDERS) -> dict[str, Entry] | MissingTool:
    """The entries of an initramfs with sh, mount, modprobe, insmod and rmmod in bin/; or what is missing.

    folders are those in which programs are looked for. Nothing is run: what a program is linked to is read from it.
    """
    entries: dict[str, Entry] = {}
    gathering = _Gathering(arch, root)
    for name, package in _PACKAGES.items():
        remedy = f"Install {package} for {arch} on the machine that runs the suite."
        path = next((found for folder in folders if (found := root(f"{folder}/{name}"))), None)
        if path is None:
            return MissingTool(f"no {name} in {', '.join(folders)}", remedy)
        try:
            data = _read(path)
            if name == "modprobe" and _KMOD not in data:
                return MissingTool(f"{path} is not kmod's modprobe", remedy)
            gathering.add(data, path.parent)
        except Malformed as exc:
            return MissingTool(f"no {name} for {arch} here ({path}: {exc.message})", remedy)
        entries[f"bin/{name}"] = File(path)
    tools = {f"bin/{name}": Link("modprobe") for name in ("insmod", "rmmod")}  # kmod looks by which name it is called
    return {**entries, **tools, **gathering.entries}


class _Gathering:
    """Interpreters and libraries of several programs, each once."""

    def __init__(self, arch: str, root: Root) -> None:
        self._arch, self._root = arch, root
        self.entries: dict[str, Entry] = {}

    def add(self, data: bytes, origin: Path) -> None:
        """Adds what the program in data needs, and what that needs. Malformed for another architecture, or a gap."""
        waiting = [(data, origin)]
        while waiting:
            data, origin = waiting.pop()
            linked = self._linked(data)
            if linked.interpreter:
                self._keep(linked.interpreter.lstrip("/"), self._root(linked.interpreter), linked.interpreter)
            for name in (*linked.libraries, *(one for one in _OPENED if one.encode() in data)):
                place = f"{LIBRARIES}/{name}"
                if place in self.entries:
                    continue
                found = next(
                    (path for one in self._places(linked, origin) if (path := self._root(f"{one}/{name}"))), None
                )
                if found is None and name not in linked.libraries:
                    continue
                self._keep(place, found, name)
                assert found is not None
                waiting.append((_read(found), found.parent))

    def _keep(self, place: str, found: Path | None, name: str) -> None:
        if found is None:
            raise Malformed(f"it needs {name}, which is not there")
        if len(self.entries) >= _LIBRARIES_MOST:
            raise Malformed(f"it needs more than {_LIBRARIES_MOST} libraries")
        self.entries[place] = File(found)

    def _linked(self, data: bytes) -> LinkedProgram:
        linked, machine = read_linked(data), MACHINES[self._arch]
        if linked.machine not in machine.numbers or linked.order != machine.order:
            raise Malformed(f"it is for {machine_word(data)}")
        return linked

    def _places(self, linked: LinkedProgram, origin: Path) -> Iterator[str]:
        """Where the dynamic linker of the usual distributions looks, its cache left out."""
        for folder in linked.search:
            yield folder.replace("${ORIGIN}", str(origin)).replace("$ORIGIN", str(origin))
        triplet = f"{_TRIPLETS[self._arch]}-linux-gnu"
        for top in ("", "/usr"):
            yield from (f"{top}/lib64", f"{top}/lib/{triplet}", f"{top}/lib")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_PROGRAM_BYTES + 1)
    except OSError as exc:
        raise Malformed(f"it cannot be read ({exc.strerror})") from exc
    if len(data) > _PROGRAM_BYTES:
        raise Malformed("it is larger than any program of that kind")
    return data
