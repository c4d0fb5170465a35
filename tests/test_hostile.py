"""Hostile images: each run ends with a finding, in seconds and little memory, without a traceback."""

from __future__ import annotations

import gzip
import json
import lzma
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from .real.layout import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Blob,
    Image,
    Member,
    hardlink,
    image,
    index,
    layer,
    symlink,
    tar,
    write_layout,
)
from .runs import Run, module, run_preflight, write_manifests

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KERNEL = "5.14.0-570.19.1.el9_6.x86_64"
AT = f"opt/lib/modules/{KERNEL}"
KMOD = b"\x7fELF" + bytes(96)
GOOD = Member(f"{AT}/probe.ko", KMOD)
MIB = 1 << 20
GIB = 1 << 30
MOST_BYTES = 100 * MIB
MOST_SECONDS = 60  # for a busy machine: on an idle machine the slowest image takes a quarter of it

VERIFIED = ("verified",)
UNREADABLE, BROKEN = ("refuted", "image-unreadable"), ("refuted", "kmod-link-broken")
BOUND, MISMATCH = ("undecided", "bound-exceeded"), ("undecided", "digest-mismatch")


def _packed(*parts: bytes) -> bytes:
    """Return the parts as members of one gzip stream. The test itself never holds the unpacked stream."""
    return b"".join(gzip.compress(part, 1, mtime=0) for part in parts)


def _zeros(count: int) -> bytes:
    """Return a gzip stream of `count` zeros."""
    whole = gzip.compress(bytes(64 * MIB), 9, mtime=0) if count >= 64 * MIB else b""
    return whole * (count // (64 * MIB)) + gzip.compress(bytes(count % (64 * MIB)), 1, mtime=0)


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


def _with_size(field: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a header with these bytes in its size field, and a correct checksum."""
    header = bytearray(_header("file", 0, kind))
    header[124:136] = field.ljust(12, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _of_gzip(data: bytes) -> Image:
    return image([Blob(data, OCI_LAYER + "+gzip")])


def _of_tar(data: bytes) -> Image:
    return _of_gzip(_packed(data))


def _one(*members: Member) -> Image:
    return image([layer(members)])


def _big_file() -> Image:
    return _of_gzip(_packed(_header("usr/big", 2 * GIB)) + _zeros(2 * GIB) + _packed(tar([GOOD])))


def _gzip_bomb() -> Image:
    """Return an image of 20 MB with 20 GiB of files."""
    return _of_gzip((_packed(_header("usr/big", 2 * GIB)) + _zeros(2 * GIB)) * 10 + _packed(tar([GOOD])))


def _big_kmod() -> Image:
    size = 700 * MIB
    return _of_gzip(_packed(_header(f"{AT}/probe.ko", size), KMOD) + _zeros(size - len(KMOD)) + _zeros(1024))


def _many_entries() -> Image:
    return _of_gzip(gzip.compress(_header("etc/a", 0) * 10_000, mtime=0) * 100)


def _many_names() -> Image:
    """Return an image with nearly the largest number of names, all different."""
    template = bytearray(_header(f"usr/share/a-folder-with-a-long-name/{0:06}", 0))
    start = template.index(b"000000")
    rest = sum(template[:148]) + sum(template[156:]) + 8 * 0x20 - sum(b"000000")
    chunks, names = [], []
    for number in range(390_000):
        digits = b"%06d" % number
        template[start : start + 6] = digits
        template[148:156] = b"%06o\0 " % (rest + sum(digits))
        names.append(bytes(template))
        if len(names) == 10_000:
            chunks.append(gzip.compress(b"".join(names), 1, mtime=0))
            names.clear()
    return _of_gzip(b"".join(chunks) + _packed(tar([GOOD])))


def _many_kmods() -> Image:
    headers = (_header(f"{AT}/{number}/probe.ko", 0) for number in range(40_000))
    return _of_gzip(_packed(b"".join(headers)))


def _pax(body: bytes) -> bytes:
    return _header("pax", len(body), tarfile.XHDTYPE) + body + bytes(-len(body) % 512)


def _unknown_pax_keys() -> Image:
    """Return an image with 120 MiB of unknown pax keys, all different."""
    value = "v" * 980
    bodies = (
        "".join(f"1000 k{header:04}{number:08}={value}\n"[:999] + "\n" for number in range(1000))
        for header in range(120)
    )
    return _of_gzip(b"".join(_packed(_pax(body.encode())) for body in bodies) + _packed(tar([GOOD])))


def _small_pax_records() -> Image:
    return _of_gzip(_packed(_pax(b"5 a=\n" * 200_000)) * 60 + _packed(tar([GOOD])))


def _wide_zstd() -> bytes:
    compressor = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): 27})
    return compressor.compress(tar([GOOD])) + compressor.flush()


def _wide_xz() -> bytes:
    return lzma.compress(KMOD, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 256 * MIB, "mode": lzma.MODE_FAST,
                                         "mf": lzma.MF_HC3, "nice_len": 8}])  # fmt: skip


def _xz_bomb() -> Image:
    packer = lzma.LZMACompressor(preset=0)
    pieces = [packer.compress(KMOD), *(packer.compress(bytes(MIB)) for _ in range(300)), packer.flush()]
    return _one(Member(f"{AT}/probe.ko.xz", b"".join(pieces)))


def _nested(depth: int) -> Image:
    nested = _one(GOOD)
    for _ in range(depth):
        nested = index([Image(nested.manifest, nested.blobs, nested.children, {})])
    return nested


def _document(body: bytes, media_type: str = OCI_MANIFEST) -> Image:
    return Image(Blob(body, media_type), [])


def _many_layers() -> Image:
    blob = layer([GOOD])
    config = Blob(b"{}", OCI_CONFIG)
    body = {"schemaVersion": 2, "config": config.descriptor(), "layers": [blob.descriptor()] * 10_000}
    return Image(Blob(json.dumps(body).encode(), OCI_MANIFEST), [config, blob])


def _link_chain() -> Image:
    links = [symlink(f"{AT}/{number}", str(number + 1)) for number in range(1000)]
    return _one(symlink(f"{AT}/probe.ko", "0"), *links)


def _small() -> dict[str, tuple[Image, tuple[str, ...]]]:
    """Return the small images, with their verdicts."""
    plain = tar([GOOD])
    deep = "/".join("d" * 1500)
    return {
        "good": (_one(GOOD), VERIFIED),
        "dot-dot": (_one(Member("opt/../../etc/x", b"x"), GOOD), UNREADABLE),
        "dot-dot-within": (_one(Member(f"opt/x/../../{AT}/probe.ko", KMOD)), VERIFIED),
        "hardlink-out": (_one(hardlink(f"{AT}/probe.ko", "../../etc/passwd")), UNREADABLE),
        "link-out": (_one(symlink(f"{AT}/probe.ko", "../" * 50 + "etc/passwd")), BROKEN),
        "link-loop": (_one(symlink(AT, KERNEL)), BROKEN),
        "link-chain": (_link_chain(), BROKEN),
        "link-to-itself-below": (_one(symlink(f"{AT}/probe.ko", "probe.ko/probe.ko/probe.ko")), BROKEN),
        "deep-folder": (_one(Member(f"{AT}/{deep}/probe.ko", KMOD)), VERIFIED),
        "long-name": (_one(Member(f"{AT}/{'d' * 5000}/probe.ko", KMOD)), BOUND),
        "cut-gzip": (_of_gzip(gzip.compress(plain)[:-100]), UNREADABLE),
        "cut-zstd": (image([Blob(zstd.compress(plain)[:-9], OCI_LAYER + "+zstd")]), UNREADABLE),
        "broken-gzip": (_of_gzip(gzip.compress(plain)[:-6] + b"\1" * 6), UNREADABLE),
        "cut-tar": (_of_tar(_header(f"{AT}/probe.ko", 5000) + KMOD), UNREADABLE),
        "half-a-header": (_of_tar(_header("a", 0)[:100]), UNREADABLE),
        "negative-size": (_of_tar(_with_size(b"-0000001000") + plain), UNREADABLE),
        "negative-pax-size": (_of_tar(_with_size(b"-0000001000", tarfile.XHDTYPE) + plain), UNREADABLE),
        "negative-binary-size": (_of_tar(_with_size(b"\xff" * 12) + plain), BOUND),
        "huge-binary-size": (_of_tar(_with_size(b"\x80" + b"\x7f" * 11) + plain), BOUND),
        "huge-octal-size": (_of_tar(_with_size(b"77777777777") + plain), UNREADABLE),
        "huge-pax-size": (_of_tar(_pax(b"28 size=9999999999999999999\n") + plain), UNREADABLE),
        "underscored-size": (_of_tar(_with_size(b"0000_001000") + plain), UNREADABLE),
        "damaged-pax": (_of_tar(_pax(b"99999 path=x\n") + plain), UNREADABLE),
        "nul-in-a-name": (_of_tar(_pax(b"23 GNU.sparse.name=a\0b\n") + plain), UNREADABLE),
        "long-name-of-a-gigabyte": (_of_tar(_header("L", GIB, tarfile.GNUTYPE_LONGNAME) + plain), BOUND),
        "pax-of-a-gigabyte": (_of_tar(_header("x", GIB, tarfile.XHDTYPE) + plain), BOUND),
        "wide-zstd": (image([Blob(_wide_zstd(), OCI_LAYER + "+zstd")]), BOUND),
        "wide-zstd-kmod": (_one(Member(f"{AT}/probe.ko.zst", _wide_zstd())), BOUND),
        "wide-xz-kmod": (_one(Member(f"{AT}/probe.ko.xz", _wide_xz())), BOUND),
        "nested-twice": (_nested(2), VERIFIED),
        "nested-ten-times": (_nested(10), BOUND),
        "many-layers": (_many_layers(), BOUND),
        "manifest-of-100-megabytes": (_document(b" " * 100_000_000 + b"{}"), BOUND),
        "brackets": (_document(b"[" * MIB), UNREADABLE),
        "nested-json": (_document(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), UNREADABLE),
        "long-number": (_document(b'{"schemaVersion":2,"layers":[],"config":' + b"9" * 10_000 + b"}"), UNREADABLE),
        "index-of-nothing": (_document(b'{"manifests":[]}', OCI_INDEX), ("refuted", "image-platform-missing")),
        "manifests-that-are-a-number": (_document(b'{"manifests":7}', OCI_INDEX), UNREADABLE),
        "digest-that-is-a-path": (_document(_with_digest("sha256:../../../../etc/passwd")), UNREADABLE),
        "steering": (_one(Member(f"{AT}/\x1b[31m::error::probe2.ko", KMOD)), ("refuted", "kmod-absent")),
    }  # fmt: skip


def _with_digest(digest: str) -> bytes:
    body = {"schemaVersion": 2, "config": {"digest": digest, "size": 2}, "layers": []}
    return json.dumps(body).encode()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The memory of pytest itself, in bytes."""
    return run_preflight(tmp_path_factory.mktemp("bare"), "--version").peak


def _run(tmp_path: Path, images: Mapping[str, Image]) -> Run:
    """Run the suite on a layout of the images."""
    layout = tmp_path / "layout"
    if not layout.exists():
        write_layout(layout, {f"registry.example/hostile/{name}:v1": made for name, made in images.items()})
    modules = [module(name, f"registry.example/hostile/{name}:v1") for name in images]
    manifests = write_manifests(tmp_path / "manifests", modules)
    return run_preflight(
        tmp_path, f"--kernel={KERNEL}", f"--image-layout={layout}", f"--manifests={manifests}", "-n", "0"
    )


def _check(run: Run, bare: int, want: Mapping[str, tuple[str, ...]]) -> None:
    assert run.verdicts() == want, run.output
    assert "Traceback" not in run.output
    assert "INTERNALERROR" not in run.output
    assert "\x1b[31m" not in run.output
    assert run.seconds < MOST_SECONDS
    assert run.peak - bare < MOST_BYTES, f"{(run.peak - bare) / MIB:.0f} MiB above pytest itself"


def test_small_images(tmp_path: Path, bare: int) -> None:
    small = _small()
    run = _run(tmp_path, {name: made for name, (made, _) in small.items()})
    _check(run, bare, {name: want for name, (_, want) in small.items()})


LARGE: dict[str, tuple[Callable[[], Image], tuple[str, ...]]] = {
    "big-file": (_big_file, VERIFIED),
    "gzip-bomb": (_gzip_bomb, BOUND),
    "big-kmod": (_big_kmod, BOUND),
    "many-entries": (_many_entries, BOUND),
    "many-names": (_many_names, VERIFIED),
    "many-kmods": (_many_kmods, BOUND),
    "unknown-pax-keys": (_unknown_pax_keys, VERIFIED),
    "small-pax-records": (_small_pax_records, BOUND),
    "xz-bomb": (_xz_bomb, VERIFIED),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_image(tmp_path: Path, bare: int, name: str) -> None:
    make, want = LARGE[name]
    _check(_run(tmp_path, {name: make()}), bare, {name: want})


def test_layer_that_does_not_match_its_digest(tmp_path: Path, bare: int) -> None:
    made = {"changed": _one(GOOD), "cut": _one(GOOD, Member("a", b"cut")), "gone": _one(GOOD, Member("a", b"gone"))}
    layout = write_layout(tmp_path / "layout", {f"registry.example/hostile/{name}:v1": made[name] for name in made})
    blobs = {name: layout / "blobs/sha256" / made[name].blobs[1].digest.removeprefix("sha256:") for name in made}
    body = blobs["changed"].read_bytes()
    blobs["changed"].write_bytes(body[:50] + bytes([body[50] ^ 1]) + body[51:])
    blobs["cut"].write_bytes(blobs["cut"].read_bytes()[:-20])
    blobs["gone"].unlink()
    want = {"changed": MISMATCH, "cut": ("undecided", "transfer-truncated"), "gone": UNREADABLE}
    _check(_run(tmp_path, made), bare, want)
