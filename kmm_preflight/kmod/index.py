"""Read modules.dep.bin and its sibling indexes, in which modprobe finds kmods (docs/reference/loader.md 5)."""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice

from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.names import wanted_key

# That of a whole RHEL kernel has 400 KiB.
INDEX_BYTES = 64 << 20
_MAGIC, _MAJOR = 0xB007F457, 2
_HEAD = struct.Struct(">III")
_PREFIX, _VALUES, _CHILDREN, _OFFSET = 1 << 31, 1 << 30, 1 << 29, (1 << 28) - 1
_LAST_CHARACTER = 127
_KEY_BYTES = 4096
_ENTRIES = 1 << 17
_WILD = "*?["
_SPENT = 1 << 18  # in a search by patterns: nodes, and characters of patterns that are compared
_MODULES, _NAME_BYTES = 256, 255


@dataclass(frozen=True)
class IndexLine:
    """What the index says of a kmod: its file, and the files that are loaded first, in the order of loading.

    Paths are relative to the index's folder unless they begin with a slash. path is "" in a line that names none.
    """

    path: str
    before: tuple[str, ...]


@dataclass(frozen=True)
class _Node:
    prefix: bytes
    first: int
    children: tuple[int, ...]
    values: int  # where they stand, 0 for none


class ModuleIndex:
    """An index that depmod wrote. Only what a search touches is looked at."""

    def __init__(self, data: bytes) -> None:
        """Malformed when it is none: too short, another magic or major version. BoundExceeded above 64 MiB."""
        if len(data) > INDEX_BYTES:
            raise BoundExceeded(f"an index of modules: {len(data)} bytes, expected at most {INDEX_BYTES}")
        if len(data) < _HEAD.size:
            raise Malformed(f"{len(data)} bytes, expected a head of {_HEAD.size}")
        magic, version, root = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise Malformed(f"data that starts {data[:4]!r}, expected b007f457 in hexadecimal")
        if version >> 16 != _MAJOR:
            raise Malformed(f"version {version >> 16} of the format, expected {_MAJOR}")
        # depmod without a kmod that it can read writes the head alone.
        self._data, self._root = data, root if len(data) > _HEAD.size else 0

    def find(self, name: str) -> IndexLine | None:
        """The line of a module as modprobe looks it up: - and _ are one, no suffix. Malformed where it is damaged."""
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
        """The values of all keys that fit the name as patterns of a shell, each once, by their priority.

        So modprobe reads modules.alias.bin and modules.symbols.bin: keys are aliases, values names of modules.
        Malformed where it is damaged; BoundExceeded when too much of it would have to be looked at.
        """
        wanted, found, spent = wanted_key(name), list[tuple[int, str]](), 0
        stack = [(self._root, "")]
        while stack:
            reference, above = stack.pop()
            node = self._node(reference)
            if node is None:
                continue
            key = above + node.prefix.decode("utf-8", "surrogateescape")
            below = [(child, key + chr(node.first + number)) for number, child in enumerate(node.children) if child]
            spent += 1 + len(below) + (len(key) if node.values else 0)
            if spent > _SPENT or len(key) > _KEY_BYTES:
                raise BoundExceeded("an index of modules: more aliases, or longer ones, than any kernel has")
            if node.values and fnmatchcase(wanted, key):
                found += self._modules(node.values)
            stack += [one for one in below if _may_fit(one[1], wanted)]
        return tuple(dict.fromkeys(value for _, value in sorted(found, key=lambda one: one[0])))

    def lines(self) -> Iterator[tuple[str, IndexLine]]:
        """All names with their lines, in the order of their bytes. Malformed where it is damaged or goes in circles."""
        stack, seen = [(self._root, b"", b"")], set[int]()
        while stack:
            reference, above, own = stack.pop()
            node = self._node(reference)
            if node is None:
                continue
            if reference & _OFFSET in seen:
                raise Malformed(f"a node at byte {reference & _OFFSET} that stands in two places")
            seen.add(reference & _OFFSET)
            key = above + own + node.prefix
            if len(key) > _KEY_BYTES or len(seen) > _ENTRIES or len(stack) > _ENTRIES:
                raise BoundExceeded("modules.dep.bin: more names, or longer ones, than any kernel has")
            if line := self._first_line(node):
                yield key.decode("utf-8", "surrogateescape"), line
            below = [(child, key, bytes([node.first + number])) for number, child in enumerate(node.children)]
            stack += reversed([one for one in below if one[0] & _OFFSET])

    def _node(self, reference: int) -> _Node | None:
        """Prefix, children, values: each only where the reference says so."""
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
        """Of several values modprobe takes the first."""
        value = next(self._values(node.values), None) if node.values else None
        return _line(value[1]) if value else None

    def _modules(self, at: int) -> Iterator[tuple[int, str]]:
        """The modules that an alias stands for, with their priorities."""
        for priority, value in islice(self._values(at), _MODULES):
            if len(value) > _NAME_BYTES:
                raise Malformed(f"a name of {len(value)} bytes, expected one of a module")
            yield priority, value.decode("utf-8", "surrogateescape")

    def _children(self, at: int) -> tuple[int, tuple[int, ...], int]:
        first, last = self._numbers(">BB", at)
        if not first <= last <= _LAST_CHARACTER:
            raise Malformed(f"children from {first} to {last} at byte {at}, expected ASCII in its order")
        count = last - first + 1
        return first, self._numbers(f">{count}I", at + 2), at + 2 + 4 * count

    def _values(self, at: int) -> Iterator[tuple[int, bytes]]:
        """Each with its priority."""
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
        end = self._data.find(b"\0", at)
        if end < 0:
            raise Malformed(f"a string at byte {at} that does not end")
        return self._data[at:end], end + 1


def _child(node: _Node, character: int) -> int:
    number = character - node.first
    return node.children[number] if 0 <= number < len(node.children) else 0


def _may_fit(pattern: str, name: str) -> bool:
    """Whether a pattern that begins so can fit the name: what stands before its first wildcard must be the same."""
    wild = next((number for number, one in enumerate(pattern) if one in _WILD), len(pattern))
    return name.startswith(pattern[:wild])


def _line(value: bytes) -> IndexLine:
    """`path: last ... first`, as modules.dep has it; without the colon modprobe knows the name and no file."""
    path, colon, needed = value.decode("utf-8", "surrogateescape").partition(":")
    return IndexLine(path, tuple(reversed(needed.split()))) if colon else IndexLine("", ())


@dataclass(frozen=True)
class LoadOrder:
    """The files that modprobe loads for a module, in its order, the module's own last.

    missing: dependencies that are not there; a single one makes modprobe try the module alone.
    """

    paths: tuple[str, ...]
    missing: tuple[str, ...] = ()


def load_order(index: ModuleIndex, name: str, exists: Callable[[str], bool]) -> LoadOrder | None:
    """What modprobe would load for the name; None when the index does not know it.

    exists: whether a path of the index leads to something, links followed. The module's own file is not asked for.
    """
    line = index.find(name)
    if line is None:
        return None
    missing = tuple(path for path in line.before if not exists(path))
    own = (line.path,) if line.path else ()
    return LoadOrder(own if missing else (*line.before, *own), missing)


def in_folder(folder: str, path: str) -> str:
    """Where a path of the index is: absolute as it stands, else below the index's folder."""
    return posixpath.join(folder, path)
