"""The file system of an image, compared with a simple model of an overlay and with the kernel's path lookup."""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.oci import filesystem
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.filesystem import FileSystem, Layer, LinkBroken
from kmm_preflight.oci.index import LayerEntry, LayerIndex
from kmm_preflight.oci.tar import EntryKind

from .real.requirement import need

Tree = dict[str, LayerEntry]
NAMES = ("a", "b", "c")
_OPENAT2 = 437
_IN_ROOT = 0x10
_AT_FDCWD = -100


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _layer(cache: Cache, number: int, tree: Tree) -> Layer:
    records = [entry.packed(place) for place, entry in enumerate(tree.values())]
    index: LayerIndex = cache.keep_index(f"sha256:{number:064x}", records)
    return Layer(lambda: index)


def _merged(cache: Cache, trees: Sequence[Tree]) -> FileSystem:
    """Return the file system of layers. Layers come base first."""
    return FileSystem([_layer(cache, number, tree) for number, tree in reversed(list(enumerate(trees)))])


def _file(path: str) -> Tree:
    return {path: LayerEntry(path, EntryKind.FILE)}


def _folder(path: str) -> Tree:
    return {path: LayerEntry(path, EntryKind.FOLDER)}


def _link(path: str, target: str) -> Tree:
    return {path: LayerEntry(path, EntryKind.SYMLINK, link=target)}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A new cache."""
    return Cache(tmp_path / "cache")


MERGED: dict[str, tuple[list[Tree], set[str]]] = {
    "one": ([_file("a/b")], {"a/b"}),
    "two": ([_file("a/b"), _file("a/c")], {"a/b", "a/c"}),
    "whiteout": ([_file("a/b") | _file("a/c"), _file("a/.wh.b")], {"a/c"}),
    "whiteout of a folder": ([_file("a/b/c") | _file("a/d"), _file("a/.wh.b")], {"a/d"}),
    "whiteout of nothing": ([_file("a"), _file(".wh.b")], {"a"}),
    "whiteout next to a new name": ([_file("a/b"), _file(".wh.a") | _file("a/c")], {"a/c"}),
    "whiteout does not hide its own layer": ([_file("a") | _file(".wh.a")], {"a"}),
    "whiteout hides all lower layers": ([_file("a"), _file("a"), _file(".wh.a")], set()),
    "and back again": ([_file("a"), _file(".wh.a"), _file("a")], {"a"}),
    "opaque": ([_file("a/b") | _file("c"), _file("a/.wh..wh..opq") | _file("a/c")], {"a/c", "c"}),
    "opaque root": ([_file("a/b"), _file(".wh..wh..opq") | _file("c")], {"c"}),
    "opaque above": ([_file("a/b/c"), _file("a/.wh..wh..opq") | _folder("a/b")], {"a/b"}),
    "file over folder": ([_file("a/b"), _file("a")], {"a"}),
    "link over folder": ([_file("a/b"), _link("a", "c")], {"a"}),
    "folder over file": ([_file("a"), _file("a/b")], {"a/b"}),
    "folder over link": ([_link("a", "b") | _file("b/c"), _folder("a")], {"a", "b/c"}),
    "folder over file hides what was below it": ([_file("a/b"), _file("a"), _file("a/c")], {"a/c"}),
    "names that begin alike": ([_file("a") | _file("a.b") | _file("a-b"), _file(".wh.a")], {"a.b", "a-b"}),
}


@pytest.mark.parametrize("name", MERGED)
def test_merge(cache: Cache, name: str) -> None:
    trees, want = MERGED[name]
    files = _merged(cache, trees)
    assert {located.path for located in files.below("", lambda _: True)} == want
    assert files.children("") == sorted({path.partition("/")[0] for path in want})
    for path in ("a", "a/b", "a/b/c", "a/c", "c", "a.b", "a-b"):
        exists = path in want or any(other.startswith(f"{path}/") for other in want)
        assert (files.entry(path) is not None) == exists, path


def test_hidden_entries_have_their_layer(cache: Cache) -> None:
    files = _merged(cache, [_file("a/b"), _file("c"), _file("a/.wh.b"), _file("d")])
    assert [(located.path, located.layer) for located in files.hidden("a", lambda name: name == "b")] == [("a/b", 3)]


def test_lower_layers_stay_closed_if_a_higher_layer_decides() -> None:
    def never() -> LayerIndex:
        raise AssertionError

    class Top(Layer):
        """A layer with a file at every path."""

        def lookup(self, path: str) -> LayerEntry:
            return LayerEntry(path, EntryKind.FILE)

    files = FileSystem([Top(never), Layer(never)])
    assert files.entry("a/b")


def _random_tree(dice: random.Random, lower: bool) -> Tree:
    """Return a layer without contradictions. Only layers above the base have whiteouts."""
    tree: Tree = {}

    def fill(parent: str, depth: int) -> None:
        for name in NAMES:
            path = f"{parent}{name}"
            match dice.randrange(9 if lower else 7):
                case 0:
                    tree.update(_file(path))
                case 1 | 2 if depth < 3:
                    if dice.random() < 0.7:
                        tree.update(_folder(path))
                    fill(f"{path}/", depth + 1)
                case 3:
                    tree.update(_link(path, _random_target(dice) + dice.choice(("", "", "/"))))
                case 4 if lower:
                    tree.update(_file(f"{parent}.wh.{name}"))
                case _:
                    pass
        if lower and dice.random() < 0.15:
            tree.update(_file(f"{parent}.wh..wh..opq"))

    fill("", 1)
    return tree


def _random_target(dice: random.Random) -> str:
    parts = [dice.choice((*NAMES, *NAMES, "..", ".")) for _ in range(dice.randint(1, 4))]
    return dice.choice(("", "", "/")) + "/".join(parts)


def _applied(trees: Sequence[Tree]) -> Tree:
    """Apply the model: for each layer, first its removals, then its names. Only folder on folder does not replace."""
    merged: Tree = {}
    for tree in trees:
        for path in tree:
            parent, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                _remove(merged, parent, itself=False)
            elif name.startswith(".wh."):
                _remove(merged, f"{parent}/{name[4:]}".lstrip("/"), itself=True)
        for path, entry in tree.items():
            parts = path.split("/")
            for depth in range(1, len(parts)):
                _put(merged, LayerEntry("/".join(parts[:depth]), EntryKind.FOLDER))
            if not parts[-1].startswith(".wh."):
                _put(merged, entry)
    return merged


def _put(merged: Tree, entry: LayerEntry) -> None:
    before = merged.get(entry.path)
    if not (before and before.kind is entry.kind is EntryKind.FOLDER):
        _remove(merged, entry.path, itself=True)
        merged[entry.path] = entry


def _remove(merged: Tree, path: str, itself: bool) -> None:
    for key in [key for key in merged if key.startswith(f"{path}/" if path else "") or (itself and key == path)]:
        del merged[key]


def _paths(depth: int = 3) -> Iterator[str]:
    def below(parent: str, left: int) -> Iterator[str]:
        for name in NAMES:
            yield f"{parent}{name}"
            if left:
                yield from below(f"{parent}{name}/", left - 1)

    return below("", depth - 1)


@pytest.mark.parametrize("seed", range(60))
def test_merge_agrees_with_the_model(cache: Cache, seed: int) -> None:
    dice = random.Random(seed)
    trees = [_random_tree(dice, lower=number > 0) for number in range(dice.randint(1, 4))]
    model, files = _applied(trees), _merged(cache, trees)
    for path in _paths():
        located = files.entry(path)
        assert (located and located.entry.kind) == (model[path].kind if path in model else None), (path, trees)
    named = {located.path for located in files.below("", lambda _: True)}
    assert named <= set(model)
    assert {path for path, entry in model.items() if entry.kind is not EntryKind.FOLDER} <= named


def _kernel_path(root: Path, path: str) -> str | None:
    """Return the path that the kernel reaches in this root, or None if the file is missing or links go in circles."""
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, _IN_ROOT)
    libc = ctypes.CDLL(None, use_errno=True)
    folder = os.open(root, os.O_PATH)
    try:
        found = libc.syscall(_OPENAT2, folder, path.encode(), ctypes.byref(how), ctypes.sizeof(how))
        if found < 0:
            return None
        try:
            return os.readlink(f"/proc/self/fd/{found}").removeprefix(str(root)).lstrip("/")
        finally:
            os.close(found)
    finally:
        os.close(folder)


def _written(root: Path, model: dict[str, LayerEntry]) -> Path:
    root.mkdir()
    for path, entry in sorted(model.items()):
        match entry.kind:
            case EntryKind.FOLDER:
                (root / path).mkdir()
            case EntryKind.SYMLINK:
                (root / path).symlink_to(entry.link)
            case _:
                (root / path).write_text("")
    return root


@pytest.mark.parametrize("seed", range(60))
def test_links_agree_with_the_kernel(cache: Cache, tmp_path: Path, seed: int) -> None:
    dice = random.Random(f"links {seed}")
    trees = [_random_tree(dice, lower=number > 0) for number in range(dice.randint(1, 3))]
    root = _written(tmp_path.resolve() / "root", _applied(trees))
    need("openat2 of Linux 5.6", _kernel_path(root, ".") == "", "a newer kernel")
    files = _merged(cache, trees)
    for path in [*_paths(), *(f"{path}/{_random_target(dice).lstrip('/')}" for path in _paths(2))]:
        try:
            located = files.resolve(path)
        except LinkBroken:
            located = None
        assert (located.path if located else None) == _kernel_path(root, path), (path, trees)


LINKS = {
    "relative": (_link("a", "b/c") | _file("b/c"), "a", "b/c"),
    "absolute": (_link("x/a", "/b/c") | _file("b/c"), "x/a", "b/c"),
    "above the root": (_link("a", "../../../b") | _file("b"), "a", "b"),
    "on the way": (_link("a", "b") | _file("b/c/d"), "a/c/d", "b/c/d"),
    "of links": (_link("a", "b") | _link("b", "c") | _file("c"), "a", "c"),
    "missing without a link": (_file("a/b"), "a/c", None),
    "below a file": (_file("a"), "a/b", None),
    "back from a file": (_file("a") | _file("b"), "a/../b", None),
    "link with a slash": (_link("a", "b/") | _folder("b"), "a", "b"),
    "file as a folder": (_file("a"), "a/.", None),
    "back from a folder": (_folder("a") | _file("b"), "a/.././b", "b"),
    "back from a link's target": (_link("a", "b/c") | _folder("b/c") | _file("b/d"), "a/../d", "b/d"),
    "missing below a valid link": (_link("a", "b") | _folder("b"), "a/c", None),
}
BROKEN = {
    "nowhere": (_link("a", "b"), "a", ("a", "b", "/b is not in the image")),
    "nowhere on the way": (_link("a", "b/c") | _folder("b"), "a/x", ("a", "b/c", "/b/c is not in the image")),
    "itself": (_link("a", "a"), "a", ("a", "a", "links go in circles")),
    "a file as a folder": (_link("a", "b/") | _file("b"), "a", ("a", "b/", "/b is not in the image")),
    "in circles": (_link("a", "b") | _link("b", "a"), "a/x", ("a", "b", "links go in circles")),
    "second of two": (_link("a", "b") | _link("b", "c"), "a", ("a", "b", "/c is not in the image")),
    "after a valid link": (
        _link("a", "b") | _link("b/c", "d") | _folder("b"),
        "a/c",
        ("b/c", "d", "/b/d is not in the image"),
    ),
}


@pytest.mark.parametrize("name", LINKS)
def test_link(cache: Cache, name: str) -> None:
    tree, path, want = LINKS[name]
    located = _merged(cache, [tree]).resolve(path)
    assert (located.path if located else None) == want


@pytest.mark.parametrize("name", BROKEN)
def test_broken_link(cache: Cache, name: str) -> None:
    tree, path, want = BROKEN[name]
    with pytest.raises(LinkBroken) as caught:
        _merged(cache, [tree]).resolve(path)
    assert (caught.value.path, caught.value.target, caught.value.problem) == want


@pytest.mark.parametrize(("links", "good"), [(40, True), (41, False)])
def test_bound_of_links_is_the_kernel_s(cache: Cache, links: int, good: bool) -> None:
    tree = _file("0")
    for number in range(links):
        tree |= _link(str(number + 1), str(number))
    files = _merged(cache, [tree])
    if good:
        located = files.resolve(str(links))
        assert located
        assert located.path == "0"
        return
    with pytest.raises(LinkBroken, match="in circles"):
        files.resolve(str(links))


def test_hardlinks_are_followed_in_their_layer(cache: Cache) -> None:
    def hard(path: str, target: str) -> Tree:
        return {path: LayerEntry(path, EntryKind.HARDLINK, link=target)}

    top = hard("a", "b") | hard("b", "c") | _file("c") | hard("x", "y") | hard("y", "x") | hard("gone", "lower")
    files = _merged(cache, [_file("lower"), top])
    targets = {}
    for name in ("a", "x", "gone"):
        located = files.entry(name)
        assert located
        target = files.hardlink_target(located)
        targets[name] = target.path if target else None
    assert targets == {"a": "c", "x": None, "gone": None}


def test_too_many_names_in_too_many_layers(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "LOOKUPS", 500)
    many: Tree = {}
    for number in range(200):
        many |= _file(f"a/{number}/x")
    with pytest.raises(BoundExceeded, match="too many names"):
        list(_merged(cache, [many, _file("b"), _file("c")]).below("", lambda _: True))
