"""Programs of an image that KMM calls on the node: a shell must find them, and the node must be able to run them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.machine import MACHINES, Architecture, machine_word
from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import FileSystem, LinkBroken, Located
from kmm_preflight.worker import findings
from kmm_preflight.worker.kind import Worker

SHELL = "/bin/sh"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of a container whose image does not set it."""
PROGRAM_FILES = frozenset(
    f"{folder}/{name}"
    for folder in ("bin", "usr/bin", "sbin", "usr/sbin")
    for name in ("sh", "bash", "dash", "busybox", "coreutils", "cp", "mkdir", "sleep", "modprobe", "kmod")
)
"""Paths of these programs, or of the files behind links to them. Their bytes are kept when a layer is read."""

_ELF = b"\x7fELF"
_HEAD_BYTES, _HEADER_BYTES = 64, 56
_HEADERS, _NAME_BYTES = 256, 4096
_INTERPRETER = 3
_EXECUTABLE = (2, 3)  # ET_EXEC, ET_DYN
# The kernel follows this many scripts that are interpreters of each other.
_SCRIPTS = 4
_SCRIPT_HEAD = 256
_FOLDERS = 64
_CUT_SHORT = "a program that is cut short"


@dataclass(frozen=True)
class ImageFiles:
    """The files of an image."""

    files: FileSystem
    """Names, kinds and modes."""
    content: Callable[[Located], Path]
    """Function that returns a local file with the bytes of an image's file."""
    search_path: str | None = None
    """PATH in the image's configuration, or None."""


def called_programs(worker: Worker, firmware: bool) -> tuple[str, ...]:
    """Return the programs of the image that KMM calls, besides the shell.

    firmware: the Module has a firmwarePath.
    """
    match worker:
        case Worker.POD:
            return ("modprobe", "sleep", "cp") if firmware else ("modprobe", "sleep")
        case Worker.UNPACKED:
            return ()
        case Worker.COPIED:
            return ("mkdir", "cp")


def judge_programs(image: ImageFiles, worker: Worker, arch: str, firmware: bool) -> Iterator[Finding]:
    """Yield findings for programs that KMM calls and that a node of the architecture cannot run.

    arch: Go's spelling.
    """
    names = called_programs(worker, firmware)
    if not names:
        return
    machine = MACHINES[arch]
    for name, places in ((SHELL, [SHELL]), *((name, _places(image.search_path, name)) for name in names)):
        yield from _judge(image, name, places, machine)


def _places(search_path: str | None, name: str) -> list[str]:
    folders = [folder for folder in (search_path or SEARCH_PATH).split(":") if folder.startswith("/")]
    return [f"{folder.rstrip('/')}/{name}" for folder in folders[:_FOLDERS]]


def _judge(image: ImageFiles, name: str, places: list[str], machine: Architecture) -> Iterator[Finding]:
    got = f"it is not in {':'.join(place.rpartition('/')[0] for place in places)}"
    for place in places:
        located = image.files.file(place)
        if located and located.entry.mode & 0o111:
            yield from _judge_file(image, place, located, machine)
            return
        if problem := _entry_problem(image, place, located):
            got = problem
    yield findings.NODE_PROGRAM_ABSENT(program=name, got=got)


def _entry_problem(image: ImageFiles, place: str, located: Located | None) -> str | None:
    """Return words for an entry at the place that is not a program, or None without an entry."""
    if located:
        return f"{place} is not executable"
    try:
        entry = image.files.resolve(place)
    except LinkBroken as exc:
        return f"{place} is a link to {exc.target} ({exc.problem})"
    return f"{place} is not a file" if entry else None


def _judge_file(
    image: ImageFiles, place: str, located: Located, machine: Architecture, depth: int = 0
) -> Iterator[Finding]:
    """Yield the finding for a script without a working interpreter, or a program that the node cannot run."""
    path = image.content(located)
    with path.open("rb") as file:
        head = file.read(_SCRIPT_HEAD)
    if head.startswith(b"#!"):
        yield from _judge_script(image, place, head, machine, depth)
        return
    try:
        loader = _loader(path, head, machine)
    except Malformed as exc:
        yield findings.NODE_PROGRAM_UNFIT(path=place, got=exc.message, expected=f"a program for {machine.word}")
        return
    if loader and not _executable(image, loader):
        yield findings.NODE_PROGRAM_INTERPRETER(path=place, interpreter=loader)


def _judge_script(image: ImageFiles, place: str, head: bytes, machine: Architecture, depth: int) -> Iterator[Finding]:
    words = head[2:].partition(b"\n")[0].split()
    interpreter = words[0].decode("utf-8", "surrogateescape") if words else None
    located = _executable(image, interpreter) if interpreter and depth < _SCRIPTS else None
    if interpreter and located:
        yield from _judge_file(image, interpreter, located, machine, depth + 1)
    else:
        yield findings.NODE_PROGRAM_INTERPRETER(path=place, interpreter=interpreter or "an interpreter")


def _executable(image: ImageFiles, path: str) -> Located | None:
    """Return the executable file at an absolute path, or None."""
    located = image.files.file(path) if path.startswith("/") else None
    return located if located and located.entry.mode & 0o111 else None


def _loader(path: Path, head: bytes, machine: Architecture) -> str | None:
    """Return the dynamic loader that a program names, or None if it is linked statically.

    Raise Malformed if the file is not a whole 64-bit program of the architecture.
    """
    _check_header(head, machine)
    (start,) = struct.unpack_from(f"{machine.order}Q", head, 32)
    size, count = struct.unpack_from(f"{machine.order}HH", head, 54)
    if size != _HEADER_BYTES or not 0 < count <= _HEADERS:
        raise Malformed(_CUT_SHORT)
    table = _piece(path, start, size * count)
    for kind, _, offset, _, _, length, _, _ in struct.iter_unpack(f"{machine.order}IIQQQQQQ", table):
        if kind == _INTERPRETER:
            name = _piece(path, offset, min(length, _NAME_BYTES)).partition(b"\0")[0]
            if not name:
                raise Malformed(_CUT_SHORT)
            return name.decode("utf-8", "surrogateescape")
    return None


def _check_header(head: bytes, machine: Architecture) -> None:
    if not head.startswith(_ELF) or len(head) < _HEAD_BYTES:
        raise Malformed(f"data that starts {head[:16]!r}" if head else "an empty file")
    (kind,) = struct.unpack_from(f"{machine.order}H", head, 16)
    if machine_word(head) != machine.word:
        raise Malformed(f"a program for {machine_word(head)}")
    if head[4] != 2:
        raise Malformed("a 32-bit program")
    if kind not in _EXECUTABLE:
        raise Malformed("an object that is not a program")


def _piece(path: Path, start: int, size: int) -> bytes:
    """Return bytes of the file. Raise Malformed if the file does not have all of them."""
    if start + size > path.stat().st_size:
        raise Malformed(_CUT_SHORT)
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)
