"""List the files that modprobe loads on the node for a Module, in order.

Sources: modprobe (docs/reference/loader.md 5), KMM (docs/reference/kmm.md 11).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import pairwise

from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod import findings as kmod_findings
from kmm_preflight.kmod.index import INDEX_BYTES, ModuleIndex, in_folder
from kmm_preflight.kmod.lookup import INDEX, LookupResult, look_up
from kmm_preflight.kmod.names import module_key, wanted_key
from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import Located
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.text import listed
from kmm_preflight.worker import findings
from kmm_preflight.worker.folder import NodeFolder
from kmm_preflight.worker.view import InTree

ALIASES, SYMBOLS, BUILT_IN, SOFTDEPS = (
    "modules.alias.bin",
    "modules.symbols.bin",
    "modules.builtin.bin",
    "modules.softdep",
)
INDEX_FILES = (INDEX, ALIASES, SYMBOLS, BUILT_IN, SOFTDEPS)
"""What is read of the kernel's folder."""
_SOFTDEP_BYTES = 4 << 20
_WILD = "*?["
_NAMES_IN_ORDER = 256
_SOFTDEPS_WITH_PATTERNS = 1000


@dataclass(frozen=True)
class Sequence:
    """Files of the image in the order of loading, each once, and the in-tree kmods (with _ for -) among them.

    findings is all that there is to tell; with one that refutes the rest is what was found until then.
    """

    files: tuple[Located, ...] = ()
    in_tree: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def load_sequence(folder: NodeFolder, name: str, order: tuple[str, ...] = ()) -> Sequence:
    """What `modprobe name` loads; order is modulesLoadingOrder, which begins with the name and is loaded from its end.

    Raises what reading the image raises, and BoundExceeded for an order of more than 256 names.
    """
    if len(order) > _NAMES_IN_ORDER:
        raise BoundExceeded(f"modulesLoadingOrder: {len(order)} names, expected at most {_NAMES_IN_ORDER}")
    return _Sequencer(folder, order).sequence(name)


class _Sequencer:
    def __init__(self, folder: NodeFolder, order: tuple[str, ...]) -> None:
        self._folder, self._order = folder, order
        self._place = folder.place
        # KMM writes `softdep a pre: b`, `softdep b pre: c`; of two lines for one name modprobe takes the first.
        self._after = {wanted_key(one): following for one, following in reversed([*pairwise(order)])}
        self._found: dict[str, LookupResult | None] = {}
        self._paths: dict[str, None] = {}
        self._told: dict[Finding, None] = {}

    def sequence(self, name: str) -> Sequence:
        self._visit(name)
        self._check_order()
        reached = [(path, self._folder.reach(path).file) for path in self._paths]
        for path, file in reached:
            if isinstance(file, Located) and file.entry.kind is not EntryKind.FILE:
                self._tell(findings.KMOD_NOT_A_FILE(path=file.path, kind="folder or device"))
            elif isinstance(file, InTree) and not file.name:
                kind = "folder, or something that is no kmod, of the node's own modules"
                self._tell(findings.KMOD_NOT_A_FILE(path=path, kind=kind))
        files = dict.fromkeys(file for _, file in reached if isinstance(file, Located))
        in_tree = dict.fromkeys(file.name for _, file in reached if isinstance(file, InTree) and file.name)
        return Sequence(tuple(files), tuple(in_tree), tuple(self._told))

    def _tell(self, finding: Finding) -> None:
        self._told[finding] = None

    def _visit(self, name: str) -> None:
        """As modprobe lists what it will load: dependencies, then what a softdep names, then the kmod."""
        if wanted_key(name) in self._found:
            return
        self._found[wanted_key(name)] = None
        for key in self._modules(name):
            found = self._look_up(key)
            self._found[key] = found
            if found is None:
                continue
            for path in found.paths[:-1]:
                self._visit_following(module_key(path.rpartition("/")[2]))
                self._paths[path] = None
            self._visit_following(key)
            self._paths[found.paths[-1]] = None

    def _visit_following(self, key: str) -> None:
        following = self._after.get(key)
        if following is not None and not self._overruled(key, following):
            self._visit(following)

    def _modules(self, name: str) -> tuple[str, ...]:
        """The kmods that a name stands for: itself, or what its aliases say; none when it is told why."""
        key = wanted_key(name)
        if self._built_in and _is_known(self._built_in, key, damaged=False):
            self._tell(findings.NODE_BUILT_IN(kmod=name, folder=self._place.folder))
            return ()
        if self._index is None or _is_known(self._index, key, damaged=True):
            return (key,)  # and the look-up tells what is wrong with it
        for index in (self._symbols if key.startswith("symbol:") else None, self._aliases):
            if index and (modules := _matching(index, key)):
                return tuple(module_key(module) for module in modules)
        return (key,)

    def _look_up(self, name: str) -> LookupResult | None:
        beside = self._folder.names if self._bytes is None else frozenset()
        found = look_up(self._place, name, self._bytes, beside, self._folder.exists)
        if isinstance(found, LookupResult):
            for note in found.notes:
                self._tell(note)
            return found
        if found.id == kmod_findings.INDEX_LACKS_KMOD.id and self._order and name != wanted_key(self._order[0]):
            found = findings.LOADING_ORDER_ABSENT(name=name, folder=self._place.folder)
        elif found.id == kmod_findings.INDEX_STALE.id:
            found = self._link_left_behind(name) or found
        self._tell(found)
        return None

    def _link_left_behind(self, name: str) -> Finding | None:
        line = self._index.find(name) if self._index else None
        path = in_folder(f"/{self._place.on_node}", line.path).lstrip("/") if line and line.path else ""
        reached, place = self._folder.reach(path), self._place
        link = reached.link
        if link is None or reached.file is not None:
            return None
        return findings.NODE_LINK(
            path=link.path,
            target=link.entry.link,
            kmod=name,
            folder=place.folder,
            directory=place.directory,
            kernel=place.kernel,
        )

    def _check_order(self) -> None:
        """Names of the order that were not come to, though nothing speaks against each one."""
        loaded = {*self._found, *(module_key(path.rpartition("/")[2]) for path in self._paths)}
        missed = [one for one in self._order if wanted_key(one) not in loaded]
        if missed and not any(one.id != kmod_findings.INDEX_DEPENDENCY_MISSING.id for one in self._told):
            before = self._order[self._order.index(missed[0]) - 1]
            key = wanted_key(before)
            got = f"the line of /{self._place.folder}/{SOFTDEPS} for {before}, which it reads first"
            if not self._overruled(key, missed[0]):
                got = f"{before}, which is an alias and no kmod's own name"
            self._tell(findings.LOADING_ORDER_OVERRULED(names=listed(missed), got=got))

    def _overruled(self, key: str, following: str) -> bool:
        """Whether the image's own line for the kmod, of which modprobe takes the first, does not name the following."""
        line = next((one for one in self._softdeps if _fits(one[0], key)), None)
        return line is not None and wanted_key(following) not in line[1]

    @cached_property
    def _bytes(self) -> bytes | None:
        return self._folder.read(INDEX, INDEX_BYTES)

    @cached_property
    def _index(self) -> ModuleIndex | None:
        return _opened(self._bytes)

    @cached_property
    def _aliases(self) -> ModuleIndex | None:
        return _opened(self._folder.read(ALIASES, INDEX_BYTES))

    @cached_property
    def _symbols(self) -> ModuleIndex | None:
        return _opened(self._folder.read(SYMBOLS, INDEX_BYTES))

    @cached_property
    def _built_in(self) -> ModuleIndex | None:
        return _opened(self._folder.read(BUILT_IN, INDEX_BYTES))

    @cached_property
    def _softdeps(self) -> tuple[tuple[str, frozenset[str]], ...]:
        return tuple(_softdeps(self._folder.read(SOFTDEPS, _SOFTDEP_BYTES) or b""))


def _opened(data: bytes | None) -> ModuleIndex | None:
    """The index, None when it is not there or none: then modprobe does without it."""
    try:
        return ModuleIndex(data) if data is not None else None
    except Malformed:
        return None


def _is_known(index: ModuleIndex, key: str, damaged: bool) -> bool:
    try:
        return index.find(key) is not None
    except Malformed:
        return damaged


def _matching(index: ModuleIndex, key: str) -> tuple[str, ...]:
    try:
        return index.matching(key)
    except Malformed:
        return ()


def _softdeps(text: bytes) -> Iterator[tuple[str, frozenset[str]]]:
    """The lines of modules.softdep: for which kmod, a pattern, and what is loaded before it.

    BoundExceeded for more than 1000 that are patterns: each is compared with each name.
    """
    patterns = 0
    for line in text.decode("utf-8", "replace").splitlines():
        words = line.replace("-", "_").split()
        if len(words) > 2 and words[0] == "softdep":
            patterns += any(one in words[1] for one in _WILD)
            if patterns > _SOFTDEPS_WITH_PATTERNS:
                raise BoundExceeded(f"{SOFTDEPS}: more than {_SOFTDEPS_WITH_PATTERNS} lines that are patterns")
            before = words[3:] if words[2] == "pre:" else []
            end = before.index("post:") if "post:" in before else len(before)
            yield words[1], frozenset(before[:end])


def _fits(pattern: str, key: str) -> bool:
    return fnmatchcase(key, pattern) if any(one in pattern for one in _WILD) else pattern == key
