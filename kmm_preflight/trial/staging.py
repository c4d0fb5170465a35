"""What one trial finds in the virtual machine: the image's folder as the node has it, softdeps, in-tree kmods."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from kmm_preflight.base.decompression import GZIP, XZ, ZSTD
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.index import IndexLine, ModuleIndex, in_folder
from kmm_preflight.kmod.lookup import INDEX
from kmm_preflight.kmod.names import is_kmod_file, module_key, wanted_key
from kmm_preflight.kmod.packed import unpacked
from kmm_preflight.trial.initramfs import Entry, File, Folder, Link, check_paths
from kmm_preflight.trial.programs import MissingTool
from kmm_preflight.trial.script import Step
from kmm_preflight.worker.indexes import ALIASES, SYMBOLS

InTree = Callable[[str], Path | None]
"""The file of an in-tree kmod by its path below lib/modules/<kernel>, such as kernel/drivers/md/dm-mod.ko.xz."""

_LINKS_MOST = 40
_NAME = re.compile(r"[\w.\[\]-]{1,255}")
_OWN = "Look at the folder in the image, and load the kmod on a node of the new kernel by hand."


@dataclass(frozen=True)
class Trial:
    """One call of modprobe as KMM's worker makes it: `modprobe -vd /tmp/DIRECTORY OPTIONS KMOD PARAMETERS`.

    name tells trials apart. tree is the folder <directory>/lib/modules/<kernel> of the image, by paths from the image's
    root without a slash; links are as they stand. order is the Module's modulesLoadingOrder. loaded names in-tree files
    that nodes have loaded already, in that order; dependencies that the kernel's own modules.dep.bin tells come before.
    """

    name: str
    kmod: str
    directory: str
    tree: Mapping[str, Entry]
    options: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where the worker has the image's directory."""
        return posixpath.normpath(f"/tmp/{posixpath.normpath(f'/{self.directory}').lstrip('/')}")


@dataclass(frozen=True)
class StagedTrial:
    """The entries of a trial, and the step that tries it."""

    entries: Mapping[str, Entry]
    step: Step


def lay_out(trial: Trial, number: int, kernel: str, in_tree: InTree, scratch: Path) -> StagedTrial | MissingTool:
    """The trial as entries of the initramfs below trials/NUMBER, in-tree kmods at /lib/modules; or why it cannot be.

    What is compressed is unpacked in scratch, since this machine's modprobe may not know how: the kernel gets the same.
    """
    home = f"trials/{number}"
    if strange := [name for name in (trial.kmod, *trial.order) if not _NAME.fullmatch(name)]:
        return MissingTool(f"{strange[0]!r} is not a valid name of a kmod", _OWN)
    try:
        check_paths(trial.tree)
    except Malformed as exc:
        return MissingTool(exc.message, _OWN)
    tree = {f"tmp/{path}": entry for path, entry in trial.tree.items()}
    loaded = _with_dependencies(trial.loaded, in_tree)
    needed = sorted({*_in_tree_paths(trial, kernel, tree), *loaded})
    found = {path: in_tree(path) for path in needed}
    if missing := [path for path, file in found.items() if file is None]:
        remedy = f"Name a driver toolkit or a kernel package that has the in-tree kmods of {kernel}."
        return MissingTool(f"no in-tree kmod {missing[0]}", remedy)
    entries: dict[str, Entry] = {f"{home}/tmp": Folder(), f"{home}/modprobe.d": Folder()}
    entries |= {f"{home}/{path}": entry for path, entry in tree.items()}
    entries |= {f"lib/modules/{kernel}/{path}": File(file) for path, file in found.items() if file}
    if softdeps := _softdeps(trial.order):
        entries[f"{home}/modprobe.d/softdep.conf"] = File(softdeps.encode())
    arguments = ("-d", trial.place, *trial.options, trial.kmod, *trial.parameters)
    before = tuple(f"/lib/modules/{kernel}/{path}" for path in loaded)
    try:
        plain = {path: _plain(path, entry, scratch) for path, entry in entries.items()}
    except (Malformed, BoundExceeded) as exc:
        return MissingTool(exc.message, _OWN)
    if any("\0" in word for word in arguments):
        return MissingTool("an argument of modprobe contains a NUL", _OWN)
    return StagedTrial(plain, Step(number, f"/{home}", arguments, before))


def _with_dependencies(paths: tuple[str, ...], in_tree: InTree) -> tuple[str, ...]:
    """In-tree files, each behind those that the kernel's own index loads before it; without one as they are given."""
    file = in_tree(INDEX) if paths else None
    if file is None:
        return paths
    try:
        index = ModuleIndex(file.read_bytes())
        lines = {path: index.find(module_key(path.rpartition("/")[2])) for path in paths}
    except (Malformed, BoundExceeded):
        return paths
    return tuple(dict.fromkeys(one for path, line in lines.items() for one in (*(line.before if line else ()), path)))


def _softdeps(order: tuple[str, ...]) -> str:
    """modulesLoadingOrder [a, b, c] as KMM writes it: a after b, b after c (docs/reference/kmm.md 11)."""
    return "".join(f"softdep {name} pre: {before}\n" for name, before in pairwise(order))


def _in_tree_paths(trial: Trial, kernel: str, tree: Mapping[str, Entry]) -> Iterator[str]:
    """Files of the node's own /lib/modules to which lines of the image's index lead, by a link such as host."""
    folder = f"{trial.place}/lib/modules/{kernel}"
    home = f"lib/modules/{kernel}/"
    try:
        index = ModuleIndex(_bytes(tree, folder, INDEX))
        for name in dict.fromkeys((trial.kmod, *trial.order)):
            for line in _lines(index, tree, folder, name):
                for path in (*line.before, *([line.path] if line.path else [])):
                    if (led := _led(tree, in_folder(folder, path))).startswith(home):
                        yield led.removeprefix(home)
    except (Malformed, BoundExceeded):
        return  # modprobe will say so itself


def _lines(index: ModuleIndex, tree: Mapping[str, Entry], folder: str, name: str) -> Iterator[IndexLine]:
    """The line of a kmod, or those of the kmods that an alias stands for."""
    if line := index.find(name):
        yield line
        return
    for other in (ALIASES, SYMBOLS):
        with suppress(Malformed):
            for module in ModuleIndex(_bytes(tree, folder, other)).matching(wanted_key(name)):
                if line := index.find(module):
                    yield line


def _bytes(tree: Mapping[str, Entry], folder: str, name: str) -> bytes:
    match tree.get(f"{folder.lstrip('/')}/{name}"):
        case File(content=bytes(content)):
            return content
        case File(content=Path() as path):
            return path.read_bytes()
    return b""


def _led(tree: Mapping[str, Entry], path: str) -> str:
    """Where a path leads over the links of the tree, from the root and without a slash; "" for a circle."""
    at, left, links = list[str](), path.split("/"), 0
    while left:
        part = left.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            at = at[:-1]
            continue
        entry = tree.get("/".join([*at, part]))
        if not isinstance(entry, Link):
            at.append(part)
            continue
        links += 1
        if links > _LINKS_MOST:
            return ""
        at = [] if entry.target.startswith("/") else at
        left = [*entry.target.split("/"), *left]
    return "/".join(at)


def _plain(path: str, entry: Entry, scratch: Path) -> Entry:
    if not isinstance(entry, File) or not is_kmod_file(path) or not _head(entry).startswith((GZIP, XZ, ZSTD)):
        return entry
    place = scratch / f"{len(list(scratch.iterdir()))}"
    if isinstance(entry.content, bytes):
        packed = place.with_suffix(".packed")
        packed.write_bytes(entry.content)
    else:
        packed = entry.content
    try:
        with unpacked(packed) as data:
            place.write_bytes(data)
    except Malformed:
        return entry  # modprobe will say so itself
    return File(place)


def _head(entry: File) -> bytes:
    if isinstance(entry.content, bytes):
        return entry.content[:8]
    with entry.content.open("rb") as file:
        return file.read(8)
