"""Programs of an image that KMM calls on the node: found as a shell finds them, for the node's architecture."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kmm_preflight.kmod.machine import MACHINES, Architecture, machine_word
from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import FileSystem, LinkBroken, Located
from kmm_preflight.worker import findings
from kmm_preflight.worker.kind import Worker

SHELL = "/bin/sh"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a container looks that does not say PATH."""
PROGRAM_FILES = frozenset(
    f"{folder}/{name}"
    for folder in ("bin", "usr/bin", "sbin", "usr/sbin")
    for name in ("sh", "bash", "dash", "busybox", "coreutils", "cp", "mkdir", "sleep", "modprobe", "kmod")
)
"""Paths at which images have them, and what is behind links at such paths: whose bytes are worth keeping."""

_ELF = b"\x7fELF"
_HEAD_BYTES, _HEADER_BYTES = 64, 56
_HEADERS, _NAME_BYTES = 256, 4096
_INTERPRETER = 3
_EXECUTABLE = (2, 3)  # ET_EXEC, ET_DYN
_SCRIPTS = 4  # one that is interpreted by another one, and so on; as the kernel counts
_SCRIPT_HEAD = 256
_FOLDERS = 64


@dataclass(frozen=True)
class ImageFiles:
    """An image as what is in it: content gives a file's bytes, as a file. search_path is its PATH, "" for none."""

    files: FileSystem
    content: Callable[[Located], Path]
    search_path: str = ""


def programs(worker: Worker, firmware: bool) -> tuple[str, ...]:
    """What KMM calls in the image, besides the shell. firmware: whether the Module brings some."""
    match worker:
        case Worker.POD:
            return ("modprobe", "sleep", "cp") if firmware else ("modprobe", "sleep")
        case Worker.UNPACKED:
            return ()
        case Worker.COPIED:
            return ("mkdir", "cp")


def judge_programs(image: ImageFiles, worker: Worker, arch: str, firmware: bool) -> Iterator[Finding]:
    """What keeps a node of the architecture (Go's spelling) from running what KMM calls in the image."""
    names = programs(worker, firmware)
    if not names:
        return
    machine = MACHINES[arch]
    for name, places in ((SHELL, [SHELL]), *((name, _places(image.search_path, name)) for name in names)):
        yield from _judge(image, name, places, machine)


def _places(search_path: str, name: str) -> list[str]:
    folders = [one for one in (search_path or SEARCH_PATH).split(":") if one.startswith("/")]
    return [f"{folder.rstrip('/')}/{name}" for folder in folders[:_FOLDERS]]


def _judge(image: ImageFiles, name: str, places: list[str], machine: Architecture) -> Iterator[Finding]:
    got = f"none in {':'.join(place.rpartition('/')[0] for place in places)}"
    for place in places:
        located = image.files.file(place)
        if located and located.entry.mode & 0o111:
            yield from _judge_file(image, place, located, machine)
            return
        if problem := _unfit(image, place, located):
            got = problem
    yield findings.NODE_PROGRAM_ABSENT(program=name, got=got)


def _unfit(image: ImageFiles, place: str, located: Located | None) -> str:
    """Why what stands at the place is no program, "" when nothing does."""
    if located:
        return f"{place}, which is not executable"
    try:
        there = image.files.resolve(place)
    except LinkBroken as exc:
        return f"{place}, a link to {exc.target} ({exc.problem})"
    return f"{place}, which is no file" if there else ""


def _judge_file(
    image: ImageFiles, place: str, located: Located, machine: Architecture, depth: int = 0
) -> Iterator[Finding]:
    """A script is as good as what interprets it; a program as good as the loader that it names is there."""
    path = image.content(located)
    with path.open("rb") as file:
        head = file.read(_SCRIPT_HEAD)
    if head.startswith(b"#!"):
        words = head[2:].partition(b"\n")[0].split()
        interpreter = words[0].decode("utf-8", "surrogateescape") if words else ""
        there = _there(image, interpreter) if depth < _SCRIPTS else None
        if there:
            yield from _judge_file(image, interpreter, there, machine, depth + 1)
        else:
            yield findings.NODE_PROGRAM_INTERPRETER(path=place, interpreter=interpreter or "nothing")
        return
    problem = _why_not(head, machine)
    loader = "" if problem else _loader(path, head, machine)
    if problem or loader is None:
        got = problem or "a program that is cut short"
        yield findings.NODE_PROGRAM_UNFIT(path=place, got=got, expected=f"a program for {machine.word}")
    elif loader and not _there(image, loader):
        yield findings.NODE_PROGRAM_INTERPRETER(path=place, interpreter=loader)


def _there(image: ImageFiles, path: str) -> Located | None:
    located = image.files.file(path) if path.startswith("/") else None
    return located if located and located.entry.mode & 0o111 else None


def _why_not(head: bytes, machine: Architecture) -> str:
    if not head.startswith(_ELF) or len(head) < _HEAD_BYTES:
        return f"data that starts {head[:16]!r}" if head else "an empty file"
    (kind,) = struct.unpack_from(f"{machine.order}H", head, 16)
    if machine_word(head) != machine.word:
        return f"one for {machine_word(head)}"
    if head[4] != 2:
        return "one of 32 bits"
    return "" if kind in _EXECUTABLE else "an object that is no program"


def _loader(path: Path, head: bytes, machine: Architecture) -> str | None:
    """The dynamic loader that the program names, "" for none; None where the file ends before it tells."""
    (start,) = struct.unpack_from(f"{machine.order}Q", head, 32)
    size, count = struct.unpack_from(f"{machine.order}HH", head, 54)
    if size != _HEADER_BYTES or not 0 < count <= _HEADERS:
        return None
    table = _piece(path, start, size * count)
    for kind, _, offset, _, _, length, _, _ in struct.iter_unpack(f"{machine.order}IIQQQQQQ", table):
        if kind == _INTERPRETER:
            name = _piece(path, offset, min(length, _NAME_BYTES))
            return name.partition(b"\0")[0].decode("utf-8", "surrogateescape") or None
    return "" if table else None


def _piece(path: Path, start: int, size: int) -> bytes:
    """The bytes there; none when the file does not have all of them."""
    if start + size > path.stat().st_size:
        return b""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)
