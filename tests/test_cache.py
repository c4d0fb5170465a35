"""The cache on disk: every entry is checked when it is read, and no reader sees a partial entry."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kmm_preflight.errors import BoundExceeded, DigestMismatch, Malformed, Truncated
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.document import Descriptor
from kmm_preflight.oci.index import LayerEntry, LayerIndex
from kmm_preflight.oci.layers import KeepRules, ReadBudget, VerifiedStream, layer_index
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.stages.kept_files import keep_rules

from .real.layout import Blob, Member, hardlink, layer

LAYER = layer(
    [
        Member("opt/a.ko", b"kmod a"),
        Member("opt/b.ko", b"kmod b"),
        Member("etc/text", b"text"),
        hardlink("x", "etc/text"),
    ]
)
KEEP = keep_rules(kmods=frozenset({"a"}))


def _descriptor(blob: Blob) -> Descriptor:
    return Descriptor(blob.media_type, blob.digest, len(blob.data))


class Source:
    """A blob that counts its fetches."""

    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self.fetched = 0

    def __call__(self) -> Iterator[bytes]:
        self.fetched += 1
        yield self.blob.data

    def index(self, cache: Cache, keep: KeepRules = KEEP, needed: str | None = None) -> LayerIndex:
        """Return the layer's index. Read the layer if needed."""
        return layer_index(_descriptor(self.blob), self, keep, cache, ReadBudget(), needed)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A new cache."""
    return Cache(tmp_path / "cache")


def _files(tmp_path: Path, part: str) -> list[Path]:
    return sorted((tmp_path / "cache/v1" / part).iterdir())


def test_layer_is_read_once(cache: Cache) -> None:
    source = Source(LAYER)
    first, second = source.index(cache), source.index(cache)
    assert source.fetched == 1
    assert list(first.below("")) == list(second.below(""))
    assert [(entry.path, entry.kind, entry.size, entry.link, bool(entry.content)) for entry in first.below("")] == [
        ("etc/text", EntryKind.FILE, 4, "", False),
        ("opt/a.ko", EntryKind.FILE, 6, "", True),
        ("opt/b.ko", EntryKind.FILE, 6, "", False),
        ("x", EntryKind.HARDLINK, 0, "etc/text", False),
    ]


def test_layer_is_read_again_for_a_file_that_was_not_kept(cache: Cache) -> None:
    source = Source(LAYER)
    source.index(cache)
    source.index(cache, needed="opt/a.ko")
    assert source.fetched == 1
    again = source.index(cache, KeepRules(), needed="etc/text")
    assert source.fetched == 2
    assert set(again.kept()) == {"etc/text", "opt/a.ko"}, "what an earlier run kept stays"
    assert set(source.index(cache, KeepRules(), needed="opt/b.ko").kept()) == {"etc/text", "opt/a.ko", "opt/b.ko"}
    source.index(cache, needed="etc/text")
    assert source.fetched == 3


def _flip(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "head only": lambda data: data[:20],
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "version": _flip(21),
    "checksum": _flip(40),
    "count": _flip(-100),
    "record": _flip(-1),
    "zeros": lambda data: bytes(len(data)),
    "other": lambda data: random.Random(1).randbytes(5000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_index_is_read_again(tmp_path: Path, cache: Cache, damage: str) -> None:
    source = Source(LAYER)
    before = list(source.index(cache).below(""))
    (path,) = _files(tmp_path, "layers")
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    assert cache.index(LAYER.digest) is None
    assert list(source.index(cache).below("")) == before
    assert source.fetched == 2
    assert path.read_bytes() == whole


def test_a_damaged_file_is_read_again(tmp_path: Path, cache: Cache) -> None:
    source = Source(LAYER)
    entry = source.index(cache).find("opt/a.ko")
    assert entry
    assert entry.content
    (path,) = _files(tmp_path, "files")
    assert cache.file(entry.content) == path
    path.write_bytes(b"kmod A")
    assert cache.file(entry.content) is None
    source.index(cache, needed="opt/a.ko")
    assert source.fetched == 2
    assert path.read_bytes() == b"kmod a"


def test_failed_write_leaves_no_entry(tmp_path: Path, cache: Cache) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        cache.keep_file(broken())
    wrong = Descriptor(None, "sha256:" + "0" * 64, len(LAYER.data))
    with pytest.raises(DigestMismatch):
        layer_index(wrong, Source(LAYER), KeepRules(), cache, ReadBudget())
    assert _files(tmp_path, "files") == _files(tmp_path, "layers") == []


def test_index_appears_only_when_it_is_whole(tmp_path: Path, cache: Cache) -> None:
    visible: list[bool] = []

    class WatchingRecord(bytes):
        """A record that notes, while it is written, whether a reader sees the index."""

        def __len__(self) -> int:
            visible.append(cache.index(LAYER.digest) is not None)
            return super().__len__()

    index = cache.keep_index(LAYER.digest, [WatchingRecord(LayerEntry("a", EntryKind.FILE).packed(0))])
    assert visible
    assert not any(visible)
    assert index.find("a")
    (path,) = _files(tmp_path, "layers")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o757])
@pytest.mark.parametrize("place", ["cache", "cache/v1"])
def test_folder_that_others_can_write_is_refused(tmp_path: Path, cache: Cache, mode: int, place: str) -> None:
    (tmp_path / place).chmod(mode)
    with pytest.raises(PermissionError, match="can be written by others"):
        Cache(tmp_path / "cache")


def test_folder_is_private_with_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Cache(tmp_path / "made/here")
    finally:
        os.umask(before)
    assert (tmp_path / "made/here").stat().st_mode & 0o777 == 0o700


def test_file_instead_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(FileExistsError):
        Cache(tmp_path / "cache")


def test_trim_removes_the_least_recently_used_entries(tmp_path: Path, cache: Cache) -> None:
    digests = [cache.keep_file([bytes([number]) * 1000]) for number in range(5)]
    files = tmp_path / "cache/v1/files"
    for age, digest in enumerate(digests):
        os.utime(files / digest, (time.time() - 1000 + age,) * 2)
    assert cache.file(digests[0]), "reading an entry counts as a use"
    cache.trim(2500, time.time())
    assert [digest for digest in digests if cache.file(digest)] == [digests[0], digests[4]]
    cache.trim(0, time.time())
    assert _files(tmp_path, "files") == []


def test_trim_keeps_files_that_are_being_written(tmp_path: Path, cache: Cache) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        cache.trim(0, time.time())
        yield b"whole"

    assert cache.file(cache.keep_file(pieces()))
    abandoned = tmp_path / "cache/v1/files/.new-abandoned"
    abandoned.write_bytes(b"by a run that was killed")
    os.utime(abandoned, (time.time() - 90_000,) * 2)
    cache.trim(0, time.time())
    assert not abandoned.exists()


@pytest.mark.parametrize(
    ("chunks", "size", "error"),
    [
        ([b"ab", b"c"], 3, None),
        ([b"ab"], 3, Truncated),
        ([b"abc", b"d"], 3, DigestMismatch),
        ([b"abd"], 3, DigestMismatch),
        ([b"abc"], 4, Malformed),
        ([], 3, Truncated),
    ],
)
def test_verified_stream(chunks: list[bytes], size: int, error: type[Exception] | None) -> None:
    descriptor = Descriptor(None, Blob(b"abc", "").digest, size)

    def read() -> None:
        verified = VerifiedStream(chunks, descriptor, "it")
        for _ in verified:
            pass
        verified.finish()

    if error is None:
        read()
        return
    with pytest.raises(error, match=r"^it: got "):
        read()


def test_layers_of_an_image_share_a_budget(cache: Cache) -> None:
    layers = [layer([Member(f"{number}/{name}") for name in range(30)]) for number in range(3)]
    budget = ReadBudget(names=80)
    for blob in layers[:2]:
        layer_index(_descriptor(blob), Source(blob), KeepRules(), cache, budget)
    with pytest.raises(BoundExceeded, match="more than 20 names"):
        layer_index(_descriptor(layers[2]), Source(layers[2]), KeepRules(), cache, budget)
    layer_index(_descriptor(layers[0]), Source(layers[0]), KeepRules(), cache, budget)
    with pytest.raises(BoundExceeded, match="when unpacked"):
        layer_index(_descriptor(layers[2]), Source(layers[2]), KeepRules(), cache, ReadBudget(unpacked=1000))
