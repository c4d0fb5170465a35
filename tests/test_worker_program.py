"""Programs that KMM calls in an image: the image's own shell and the suite agree on them."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from kmm_preflight.model import Finding
from kmm_preflight.oci.document import parse_config
from kmm_preflight.worker import findings
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.program import SEARCH_PATH, judge_programs

from .layers import image_files
from .real.build import busybox
from .real.layout import Member, folder, hardlink, symlink
from .real.requirement import need_tool
from .real.worker import run_copy, unpack_layers

KERNEL = "5.14.0-1.el9.x86_64"
KMODS = [Member(f"opt/lib/modules/{KERNEL}/plain.ko", b"a kmod")]
WRAPPED = b'#! /bin/sh\nexec /bin/busybox cp "$@"\n'


def program(path: str, content: bytes = b"", mode: int = 0o755) -> Member:
    return Member(path, content or busybox(), mode=mode)


def linked(*names: str) -> list[Member]:
    """Return busybox and links to it. sh is dash: the shell of busybox has mkdir and cp built in."""
    shell = debian_programs("sh") if "sh" in names else []
    return [program("bin/busybox"), *shell, *(symlink(f"bin/{name}", "busybox") for name in names if name != "sh")]


def for_arm64(content: bytes) -> bytes:
    return content[:18] + (183).to_bytes(2, "little") + content[20:]


@cache
def debian_programs(*tools: str, without: str = "\0") -> list[Member]:
    """Return programs of this machine with the libraries that they name."""
    members = {}
    for name, place in (("sh", "bin/sh"), ("mkdir", "usr/bin/mkdir"), ("cp", "usr/bin/cp")):
        if name in tools:
            path = need_tool(name, "a Debian 12 machine")
            members[place] = Path(path).read_bytes()
            output = subprocess.run(["ldd", path], capture_output=True, text=True, check=True, timeout=60).stdout
            members |= {lib.lstrip("/"): Path(lib).read_bytes() for lib in re.findall(r"(/\S+) \(0x", output)}
    return [program(place, content) for place, content in members.items() if without not in place]


ALL = ("sh", "mkdir", "cp")
IMAGES: dict[str, tuple[Callable[[], list[Member]], list[str]]] = {
    "nothing": (list, ["absent /bin/sh", "absent mkdir", "absent cp"]),
    "busybox with links": (
        lambda: [program("bin/busybox"), *(symlink(f"bin/{name}", "busybox") for name in ALL)], []),
    "dash and busybox": (lambda: linked(*ALL), []),
    "busybox with hard links": (
        lambda: [program("bin/busybox"),
                 *(replace(hardlink(f"bin/{name}", "bin/busybox"), mode=0o755) for name in ALL)], []),
    "usr merge": (
        lambda: [symlink("bin", "usr/bin"), program("usr/bin/busybox"),
                 *(symlink(f"usr/bin/{name}", "/bin/busybox") for name in ALL)], []),
    "only the shell": (lambda: linked("sh"), ["absent mkdir", "absent cp"]),
    "no shell": (lambda: linked("mkdir", "cp"), ["absent /bin/sh"]),
    "tools in sbin": (
        lambda: [*linked("sh"), symlink("usr/local/sbin/cp", "/bin/busybox"), symlink("sbin/mkdir", "/bin/busybox")],
        []),
    "tools out of the way": (lambda: [*linked("sh", "mkdir"), symlink("opt/bin/cp", "/bin/busybox")], ["absent cp"]),
    "a dangling link": (lambda: [*linked("mkdir", "cp"), symlink("bin/sh", "bash")], ["absent /bin/sh"]),
    "a folder": (lambda: [*linked("sh", "mkdir"), folder("bin/cp")], ["absent cp"]),
    "not executable": (lambda: [*linked("sh", "mkdir"), program("bin/cp", mode=0o644)], ["absent cp"]),
    "not executable, and a good one after it": (
        lambda: [*linked(*ALL), program("usr/bin/cp", b"text", mode=0o644)], []),
    "a folder, and a good one after it": (lambda: [*linked(*ALL), folder("usr/bin/cp")], []),
    "a shell for arm64": (lambda: [*linked("mkdir", "cp"), program("bin/sh", for_arm64(busybox()))], ["unfit /bin/sh"]),
    "tools for arm64": (
        lambda: [*linked("sh"), program("bin/cp", for_arm64(busybox())), symlink("bin/mkdir", "cp")],
        ["unfit /bin/mkdir", "unfit /bin/cp"]),
    "a shell cut short": (lambda: [*linked("mkdir", "cp"), program("bin/sh", busybox()[:63])], ["unfit /bin/sh"]),
    "a shell of headers alone": (
        lambda: [*linked("mkdir", "cp"), program("bin/sh", busybox()[:100])], ["unfit /bin/sh"]),
    "an empty shell": (lambda: [*linked("mkdir", "cp"), Member("bin/sh", mode=0o755)], ["unfit /bin/sh"]),
    "a kmod for a shell": (
        lambda: [*linked("mkdir", "cp"), program("bin/sh", busybox()[:16] + b"\1\0" + busybox()[18:])],
        ["unfit /bin/sh"]),
    "cp as a script": (lambda: [*linked("sh", "mkdir"), program("bin/cp", WRAPPED)], []),
    "cp as a script without its interpreter": (
        lambda: [*linked("sh", "mkdir"), program("bin/cp", WRAPPED.replace(b"/bin/sh", b"/bin/zsh"))],
        ["interpreter /bin/cp"]),
    "scripts in a circle": (
        lambda: [*linked("sh", "mkdir"), program("bin/cp", b"#!/bin/cp\n")], ["interpreter /bin/cp"]),
    "programs of Debian": (lambda: debian_programs(*ALL), []),
    "programs of Debian without a loader": (
        lambda: debian_programs(*ALL, without="ld-linux"),
        ["interpreter /bin/sh", "interpreter /usr/bin/mkdir", "interpreter /usr/bin/cp"]),
}  # fmt: skip


def judged(members: list[Member], scratch: Path, search_path: str | None = None, **more: object) -> list[Finding]:
    image = image_files([members], scratch, search_path)
    worker = more.get("worker", Worker.COPIED)
    assert isinstance(worker, Worker)
    return list(judge_programs(image, worker, str(more.get("arch", "amd64")), bool(more.get("firmware"))))


def shown(results: list[Finding]) -> list[str]:
    """Return the end of the id and the first path or name in each sentence."""
    return [f"{finding.id.rpartition('-')[2]} {finding.sentence.split()[2]}" for finding in results]


@pytest.mark.parametrize("label", IMAGES)
def test_the_shell_and_the_suite_agree(label: str, tmp_path: Path) -> None:
    make, want = IMAGES[label]
    members = [*make(), *KMODS]
    assert shown(judged(members, tmp_path / "cache")) == want
    unpack_layers([members], tmp_path / "image")
    done = run_copy(tmp_path / "image", "/opt", KERNEL)
    copy = tmp_path / f"image/tmp/opt/lib/modules/{KERNEL}/plain.ko"
    assert ((done.returncode == 0) and copy.exists()) == (not want), done.stderr


def test_the_image_s_own_search_path_counts(tmp_path: Path) -> None:
    members = [*linked("sh", "mkdir"), symlink("opt/bin/cp", "/bin/busybox"), *KMODS]
    unpack_layers([members], tmp_path / "image")
    for number, (path, works) in enumerate({"/bin:/opt/bin": True, "/sbin:/bin": False, "/opt/bin": False}.items()):
        assert (not judged(members, tmp_path / str(number), path)) == works
        assert (run_copy(tmp_path / "image", "/opt", KERNEL, search_path=path).returncode == 0) == works


@pytest.mark.parametrize(
    ("worker", "firmware", "want"),
    [
        (Worker.POD, False, ["/bin/sh", "modprobe", "sleep"]),
        (Worker.POD, True, ["/bin/sh", "modprobe", "sleep", "cp"]),
        (Worker.UNPACKED, True, []),
        (Worker.COPIED, True, ["/bin/sh", "mkdir", "cp"]),
    ],
)
def test_the_called_programs_depend_on_the_version(
    worker: Worker, firmware: bool, want: list[str], tmp_path: Path
) -> None:
    results = judged([], tmp_path, worker=worker, firmware=firmware)
    assert shown(results) == [f"absent {name}" for name in want]


def test_a_finding_names_the_entry_at_the_path(tmp_path: Path) -> None:
    members = [*linked("cp"), program("bin/mkdir", for_arm64(busybox())), symlink("bin/sh", "/usr/bin/bash")]
    assert judged(members, tmp_path) == [
        findings.NODE_PROGRAM_ABSENT(
            program="/bin/sh", got="/bin/sh is a link to /usr/bin/bash (/usr is not in the image)"
        ),
        findings.NODE_PROGRAM_UNFIT(path="/bin/mkdir", got="a program for aarch64", expected="a program for x86_64"),
    ]
    got = f"it is not in {SEARCH_PATH}"
    assert judged(linked("sh", "cp"), tmp_path / "b") == [findings.NODE_PROGRAM_ABSENT(program="mkdir", got=got)]


def test_each_architecture_accepts_its_own_programs_only(tmp_path: Path) -> None:
    assert len(judged(linked(*ALL), tmp_path / "a", arch="arm64")) == len(ALL)
    members = [program("bin/busybox", for_arm64(busybox())), *(symlink(f"bin/{name}", "busybox") for name in ALL)]
    assert judged(members, tmp_path / "b", arch="arm64") == []


def test_a_damaged_program_never_raises_an_error(tmp_path: Path) -> None:
    chance, good = random.Random(6), debian_programs("sh")[0].data[: 1 << 12]
    results = set()
    for _ in range(200):
        changed = bytearray(good)
        for _ in range(chance.randrange(1, 9)):
            changed[chance.randrange(600)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        cut = bytes(changed[: chance.choice((len(changed), chance.randrange(1, 1200)))])
        results |= set(shown(judged([program("bin/sh", cut)], tmp_path)))
    assert results - {"absent mkdir", "absent cp"} == {"unfit /bin/sh", "interpreter /bin/sh"}, "no loader in the image"


@pytest.mark.parametrize(
    ("env", "want"),
    [
        (None, None),
        ([], None),
        (["A=1"], None),
        (["PATH=/a:/b"], "/a:/b"),
        (["PATH=/a", "XPATH=/c", None, "PATH=/b"], "/b"),
    ],
)
def test_the_search_path_is_read_from_the_image_s_config(env: object, want: str | None) -> None:
    body = json.dumps({"os": "linux", "architecture": "amd64", "config": {"Env": env}}).encode()
    assert parse_config(body, "config").search_path == want
