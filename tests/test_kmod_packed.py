"""Kmods that are compressed in odd ways: kmod's tools, zlib's reader and the suite agree on them."""

from __future__ import annotations

import ctypes
import gzip
import lzma
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.packed import elf_problem, unpacked

from .real.kmod import run
from .real.requirement import need, need_tool

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.fixture(scope="module")
def small() -> Mapping[str, bytes]:
    """Return the small kmods for the newest plain kernel, by name."""
    from .debian_kernels import build_kernels
    from .real.drivers import small_kmods

    return small_kmods(build_kernels()[2])


def _zstd(data: bytes, checksum: int) -> bytes:
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: checksum})


def cut_by(cut: int, pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return a function that packs its argument and leaves out the last bytes."""
    return lambda data: pack(data)[:-cut]


ODDLY_PACKED: dict[str, Callable[[bytes], bytes]] = {
    "xz with padding": lambda data: lzma.compress(data) + bytes(512),
    "xz with three zero bytes": lambda data: lzma.compress(data) + bytes(3),
    "xz, then text": lambda data: lzma.compress(data) + b"text",
    "xz in two streams": lambda data: lzma.compress(data[:99]) + bytes(4) + lzma.compress(data[99:]),
    "xz in two streams, one zero byte between": lambda data: (
        lzma.compress(data[:99]) + b"\0" + lzma.compress(data[99:])
    ),
    "zst in frames": lambda data: zstd.compress(data[:99]) + b"\x5a\x2a\x4d\x18\1\0\0\0x" + zstd.compress(data[99:]),
    "zst behind a frame to skip": lambda data: b"\x50\x2a\x4d\x18\1\0\0\0x" + zstd.compress(data),
    **{f"xz cut by {cut} bytes": cut_by(cut, lzma.compress) for cut in (1, 4, 12, 13, 24, 40)},
    **{f"zst cut by {cut} bytes": cut_by(cut, partial(_zstd, checksum=1)) for cut in (1, 2, 3, 4, 5, 8, 5000)},
    **{f"zst without a checksum cut by {cut} bytes": cut_by(cut, partial(_zstd, checksum=0)) for cut in (1, 4, 99)},
    "zst, cut in the checksum of its last frame": lambda data: _zstd(data[:99], 1) + _zstd(data[99:], 1)[:-2],
    "zst, cut in the checksum of its first frame": lambda data: _zstd(data[:99], 1)[:-2] + _zstd(data[99:], 1),
    "zst with a wrong checksum": lambda data: _zstd(data, 1)[:-1] + b"x",
    "zst, then zero bytes": lambda data: zstd.compress(data) + bytes(4),
}
ODDLY_ZIPPED: dict[str, Callable[[bytes], bytes]] = {
    "in members": lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:]),
    "with a zero byte": lambda data: gzip.compress(data) + b"\0",
    "with text": lambda data: gzip.compress(data) + b"text" * 50_000,
    "and a member behind text": lambda data: gzip.compress(data) + b"text" + gzip.compress(data),
    "with reserved flags": lambda data: gzip.compress(data)[:3] + b"\x20" + gzip.compress(data)[4:],
    **{f"cut by {cut} bytes": cut_by(cut, gzip.compress) for cut in (1, 3, 4, 5, 7, 8, 9)},
    "cut in the sum of its second member": lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:])[:-6],
    "with a wrong sum": lambda data: gzip.compress(data)[:-8] + bytes(8),
}


@pytest.mark.parametrize("label", ODDLY_PACKED)
def test_kmod_and_the_suite_unpack_the_same_files(label: str, small: Mapping[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "pf_gives.ko"
    path.write_bytes(ODDLY_PACKED[label](small["pf_gives"]))
    output = run([need_tool("modinfo", "apt-get install kmod"), "-F", "name", str(path)], tmp_path).stdout
    assert (_plain(path) == small["pf_gives"]) == (output == "pf_gives\n")
    assert (elf_problem(path) is None) == (output == "pf_gives\n")


@pytest.mark.parametrize("label", ODDLY_ZIPPED)
def test_gzread_and_the_suite_unpack_the_same_files(label: str, small: Mapping[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "pf_gives.ko"
    path.write_bytes(ODDLY_ZIPPED[label](small["pf_gives"]))
    assert _plain(path) == _gzread(path)


def _plain(path: Path) -> bytes | None:
    """Return the object as the suite unpacks it, or None if the file is not a compressed object."""
    try:
        with unpacked(path) as data:
            return data[:] if data[:] != path.read_bytes() else None
    except Malformed:
        return None


def _gzread(path: Path) -> bytes | None:
    """Return the file as zlib's reader unpacks it. kmod calls that reader, but Debian's kmod is built without it."""
    try:
        zlib = ctypes.CDLL("libz.so.1")
    except OSError:
        need("zlib's library", False, "apt-get install zlib1g")
        raise
    zlib.gzopen.restype, zlib.gzopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
    zlib.gzread.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint]
    file, plain = zlib.gzopen(str(path).encode(), b"rb"), b""
    piece = ctypes.create_string_buffer(1 << 20)
    while (size := zlib.gzread(file, piece, len(piece))) > 0:
        plain += piece.raw[:size]
    zlib.gzclose(ctypes.c_void_p(file))
    return None if size else plain


@pytest.mark.parametrize("pack", [gzip.compress, partial(_zstd, checksum=1)])
def test_a_kmod_that_is_cut_in_its_data_is_not_whole(
    pack: Callable[[bytes], bytes], small: Mapping[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "pf_gives.ko"
    path.write_bytes(pack(small["pf_gives"])[:-1000])
    problem = elf_problem(path)
    assert problem is not None
    assert "cut short" in problem
