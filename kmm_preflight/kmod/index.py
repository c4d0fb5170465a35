"""modules.dep.bin and similar indexes, as modprobe reads them (docs/reference/loader.md 5)."""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice

from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.names import wanted_key

# The index of a whole RHEL kernel has 400 KiB.
INDEX_BYTES = 64 << 20
_MAGIC, _MAJOR = 0xB007F457, 2
_HEAD = struct.Struct(">III")
_PREFIX, _VALUES, _CHILDREN, _OFFSET = 1 << 31, 1 << 30, 1 << 29, (1 << 28) - 1
_LAST_CHARACTER = 127
_KEY_BYTES = 4096
_ENTRIES = 1 << 17
_WILDCARDS = "*?["
# Limit of a search by patterns: nodes that are read, plus characters of patterns that are compared.
_SEARCH_STEPS = 1 << 18
_MODULES, _NAME_BYTES = 256, 255


@dataclass(frozen=True)
class IndexLine:
    """The entry of a kmod in the index. Paths are relative to the index's folder unless they begin with a slash."""

    path: str | None
    """File of the kmod, or None if the entry names no file."""
    before: tuple[str, ...]
    """Files that are loaded first, in the order of loading."""


@dataclass(frozen=True)
class _Node:
    """A node of the index's tree."""

    prefix: bytes
    """Text that a key must have at this place."""
    first: int
    """Character of the first child."""
    children: tuple[int, ...]
    """References to the children, by consecutive characters; 0 for none."""
    values: int
    """Offset of the values, or 0 for none."""


class ModuleIndex:
    """An index that depmod wrote. A search reads and checks only the nodes that it visits."""

    def __init__(self, data: bytes) -> None:
        """Raise Malformed if the data is not an index of this format, BoundExceeded if it has more than 64 MiB."""
        if len(data) > INDEX_BYTES:
            raise BoundExceeded(f"an index of modules: {len(data)} bytes, expected at most {INDEX_BYTES}")
        if len(data) < _HEAD.size:
            raise Malformed(f"{len(data)} bytes, expected a head of {_HEAD.size}")
        magic, version, root = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise Malformed(f"data that starts {data[:4]!r}, expected b007f457 in hexadecimal")
        if version >> 16 != _MAJOR:
            raise Malformed(f"version {version >> 16} of the format, expected {_MAJOR}")
        # If depmod finds no kmod that it can read, it writes only the head.
        self._data, self._root = data, root if len(data) > _HEAD.size else 0

    def find(self, name: str) -> IndexLine | None:
        """Return the entry of a module, as modprobe looks it up, or None.

        name: without a suffix; - and _ are equal. Raise Malformed if a visited node is damaged.
        """
        key = wanted_key(name).encode("utf-8", "surrogateescape")
        reference, left = self._root, key
        while node := self._node(reference):
            if not left.startswith(node.prefix):
                return None
            left = left[len(node.prefix) :]
            if not left:
                return self._first_line(node)
            reference = _child(node, left[0])
            left = left[1:]
        return None

    def matching(self, name: str) -> tuple[str, ...]:
        """Return the values of all keys that match the name as shell patterns, each once, by their priority.

        modprobe reads modules.alias.bin and modules.symbols.bin so: keys are aliases, values are names of modules.
        Raise Malformed if a visited node is damaged, and BoundExceeded if the search takes too many steps.
        """
        key, values, steps = wanted_key(name), list[tuple[int, str]](), 0
        stack = [(self._root, "")]
        while stack:
            reference, above = stack.pop()
            node = self._node(reference)
            if node is None:
                continue
            pattern = above + node.prefix.decode("utf-8", "surrogateescape")
            below = [(child, pattern + chr(node.first + number)) for number, child in enumerate(node.children) if child]
            steps += 1 + len(below) + (len(pattern) if node.values else 0)
            if steps > _SEARCH_STEPS or len(pattern) > _KEY_BYTES:
                raise BoundExceeded("an index of modules: more aliases, or longer ones, than any kernel has")
            if node.values and fnmatchcase(key, pattern):
                values += self._modules(node.values)
            stack += [(child, start) for child, start in below if _may_match(start, key)]
        return tuple(dict.fromkeys(value for _, value in sorted(values, key=lambda pair: pair[0])))

    def lines(self) -> Iterator[tuple[str, IndexLine]]:
        """Yield all names with their entries, sorted by bytes.

        Raise Malformed if a node is damaged or has two parents.
        """
        stack, seen = [(self._root, b"", b"")], set[int]()
        while stack:
            reference, above, own = stack.pop()
            node = self._node(reference)
            if node is None:
                continue
            if reference & _OFFSET in seen:
                raise Malformed(f"a node at byte {reference & _OFFSET} that has two parents")
            seen.add(reference & _OFFSET)
            key = above + own + node.prefix
            if len(key) > _KEY_BYTES or len(seen) > _ENTRIES or len(stack) > _ENTRIES:
                raise BoundExceeded("modules.dep.bin: more names, or longer ones, than any kernel has")
            if line := self._first_line(node):
                yield key.decode("utf-8", "surrogateescape"), line
            below = [(child, key, bytes([node.first + number])) for number, child in enumerate(node.children)]
            stack += reversed([entry for entry in below if entry[0] & _OFFSET])

    def _node(self, reference: int) -> _Node | None:
        """Read prefix, children and values, as far as flags in the reference say that the node has them."""
        at = reference & _OFFSET
        if not at:
            return None
        if not _HEAD.size <= at < len(self._data):
            raise Malformed(f"a reference to byte {at}, expected one of {_HEAD.size} to {len(self._data) - 1}")
        prefix, first, children = b"", 0, tuple[int, ...]()
        if reference & _PREFIX:
            prefix, at = self._string(at)
        if reference & _CHILDREN:
            first, children, at = self._children(at)
        return _Node(prefix, first, children, at if reference & _VALUES else 0)

    def _first_line(self, node: _Node) -> IndexLine | None:
        """Return the first value of the node, which is the one that modprobe uses."""
        value = next(self._values(node.values), None) if node.values else None
        return _line(value[1]) if value else None

    def _modules(self, at: int) -> Iterator[tuple[int, str]]:
        """Yield the modules of an alias, with their priorities."""
        for priority, value in islice(self._values(at), _MODULES):
            if len(value) > _NAME_BYTES:
                raise Malformed(f"a name of {len(value)} bytes, expected the name of a module")
            yield priority, value.decode("utf-8", "surrogateescape")

    def _children(self, at: int) -> tuple[int, tuple[int, ...], int]:
        """Return the first character, the references to the children, and the offset behind them."""
        first, last = self._numbers(">BB", at)
        if not first <= last <= _LAST_CHARACTER:
            raise Malformed(f"children from {first} to {last} at byte {at}, expected ASCII in its order")
        count = last - first + 1
        return first, self._numbers(f">{count}I", at + 2), at + 2 + 4 * count

    def _values(self, at: int) -> Iterator[tuple[int, bytes]]:
        """Yield priorities and values."""
        (count,) = self._numbers(">I", at)
        at += 4
        for _ in range(count):
            (priority,) = self._numbers(">I", at)
            value, at = self._string(at + 4)
            yield priority, value

    def _numbers(self, layout: str, at: int) -> tuple[int, ...]:
        if at + struct.calcsize(layout) > len(self._data):
            raise Malformed(f"a node at byte {at} that is cut short")
        return struct.unpack_from(layout, self._data, at)

    def _string(self, at: int) -> tuple[bytes, int]:
        """Return the text at an offset, and the offset behind its zero byte."""
        end = self._data.find(b"\0", at)
        if end < 0:
            raise Malformed(f"a string at byte {at} that does not end")
        return self._data[at:end], end + 1


def _child(node: _Node, character: int) -> int:
    number = character - node.first
    return node.children[number] if 0 <= number < len(node.children) else 0


def _may_match(start: str, name: str) -> bool:
    """True if a pattern with this start can match the name: its text before the first wildcard begins the name."""
    wildcard = next((number for number, character in enumerate(start) if character in _WILDCARDS), len(start))
    return name.startswith(start[:wildcard])


def _line(value: bytes) -> IndexLine:
    """Parse `path: last ... first`, as in modules.dep. Without the colon, modprobe knows the name but no file."""
    path, colon, needed = value.decode("utf-8", "surrogateescape").partition(":")
    return IndexLine(path or None, tuple(reversed(needed.split()))) if colon else IndexLine(None, ())


@dataclass(frozen=True)
class LoadOrder:
    """The files that modprobe loads for a module."""

    paths: tuple[str, ...]
    """Files in the order of loading, the module's own last."""
    missing: tuple[str, ...] = ()
    """Dependencies that do not exist. If there is at least one, modprobe tries the module alone."""


def load_order(index: ModuleIndex, name: str, exists: Callable[[str], bool]) -> LoadOrder | None:
    """Return the files that modprobe loads for the name, or None if the index does not have the name.

    exists: True if a path of the index leads to a file or folder. It is not called for the module's own file.
    """
    line = index.find(name)
    if line is None:
        return None
    missing = tuple(path for path in line.before if not exists(path))
    own = (line.path,) if line.path else ()
    return LoadOrder(own if missing else (*line.before, *own), missing)


def in_folder(folder: str, path: str) -> str:
    """Return a path of the index as seen from outside: below the index's folder, or as it is if it is absolute."""
    return posixpath.join(folder, path)
