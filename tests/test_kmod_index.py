"""modules.dep.bin: kmod's own modprobe and the suite agree on whole, stale and damaged indexes."""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.index import IndexLine, LoadOrder, ModuleIndex, in_folder, load_order

from .index_bytes import CHILDREN, PREFIX, VALUES, index_of, leaf
from .real.requirement import need_tool

RELEASE = "6.1.0-1-amd64"
NAMES = (
    "pf_gives",
    "pf_takes",
    "pf-takes",
    "pf_takes_gpl",
    "pf_plain",
    "pf",
    "nothing",
    "PF_PLAIN",
    "dummy",
    "a.b",
    "",
)
KMODS = {
    "extra/pf_gives.ko": b"",
    "extra/pf_takes.ko": b"pf_gives",
    "updates/pf-takes-gpl.ko": b"pf_gives,pf_takes",
    "kernel/net/pf_plain.ko": b"",
    "dummy.ko": b"",
    "weird.name.ko": b"",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like that of an image: real kmods, and the indexes that depmod makes."""
    from .real.drivers import small_kmods
    from .real.kernels import upgrade_kernels

    root = tmp_path_factory.mktemp("index")
    folder = root / "lib/modules" / RELEASE
    kmods = small_kmods(upgrade_kernels()[0])
    for path in KMODS:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(kmods[Path(path).name.split(".")[0].replace("weird", "pf_weak").replace("-", "_")])
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        (folder / name).touch()
    subprocess.run([need_tool("depmod", "apt-get install kmod"), "-b", str(root), RELEASE], check=True, timeout=60)
    return folder


def modprobe(folder: Path, name: str) -> tuple[bool, list[str]]:
    """Return True if modprobe finds the name, and the files that it would load."""
    tool = need_tool("modprobe", "apt-get install kmod")
    root = folder.parent.parent.parent
    command = [tool, "-C", "/nowhere", "-d", str(root), "-S", RELEASE, "--show-depends", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0, re.findall(r"^insmod (\S+)", done.stdout, re.MULTILINE)


def reader(folder: Path, name: str) -> tuple[bool, list[str]]:
    """Return True if the suite finds the name, and the files that it expects modprobe to load."""
    path = folder / "modules.dep.bin"
    try:
        index = ModuleIndex(path.read_bytes()) if path.exists() else None
        order = load_order(index, name, lambda file: Path(in_folder(str(folder), file)).exists()) if index else None
    except Malformed:
        return False, []
    return order is not None, [in_folder(str(folder), file) for file in order.paths] if order else []


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "modules.dep.bin"
        path.write_bytes(change(path.read_bytes()))

    return apply


def moved(folder: Path) -> None:
    (folder / "extra/pf_takes.ko").rename(folder / "updates/pf_takes.ko")


def linked(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "extra/pf_gives.ko").rename(folder / "real/pf_gives.ko")
    (folder / "extra/pf_gives.ko").symlink_to("../real/pf_gives.ko")


def dangling(folder: Path) -> None:
    (folder / "extra/pf_gives.ko").unlink()
    (folder / "extra/pf_gives.ko").symlink_to("/nowhere/pf_gives.ko")


def remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def folder_for(path: Path) -> None:
    path.unlink()
    path.mkdir()


FOLDERS: dict[str, Callable[[Path], object]] = {
    "whole": lambda folder: None,
    "its own file gone": lambda folder: (folder / "kernel/net/pf_plain.ko").unlink(),
    "a dependency gone": lambda folder: (folder / "extra/pf_gives.ko").unlink(),
    "all files gone": lambda folder: remove(*folder.rglob("*.ko")),
    "a file moved": moved,
    "a dependency behind a link": linked,
    "a dependency behind a dangling link": dangling,
    "no index": lambda folder: (folder / "modules.dep.bin").unlink(),
    "only the text": lambda folder: remove(*folder.glob("modules.*.bin")),
    "only modules.dep.bin": lambda folder: remove(*(set(folder.glob("modules.*")) - {folder / "modules.dep.bin"})),
    "an empty index": rewritten(lambda _: b""),
    "an index of 11 bytes": rewritten(lambda data: data[:11]),
    "only a head": rewritten(lambda data: data[:12]),
    "another magic": rewritten(lambda data: b"\xb0\x07\xf4\x58" + data[4:]),
    "a text instead of an index": rewritten(lambda _: b"extra/pf_gives.ko:\n" * 8),
    "the other byte order": rewritten(lambda data: struct.pack("<III", *struct.unpack(">III", data[:12])) + data[12:]),
    "major version 3": rewritten(lambda data: data[:4] + struct.pack(">I", 3 << 16 | 1) + data[8:]),
    "major version 1": rewritten(lambda data: data[:4] + struct.pack(">I", 1 << 16 | 1) + data[8:]),
    "minor version 9": rewritten(lambda data: data[:4] + struct.pack(">I", 2 << 16 | 9) + data[8:]),
    "a root of nothing": rewritten(lambda data: data[:8] + bytes(4) + data[12:]),
    "bytes behind the end": rewritten(lambda data: data + b"more" * 100),
    "a path changed": rewritten(lambda data: data.replace(b"extra/pf_takes.ko", b"extra/pf_tokes.ko")),
    "an absolute path": rewritten(lambda data: data.replace(b"extra/pf_gives.ko", b"/nowher/pf_give.o")),
    "a name changed": rewritten(lambda data: data.replace(b"plain\0", b"plane\0")),
    "another order": rewritten(
        lambda data: data.replace(b"extra/pf_takes.ko extra/pf_gives.ko", b"extra/pf_gives.ko extra/pf_takes.ko")
    ),
    "no colon": rewritten(lambda data: data.replace(b"pf_plain.ko:", b"pf_plain.ko ")),
    "an old index": lambda folder: shutil.copy(folder / "extra/pf_gives.ko", folder / "extra/pf_newer.ko"),
    "a suffix more": lambda folder: (folder / "dummy.ko").rename(folder / "dummy.ko.xz"),
    "an empty file": lambda folder: (folder / "dummy.ko").write_bytes(b""),
    "a folder for a file": lambda folder: folder_for(folder / "dummy.ko"),
    "a folder for a dependency": lambda folder: folder_for(folder / "extra/pf_gives.ko"),
}


@pytest.mark.parametrize("label", FOLDERS)
def test_modprobe_and_the_reader_agree(label: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lib/modules" / RELEASE
    shutil.copytree(whole, folder, symlinks=True)
    FOLDERS[label](folder)
    assert {name: reader(folder, name) for name in NAMES} == {name: modprobe(folder, name) for name in NAMES}


def test_they_agree_on_an_index_that_is_cut_short(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lib/modules" / RELEASE
    shutil.copytree(whole, folder)
    data = (whole / "modules.dep.bin").read_bytes()
    for size in range(12, len(data), len(data) // 12):
        (folder / "modules.dep.bin").write_bytes(data[:size])
        # If the reader sees damage, modprobe may still find names in the undamaged part. The reader never finds more.
        for name in NAMES:
            known, paths = reader(folder, name)
            if known:
                assert (known, paths) == modprobe(folder, name), (size, name)


def test_the_index_has_the_lines_of_the_text(whole: Path) -> None:
    index = ModuleIndex((whole / "modules.dep.bin").read_bytes())
    assert {line.path: line.before for _, line in index.lines()} == dict(text_lines(whole))
    assert [name for name, _ in index.lines()] == sorted(name for name, _ in index.lines())
    assert all(index.find(name) == line for name, line in index.lines())


def test_modprobe_and_the_reader_agree_on_the_aliases_of_a_kernel() -> None:
    from .real.kernels import indexed_root, upgrade_kernels

    release, chance = upgrade_kernels()[0], random.Random(6)
    folder = indexed_root(release) / "lib/modules" / release
    index = ModuleIndex((folder / "modules.alias.bin").read_bytes())
    patterns = re.findall(r"^alias (\S+)", (folder / "modules.alias").read_text(), re.MULTILINE)
    matches = 0
    for pattern in chance.sample(patterns, 60):
        name = re.sub(r"\[(.)[^]]*\]", r"\1", pattern).replace("*", chance.choice(("", "1", "more"))).replace("?", "5")
        tool = need_tool("modprobe", "apt-get install kmod")
        command = [tool, "-C", "/nowhere", "-d", str(indexed_root(release)), "-S", release, "-R", name]
        modules = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.split()
        assert index.matching(name) == tuple(dict.fromkeys(modules)), name
        matches += bool(modules)
    assert matches > 40


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        (b"a*", "a", True),
        (b"a*", "b", False),
        (b"a-b", "a_b", False),
        (b"a_b", "a-b", True),
        (b"a[0-9]c", "a5c", True),
        (b"a[0-9]c", "axc", False),
        (b"?", "", False),
        (b"*" * 200 + b"x", "y" * 200, False),
    ],
)
def test_an_alias_is_a_pattern(pattern: bytes, name: str, fits: bool) -> None:
    index = ModuleIndex(index_of(leaf(pattern, b"kmod"), root=PREFIX | VALUES | 12))
    assert index.matching(name) == (("kmod",) if fits else ())


def test_aliases_in_a_circle_end_the_search() -> None:
    circle = index_of(b"**" + struct.pack(">I", CHILDREN | 12), root=CHILDREN | 12)
    with pytest.raises(BoundExceeded):
        ModuleIndex(circle).matching("a")


def text_lines(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        yield path, tuple(reversed(needed.split()))


def test_a_line_is_loaded_from_its_end() -> None:
    index = ModuleIndex(index_of(leaf(b"a_b", b"x/a-b.ko: c.ko d.ko"), root=PREFIX | VALUES | 12))
    assert index.find("a-b") == index.find("a_b") == IndexLine("x/a-b.ko", ("d.ko", "c.ko"))
    assert index.find("a") is index.find("a_b_") is None
    assert load_order(index, "a-b", lambda path: True) == LoadOrder(("d.ko", "c.ko", "x/a-b.ko"))
    assert load_order(index, "a-b", lambda path: path == "c.ko") == LoadOrder(("x/a-b.ko",), ("d.ko",))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (index_of(b"a\0", root=PREFIX | VALUES | 99), "a reference to byte 99"),
        (index_of(b"abc", root=PREFIX | 12), "does not end"),
        (index_of(b"a\0" + struct.pack(">I", 1), root=PREFIX | VALUES | 12), "cut short"),
        (index_of(b"\x61\x60" + bytes(8), root=CHILDREN | 12), "children from 97 to 96"),
        (index_of(b"\x61\xff" + bytes(999), root=CHILDREN | 12), "children from 97 to 255"),
        (index_of(b"aa" + struct.pack(">I", CHILDREN | 12), root=CHILDREN | 12), "has two parents"),
    ],
)
def test_damage_is_malformed(data: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        list(ModuleIndex(data).lines())


def test_a_circle_ends_with_the_name() -> None:
    index = ModuleIndex(index_of(b"aa" + struct.pack(">I", CHILDREN | 12), root=CHILDREN | 12))
    assert index.find("a" * 4096) is None


def test_an_index_of_more_than_64_mib_is_not_read() -> None:
    with pytest.raises(BoundExceeded):
        ModuleIndex(bytes(65 << 20))


def test_a_damaged_index_ends_in_a_result_or_in_malformed(whole: Path) -> None:
    data, chance = (whole / "modules.dep.bin").read_bytes(), random.Random(6)
    for _ in range(5000):
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 9)):
            changed[chance.randrange(len(changed))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        cut = bytes(changed[: chance.choice((len(changed), chance.randrange(len(changed))))])
        with suppress(Malformed, BoundExceeded):
            ModuleIndex(cut).find("pf_takes_gpl")
        with suppress(Malformed, BoundExceeded):
            list(ModuleIndex(cut).lines())
        with suppress(Malformed, BoundExceeded):
            ModuleIndex(cut).matching("symbol:pf_given")
