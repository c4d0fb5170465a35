"""Files of one trial in the virtual machine: the image's folder as on the node, softdeps, in-tree kmods."""

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
"""Returns the file of an in-tree kmod by its path below lib/modules/<kernel>, such as kernel/fs/fat/fat.ko.xz."""

_LINKS_MOST = 40
_NAME = re.compile(r"[\w.\[\]-]{1,255}")
_REMEDY = "Look at the folder in the image, and load the kmod on a node of the new kernel by hand."


@dataclass(frozen=True)
class Trial:
    """Modprobe call of KMM's worker: `modprobe -vd /tmp/DIRECTORY OPTIONS KMOD PARAMETERS`."""

    name: str
    """Name of the trial; each trial has another one."""
    kmod: str
    """Name of the kmod."""
    directory: str
    """modprobe.dirName."""
    tree: Mapping[str, Entry]
    """Folder <directory>/lib/modules/<kernel> of the image, by path from the image's root, without the first slash."""
    options: tuple[str, ...] = ()
    """Options of modprobe."""
    parameters: tuple[str, ...] = ()
    """Parameters of the kmod."""
    order: tuple[str, ...] = ()
    """modulesLoadingOrder of the Module."""
    loaded: tuple[str, ...] = ()
    """Paths of in-tree kmods that nodes have loaded already, in order. Their dependencies are added."""

    @property
    def node_directory(self) -> str:
        """Path of the image's directory on the node."""
        return posixpath.normpath(f"/tmp/{posixpath.normpath(f'/{self.directory}').lstrip('/')}")


@dataclass(frozen=True)
class StagedTrial:
    """Parts of a trial for a boot."""

    entries: Mapping[str, Entry]
    """Entries for the initramfs."""
    step: Step
    """Step of the init script."""


def stage_trial(trial: Trial, number: int, kernel: str, in_tree: InTree, scratch: Path) -> StagedTrial | MissingTool:
    """Return the trial's files below trials/NUMBER, and in-tree kmods below lib/modules; or what is missing.

    Unpack compressed kmods in scratch: this machine's modprobe may not support the compression.
    """
    own_folder = f"trials/{number}"
    if invalid := [name for name in (trial.kmod, *trial.order) if not _NAME.fullmatch(name)]:
        return MissingTool(f"{invalid[0]!r} is not a valid name of a kmod", _REMEDY)
    try:
        check_paths(trial.tree)
    except Malformed as exc:
        return MissingTool(exc.message, _REMEDY)
    tree = {f"tmp/{path}": entry for path, entry in trial.tree.items()}
    loaded = _with_dependencies(trial.loaded, in_tree)
    needed = sorted({*_in_tree_paths(trial, kernel, tree), *loaded})
    files = {path: in_tree(path) for path in needed}
    if missing := [path for path, file in files.items() if file is None]:
        remedy = f"Name a driver toolkit or a kernel package that has the in-tree kmods of {kernel}."
        return MissingTool(f"no in-tree kmod {missing[0]}", remedy)
    entries: dict[str, Entry] = {f"{own_folder}/tmp": Folder(), f"{own_folder}/modprobe.d": Folder()}
    entries |= {f"{own_folder}/{path}": entry for path, entry in tree.items()}
    entries |= {f"lib/modules/{kernel}/{path}": File(file) for path, file in files.items() if file}
    if softdeps := _softdeps(trial.order):
        entries[f"{own_folder}/modprobe.d/softdep.conf"] = File(softdeps.encode())
    arguments = ("-d", trial.node_directory, *trial.options, trial.kmod, *trial.parameters)
    before = tuple(f"/lib/modules/{kernel}/{path}" for path in loaded)
    try:
        unpacked_entries = {path: _unpacked(path, entry, scratch) for path, entry in entries.items()}
    except (Malformed, BoundExceeded) as exc:
        return MissingTool(exc.message, _REMEDY)
    if any("\0" in word for word in arguments):
        return MissingTool("an argument of modprobe contains a NUL", _REMEDY)
    return StagedTrial(unpacked_entries, Step(number, f"/{own_folder}", arguments, before))


def _with_dependencies(paths: tuple[str, ...], in_tree: InTree) -> tuple[str, ...]:
    """Return in-tree files, each after its dependencies in the kernel's index. Without an index, add none."""
    file = in_tree(INDEX) if paths else None
    if file is None:
        return paths
    try:
        index = ModuleIndex(file.read_bytes())
        lines = {path: index.find(module_key(path.rpartition("/")[2])) for path in paths}
    except (Malformed, BoundExceeded):
        return paths
    ordered = (file for path, line in lines.items() for file in (*(line.before if line else ()), path))
    return tuple(dict.fromkeys(ordered))


def _softdeps(order: tuple[str, ...]) -> str:
    """Return KMM's softdep file of modulesLoadingOrder [a, b, c]: a after b, b after c (docs/reference/kmm.md 11)."""
    return "".join(f"softdep {name} pre: {before}\n" for name, before in pairwise(order))


def _in_tree_paths(trial: Trial, kernel: str, tree: Mapping[str, Entry]) -> Iterator[str]:
    """Yield files of the node's /lib/modules that the image's index reaches through a link, such as `host`."""
    folder = f"{trial.node_directory}/lib/modules/{kernel}"
    node_folder = f"lib/modules/{kernel}/"
    try:
        index = ModuleIndex(_bytes(tree, folder, INDEX))
        for name in dict.fromkeys((trial.kmod, *trial.order)):
            for line in _lines(index, tree, folder, name):
                for path in (*line.before, *([line.path] if line.path else [])):
                    target = _resolved(tree, in_folder(folder, path))
                    if target and target.startswith(node_folder):
                        yield target.removeprefix(node_folder)
    except (Malformed, BoundExceeded):
        return  # modprobe itself will report the damaged index


def _lines(index: ModuleIndex, tree: Mapping[str, Entry], folder: str, name: str) -> Iterator[IndexLine]:
    """Yield the line of a kmod, or the lines of the kmods that have this alias."""
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


def _resolved(tree: Mapping[str, Entry], path: str) -> str | None:
    """Return a path with the links of the tree resolved, from the root and without a slash; None for a loop."""
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
            return None
        at = [] if entry.target.startswith("/") else at
        left = [*entry.target.split("/"), *left]
    return "/".join(at)


def _unpacked(path: str, entry: Entry, scratch: Path) -> Entry:
    if not isinstance(entry, File) or not is_kmod_file(path) or not _head(entry).startswith((GZIP, XZ, ZSTD)):
        return entry
    out = scratch / f"{len(list(scratch.iterdir()))}"
    if isinstance(entry.content, bytes):
        packed = out.with_suffix(".packed")
        packed.write_bytes(entry.content)
    else:
        packed = entry.content
    try:
        with unpacked(packed) as data:
            out.write_bytes(data)
    except Malformed:
        return entry  # modprobe itself will report the damaged file
    return File(out)


def _head(entry: File) -> bytes:
    if isinstance(entry.content, bytes):
        return entry.content[:8]
    with entry.content.open("rb") as file:
        return file.read(8)
