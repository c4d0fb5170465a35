"""The reader of tar streams, compared with the standard library's tarfile; and decompression of streams."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kmm_preflight.base.decompression import decompress
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.oci.tar import ByteReader, EntryKind, walk

from .real.layout import Member, folder, tar
from .real.requirement import need_tool
from .runs import ROOT

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Seen = tuple[str, EntryKind, int, str, bytes]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
KINDS = {
    tarfile.REGTYPE: EntryKind.FILE,
    tarfile.AREGTYPE: EntryKind.FILE,
    tarfile.CONTTYPE: EntryKind.FILE,
    tarfile.GNUTYPE_SPARSE: EntryKind.FILE,
    tarfile.DIRTYPE: EntryKind.FOLDER,
    tarfile.SYMTYPE: EntryKind.SYMLINK,
    tarfile.LNKTYPE: EntryKind.HARDLINK,
    tarfile.CHRTYPE: EntryKind.DEVICE,
    tarfile.BLKTYPE: EntryKind.DEVICE,
    tarfile.FIFOTYPE: EntryKind.DEVICE,
}


def _chunks(data: bytes, dice: random.Random) -> Iterator[bytes]:
    """Yield the bytes in pieces of random length."""
    start = 0
    while start < len(data):
        size = dice.choice((1, 100, 511, 512, 513, 4096, 100_000))
        yield data[start : start + size]
        start += size


def _walked(data: bytes, dice: random.Random) -> list[Seen]:
    """Return the members of our walk. Read all, half or none of each content."""
    reader = ByteReader(_chunks(data, dice), "a test")
    seen: list[Seen] = []
    for member in walk(reader, "a test"):
        size = dice.choice((0, member.size // 2, member.size))
        body = reader.read(size)
        seen.append((member.path, member.kind, member.mode, member.link, body))
    return seen


def _listed(data: bytes) -> list[tuple[str, EntryKind, int, str, bytes]]:
    """Return the members of tarfile."""
    seen = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for entry in archive:
            body = archive.extractfile(entry).read() if entry.isreg() else b""  # type: ignore[union-attr]  # a file
            seen.append((_normal(entry.name), KINDS[entry.type], entry.mode, _link(entry), body))
    return seen


def _normal(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _link(entry: tarfile.TarInfo) -> str:
    return _normal(entry.linkname) if entry.islnk() else entry.linkname


def _agree(ours: list[Seen], theirs: list[Seen]) -> None:
    assert [member[:4] for member in ours] == [member[:4] for member in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert their[4].startswith(our[4])


def _name(dice: random.Random, tar_format: int) -> str:
    letters = "abc-_.é ü漢" if tar_format != tarfile.USTAR_FORMAT else "abc-_."
    longest = 12 if tar_format == tarfile.USTAR_FORMAT else dice.choice((5, 60, 120, 300))
    parts = ["n" + "".join(dice.choices(letters, k=dice.randint(0, longest))) for _ in range(dice.randint(1, 5))]
    return dice.choice(("", "./", "/", "")) + "/".join(parts)


def _random_member(dice: random.Random, tar_format: int) -> Member:
    name = _name(dice, tar_format)
    kind = dice.choice([tarfile.REGTYPE] * 4 + [*KINDS])
    if kind in (tarfile.GNUTYPE_SPARSE, tarfile.AREGTYPE, tarfile.CONTTYPE):
        kind = tarfile.REGTYPE
    data = dice.randbytes(dice.choice((0, 1, 511, 512, 513, 5000))) if kind == tarfile.REGTYPE else b""
    link = _name(dice, tar_format) if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return Member(name, data, kind, link, dice.choice((0o644, 0o755, 0o4711, 0)))


@pytest.mark.parametrize("tar_format", FORMATS)
@pytest.mark.parametrize("seed", range(40))
def test_walk_agrees_with_tarfile(tar_format: str, seed: int) -> None:
    dice = random.Random(f"{tar_format}-{seed}")
    members = [_random_member(dice, FORMATS[tar_format]) for _ in range(dice.randint(0, 30))]
    data = tar(members, FORMATS[tar_format])
    _agree(_walked(data, dice), _listed(data))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with long names, symbolic and hard links, and holes, for GNU tar."""
    root = tmp_path_factory.mktemp("tree")
    deep = root / ("long-" * 30) / ("longer-" * 20)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"deep down")
    (root / "first").write_bytes(b"the same")
    (root / "second").hardlink_to(root / "first")
    (root / "link").symlink_to(("target-" * 30) + "end")
    (root / "größe").write_bytes(b"unicode")
    with (root / "holes").open("wb") as file:
        for place in range(40):
            file.seek(place * 200_000)
            file.write(b"here")
        file.truncate(9_000_000)
    (root / "zzz-after").write_bytes(b"still in step")
    return root


def _gnu_tar(tree: Path, *options: str) -> bytes:
    command = [need_tool("tar", "apt-get install tar"), *options, "--sort=name", "-cf", "-", "-C", str(tree), "."]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize("tar_format", ["gnu", "oldgnu"])
def test_the_sparse_files_of_gnu_formats_are_refused_as_on_a_node(tree: Path, tar_format: str) -> None:
    data = _gnu_tar(tree, f"--format={tar_format}", "--sparse")
    with pytest.raises(Malformed, match="a tar entry of unknown type b'S'"):
        list(walk(ByteReader(iter([data]), "a test"), "a test"))


@pytest.mark.parametrize(
    ("tar_format", "sparse"), [("gnu", []), ("posix", []), ("oldgnu", []), ("posix", ["--sparse"])]
)
def test_walk_reads_gnu_tar(tree: Path, tar_format: str, sparse: list[str]) -> None:
    data = _gnu_tar(tree, f"--format={tar_format}", *sparse)
    reader = ByteReader(_chunks(data, random.Random(1)), "a test")
    ours = [(member.path, member.kind, member.sparse) for member in walk(reader, "a test")]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        theirs = [(_normal(entry.name), KINDS[entry.type], entry.issparse()) for entry in archive]
    assert ours == theirs
    assert [path for path, _, is_sparse in ours if is_sparse] == (["holes"] if sparse else [])


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_walk_reads_each_sparse_format_of_pax(tree: Path, version: str) -> None:
    command = [need_tool("tar", "apt-get install tar"), "--format=posix", "--sparse", f"--sparse-version={version}"]
    data = subprocess.run(
        [*command, "-cf", "-", "-C", str(tree), "holes", "zzz-after"], check=True, capture_output=True
    )
    reader = ByteReader(iter([data.stdout]), "a test")
    assert [(member.path, member.sparse) for member in walk(reader, "a test")] == [
        ("holes", True),
        ("zzz-after", False),
    ]


def _signed(name: bytes) -> bytes:
    header = bytearray(tar([Member("x" * len(name))])[:512])
    header[: len(name)] = name
    rest = bytes(header[:148] + header[156:])
    total = sum(byte - 256 if byte > 127 else byte for byte in rest) + 8 * 32
    header[148:156] = b"%06o\0 " % total
    return bytes(header)


ONE = tar([Member("a", b"x")])
GOOD = {
    "nothing": (b"", []),
    "end mark only": (bytes(1024), []),
    "half of the end mark": (ONE[:1024] + bytes(512), ["a"]),
    "no end mark": (ONE[:1024], ["a"]),
    "no padding": (ONE[:513], ["a"]),
    "half of the padding": (ONE[:700], ["a"]),
    "bytes after the end": (ONE + b"rest" * 1000, ["a"]),
    "signed checksum": (_signed("é".encode()) + bytes(1024), ["é"]),
    "folder by its slash": (tar([Member("a/")]), ["a"]),
    "root itself": (tar([folder("./"), Member("b")]), ["", "b"]),
    "dots within": (tar([Member("a/./b/../c")]), ["a/c"]),
    "dots above an absolute root": (tar([Member("/../a")]), ["a"]),
    "bytes that are not text": (tar([Member("a\udcff")]), ["a\udcff"]),
}
BAD: dict[str, tuple[bytes, type[Exception], str]] = {
    "one block of zeros": (bytes(512) + ONE, Malformed, "one block of zeros"),
    "header cut short": (ONE[:300], Malformed, "cut short"),
    "content cut short": (ONE[:512], Malformed, "cut short"),
    "wrong checksum": (b"b" + ONE[1:], Malformed, "checksum"),
    "out of the image": (tar([Member("../a")]), Malformed, "leads out of the image"),
    "unknown type": (tar([Member("a", kind=b"Z")]), Malformed, "unknown type b'Z'"),
    "long name": (tar([Member("a/" * 3000)]), BoundExceeded, "a name of more than 4096 bytes"),
    "text": (b"<html>" * 200, Malformed, "invalid number"),
}


@pytest.mark.parametrize("name", GOOD)
def test_valid_tar(name: str) -> None:
    data, paths = GOOD[name]
    assert [member.path for member in walk(ByteReader(iter([data]), "it"), "it")] == paths


@pytest.mark.parametrize("name", BAD)
def test_invalid_tar(name: str) -> None:
    data, error, words = BAD[name]
    with pytest.raises(error, match=words):
        list(walk(ByteReader(iter([data]), "it"), "it"))


def test_stream_is_read_up_to_its_bound() -> None:
    data = tar([Member("a", bytes(100_000))])
    with pytest.raises(BoundExceeded):
        list(walk(ByteReader(_chunks(data, random.Random(1)), "it", 50_000), "it"))
    reader = ByteReader(_chunks(data, random.Random(1)), "it", len(data))
    assert len(list(walk(reader, "it"))) == 1
    reader.skip_rest()
    assert reader.position == len(data)


def _skippable(data: bytes) -> bytes:
    return b"\x5f\x2a\x4d\x18" + (100).to_bytes(4, "little") + bytes(100) + zstd.compress(data)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip members": lambda data: b"".join(gzip.compress(data[at : at + 9999]) for at in range(0, len(data), 9999)),
    "zstd": zstd.compress,
    "zstd frames": lambda data: zstd.compress(data[:5000]) + zstd.compress(data[5000:]),
    "zstd skippable": _skippable,
    "xz": lzma.compress,
    "xz streams": lambda data: lzma.compress(data[:5000]) + lzma.compress(data[5000:]),
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("size", [0, 1, 5, 100_000, 3_000_000])
def test_streams_are_decompressed_in_pieces(packer: str, size: int) -> None:
    dice = random.Random(size)
    plain = b"x" + dice.randbytes(size // 2) + bytes(size // 2) if size else b""
    pieces = list(decompress(_chunks(PACKERS[packer](plain), dice), "it"))
    assert b"".join(pieces) == plain
    assert max(map(len, pieces), default=0) <= 1 << 18


@pytest.mark.parametrize("packer", [name for name in PACKERS if name != "plain"])
def test_cut_and_damaged_streams_are_malformed(packer: str) -> None:
    whole = PACKERS[packer](random.Random(2).randbytes(50_000))
    cut = [whole[:-1], whole[: len(whole) // 2]]
    # A frame of zstd need not have a checksum.
    flipped = [whole[:-3000] + bytes([whole[-3000] ^ 255]) + whole[-2999:]] if "zstd" not in packer else []
    for data in cut + flipped:
        with pytest.raises(Malformed, match=r"^it: the compressed stream is "):
            list(decompress(_chunks(data, random.Random(3)), "it"))


def test_gzip_needs_no_isal() -> None:
    program = (
        "import sys; sys.modules['isal'] = None\n"
        "import gzip\n"
        "from kmm_preflight.errors import Malformed\n"
        "from kmm_preflight.base import decompression as compression\n"
        "assert compression.zlib.__name__ == 'zlib'\n"
        "data = gzip.compress(b'abc' * 100000)\n"
        "assert b''.join(compression.decompress([data, data], 'it')) == b'abc' * 200000\n"
        "for bad in (data[:-1], data[:-8] + bytes(8)):\n"
        "    try:\n"
        "        list(compression.decompress([bad], 'it'))\n"
        "    except Malformed:\n"
        "        continue\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
