"""Programs for the virtual machine: a shell, mount and kmod's modprobe, with their libraries."""

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
"""Returns the file of an absolute path in a root file system, with links followed, or None."""

LIBRARIES = "lib/preflight"
"""Folder of libraries in the virtual machine."""
FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
_PACKAGES = {"sh": "dash or bash", "mount": "util-linux", "modprobe": "kmod"}
_TRIPLETS = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "powerpc64le", "s390x": "s390x"}
# Newer builds of kmod open these libraries when they need them. Only strings in the program name them.
_OPENED = ("libzstd.so.1", "liblzma.so.5", "libz.so.1", "libcrypto.so.3")
_KMOD = b"kmod version"
_PROGRAM_BYTES = 64 << 20
_LIBRARIES_MOST = 64


@dataclass(frozen=True)
class MissingTool:
    """Something that a trial load needs and that this machine or the image does not have."""

    what: str
    """Description, such as "no modprobe"."""
    remedy: str
    """Sentence that says how to get it."""


def own_root(path: str) -> Path | None:
    """Return a file of this machine."""
    try:
        resolved = Path(path).resolve()
        return resolved if resolved.is_file() else None
    except (OSError, RuntimeError):  # a loop of links
        return None


def own_programs(arch: str, path: str) -> dict[str, Entry] | MissingTool:
    """Gather the programs of this machine, from the usual folders and from those of a PATH."""
    return programs(arch, own_root, [*FOLDERS, *(folder for folder in path.split(os.pathsep) if folder)])


def programs(arch: str, root: Root, folders: Sequence[str] = FOLDERS) -> dict[str, Entry] | MissingTool:
    """Return the initramfs entries of sh, mount, modprobe, insmod and rmmod in bin/, or what is missing.

    Search programs in folders. Run nothing: read the libraries of a program from its file.
    """
    entries: dict[str, Entry] = {}
    libraries = _LibraryCollector(arch, root)
    for name, package in _PACKAGES.items():
        remedy = f"Install {package} for {arch} on the machine that runs the suite."
        path = next((file for folder in folders if (file := root(f"{folder}/{name}"))), None)
        if path is None:
            return MissingTool(f"no {name} in {', '.join(folders)}", remedy)
        try:
            data = _read(path)
            if name == "modprobe" and _KMOD not in data:
                return MissingTool(f"{path} is not kmod's modprobe", remedy)
            libraries.add(data, path.parent)
        except Malformed as exc:
            return MissingTool(f"no {name} for {arch} here ({path}: {exc.message})", remedy)
        entries[f"bin/{name}"] = File(path)
    tools = {f"bin/{name}": Link("modprobe") for name in ("insmod", "rmmod")}  # kmod acts by the name it is called with
    return {**entries, **tools, **libraries.entries}


class _LibraryCollector:
    """Collects interpreters and libraries of several programs, each once."""

    def __init__(self, arch: str, root: Root) -> None:
        self._arch, self._root = arch, root
        self.entries: dict[str, Entry] = {}

    def add(self, data: bytes, origin: Path) -> None:
        """Add the libraries of a program, and their libraries. Raise Malformed for a missing or foreign one."""
        waiting = [(data, origin)]
        while waiting:
            data, origin = waiting.pop()
            linked = self._linked(data)
            if linked.interpreter:
                self._keep(linked.interpreter.lstrip("/"), self._root(linked.interpreter), linked.interpreter)
            for name in (*linked.libraries, *(opened for opened in _OPENED if opened.encode() in data)):
                target = f"{LIBRARIES}/{name}"
                if target in self.entries:
                    continue
                files = (self._root(f"{folder}/{name}") for folder in self._search_folders(linked, origin))
                library = next((file for file in files if file), None)
                if library is None and name not in linked.libraries:
                    continue
                self._keep(target, library, name)
                assert library is not None
                waiting.append((_read(library), library.parent))

    def _keep(self, target: str, file: Path | None, name: str) -> None:
        if file is None:
            raise Malformed(f"it needs {name}, which this machine does not have")
        if len(self.entries) >= _LIBRARIES_MOST:
            raise Malformed(f"it needs more than {_LIBRARIES_MOST} libraries")
        self.entries[target] = File(file)

    def _linked(self, data: bytes) -> LinkedProgram:
        linked, machine = read_linked(data), MACHINES[self._arch]
        if linked.machine not in machine.numbers or linked.order != machine.order:
            raise Malformed(f"it is for {machine_word(data)}")
        return linked

    def _search_folders(self, linked: LinkedProgram, origin: Path) -> Iterator[str]:
        """Yield the folders that the dynamic linker of usual distributions searches. Ignore its cache."""
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
        raise Malformed(f"it has more than {_PROGRAM_BYTES >> 20} MiB")
    return data
