"""Indexes in the folder of kmods that modprobe reads besides modules.dep.bin: aliases, built-in modules, softdeps."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cached_property

from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.index import INDEX_BYTES, IndexLine, ModuleIndex
from kmm_preflight.kmod.lookup import INDEX
from kmm_preflight.kmod.names import module_key, wanted_key
from kmm_preflight.worker.folder import NodeFolder

ALIASES, SYMBOLS, BUILT_IN, SOFTDEPS = (
    "modules.alias.bin",
    "modules.symbols.bin",
    "modules.builtin.bin",
    "modules.softdep",
)
INDEX_FILES = (INDEX, ALIASES, SYMBOLS, BUILT_IN, SOFTDEPS)
"""Files of the kernel's folder that are read."""
_SOFTDEP_BYTES = 4 << 20
_WILDCARDS = "*?["
_SOFTDEPS_WITH_PATTERNS = 1000


class FolderIndexes:
    """The indexes of a folder, each read when it is needed.

    modprobe works without all of them but modules.dep.bin: it ignores one that is absent or damaged.
    """

    def __init__(self, folder: NodeFolder) -> None:
        self._folder = folder

    @cached_property
    def content(self) -> bytes | None:
        """The bytes of modules.dep.bin, or None if the folder has none."""
        return self._folder.read(INDEX, INDEX_BYTES)

    def find(self, name: str) -> IndexLine | None:
        """Return the entry of a module in modules.dep.bin, or None."""
        return self._index.find(name) if self._index else None

    def has_built_in(self, key: str) -> bool:
        """True if modules.builtin.bin names the module."""
        return _has(self._built_in, key, damaged=False)

    def modules(self, key: str) -> tuple[str, ...]:
        """Return the modules that modprobe looks up for a name: the module of that name, or those of an alias."""
        if self._index is None or _has(self._index, key, damaged=True):
            return (key,)  # the look-up then reports a damaged index
        for index in (self._symbols if key.startswith("symbol:") else None, self._aliases):
            if index and (modules := _matching(index, key)):
                return tuple(module_key(module) for module in modules)
        return (key,)

    def overrule(self, key: str, following: str) -> bool:
        """True if the image has a softdep line for the kmod that does not name the following kmod.

        modprobe uses the first line of a kmod, and reads the image's line before KMM's.
        """
        before = next((names for pattern, names in self._softdeps if _matches(pattern, key)), None)
        return before is not None and wanted_key(following) not in before

    @cached_property
    def _index(self) -> ModuleIndex | None:
        return _opened(self.content)

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
        return tuple(_parse_softdeps(self._folder.read(SOFTDEPS, _SOFTDEP_BYTES) or b""))


def _opened(data: bytes | None) -> ModuleIndex | None:
    try:
        return ModuleIndex(data) if data is not None else None
    except Malformed:
        return None


def _has(index: ModuleIndex | None, key: str, damaged: bool) -> bool:
    """True if the index has the name. damaged: the result for an index that is damaged at this name."""
    try:
        return index is not None and index.find(key) is not None
    except Malformed:
        return damaged


def _matching(index: ModuleIndex, key: str) -> tuple[str, ...]:
    try:
        return index.matching(key)
    except Malformed:
        return ()


def _parse_softdeps(text: bytes) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each line of modules.softdep as the pattern for a kmod, and the names that are loaded before that kmod.

    Raise BoundExceeded if more than 1000 lines have wildcards: each one is compared with each name.
    """
    patterns = 0
    for line in text.decode("utf-8", "replace").splitlines():
        words = line.replace("-", "_").split()
        if len(words) > 2 and words[0] == "softdep":
            patterns += any(wildcard in words[1] for wildcard in _WILDCARDS)
            if patterns > _SOFTDEPS_WITH_PATTERNS:
                raise BoundExceeded(f"{SOFTDEPS}: more than {_SOFTDEPS_WITH_PATTERNS} lines that are patterns")
            before = words[3:] if words[2] == "pre:" else []
            end = before.index("post:") if "post:" in before else len(before)
            yield words[1], frozenset(before[:end])


def _matches(pattern: str, key: str) -> bool:
    return fnmatchcase(key, pattern) if any(wildcard in pattern for wildcard in _WILDCARDS) else pattern == key
