"""Arguments of modprobe: the suite parses them as modprobe of this machine does."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from kmm_preflight.model import Flavour, ModuleName, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from kmm_preflight.worker.call_check import Place, check_call
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.modprobe_call import parse_call

from .real.requirement import need_tool

KERNEL = "6.1.0-1-amd64"
NOT_FOUND = re.compile(r"Module (\S*) not found in directory (\S*)/lib/modules/(\S*)")
CALLS = [
    "m", "m a=1", "-v m", "-vd /opt m", "-d/opt m", "--dirname=/opt m", "--dirname /opt m", "--dirn /opt m",
    "-d /a -d /b m", "-a m n", "m n", "m -a n", "-- m", "m -- -n", "-d", "-S k m", "-Sk m", "--set-version=k m",
    "m -d /opt", "--quiet=1 m", "-Z m", "--unknown m", "--sho m", "--rem m", "--ignore m", "-i m", "--f m", "",
    "-d /opt", "--first-time m", "-b m", "-C /etc/x m", "m -d/x", "- m", "m -", "-ad /opt m n",
]  # fmt: skip
"""Command lines without the options that only print."""


def answer(words: Sequence[str], modprobe: str) -> tuple[tuple[tuple[str, str, str], ...], str]:
    """Return names, folders and kernels that modprobe does not find, and its complaint about the words."""
    done = subprocess.run([modprobe, *words], capture_output=True, text=True, check=False, timeout=20)
    lines = done.stderr.splitlines()
    complaint = next((line for line in lines if "option" in line or "missing" in line), "")
    return tuple(NOT_FOUND.findall(done.stderr)), complaint


@pytest.mark.parametrize("line", CALLS)
def test_modprobe_and_the_suite_take_the_same_names(line: str, tmp_path: Path) -> None:
    modprobe = need_tool("modprobe", "apt-get install kmod")
    words = line.split()
    # The defaults come first, so that nothing is ever loaded: the last value of an option counts.
    defaults = ("-d", str(tmp_path), "-S", "none")
    found, complaint = answer([*defaults, *words], modprobe)
    call = parse_call([*defaults, *words])
    assert bool(call.loads_nothing) is bool(complaint), (call, complaint)
    if not complaint:
        assert found == tuple((name, call.directory, call.kernel) for name in call.names)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-n m", "-n only shows what it would do"),
        ("m --dry-run", "--dry-run only shows"),
        ("m --dry", "--dry only shows"),
        ("m --show", "--show only shows"),
        ("-vn m", "-n only shows"),
        ("-r m", "-r unloads kmods"),
        ("--remove-h m", "--remove-h unloads kmods"),
        ("-D m", "-D only prints"),
        ("--show-d m", "--show-d only prints"),
        ("-R m", "-R only looks names up"),
        ("-c", "-c only prints its configuration"),
        ("-V", "-V only prints"),
        ("-h", "-h only prints"),
        ("--show-exports m", "--show-exports only prints"),
        ("m -d", "-d has no value"),
        ("m --nonsense", "--nonsense is an unknown option"),
        ("-m", "-m is an unknown option"),
        ("", "the name of a kmod is missing"),
        ("-v", "the name of a kmod is missing"),
    ],
)
def test_calls_that_load_nothing(line: str, words: str) -> None:
    assert (parse_call(line.split()).loads_nothing or "").startswith(words)


def test_options_that_are_not_simulated() -> None:
    assert parse_call(["-f", "--first-time", "m", "-b", "-w", "5", "-C", "/x", "--force-vermagic"]).unsimulated == (
        "-f", "--first-time", "-b", "-w", "-C", "--force-vermagic"
    )  # fmt: skip
    assert parse_call(["-vqs", "-a", "m"]).unsimulated == ()


def plan(kmod: str | None = "m", *parameters: str, options: str = "", raw: str = "", directory: str = "/opt") -> Plan:
    kernel = TargetKernel(KERNEL, "amd64", None, Flavour.STANDARD, None, "the test")
    image = Reference.parse("registry.example/kmods:1")
    return Plan(ModuleName("demo", "m"), kernel, image, kmod, directory, load_options=tuple(options.split()),
                parameters=parameters, raw_arguments=tuple(raw.split()))  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "directory", "worker", "known", "place", "ids"),
    [
        ("-vd /tmp/opt m", "/opt", Worker.COPIED, True, Place.IMAGE, []),
        ("-vd /tmp/opt/ m", "opt", Worker.COPIED, True, Place.IMAGE, []),
        ("-vd /opt m", "/opt", Worker.COPIED, True, Place.ELSEWHERE, ["modprobe-other-folder"]),
        ("-vd /opt m", "/opt", Worker.COPIED, False, Place.IMAGE, ["modprobe-folder-moved"]),
        ("-vd /opt m", "/opt", Worker.POD, True, Place.IMAGE, []),
        ("-vd /var/x/fs/opt m", "/opt", Worker.UNPACKED, True, Place.IMAGE, ["modprobe-folder-moved"]),
        ("-vd /other m", "/opt", Worker.COPIED, False, Place.ELSEWHERE, ["modprobe-other-folder"]),
        ("-v m", "/opt", Worker.COPIED, True, Place.NODE, []),
        ("-d / m", "/opt", Worker.COPIED, True, Place.NODE, []),
        ("-d / m", "/", Worker.POD, True, Place.IMAGE, []),
        ("-d /tmp/opt -S 5.14.0 m", "/opt", Worker.COPIED, True, Place.ELSEWHERE, ["modprobe-other-folder"]),
        (f"-d /tmp/opt -S {KERNEL} m", "/opt", Worker.COPIED, True, Place.IMAGE, []),
        ("-n -d /tmp/opt m", "/opt", Worker.COPIED, True, Place.IMAGE, ["modprobe-loads-nothing"]),
    ],
)
def test_the_folder_of_raw_arguments(
    raw: str, directory: str, worker: Worker, known: bool, place: Place, ids: list[str]
) -> None:
    checked = check_call(plan(None, raw=raw, directory=directory), worker, known)
    assert (checked.place, [finding.id for finding in checked.findings]) == (place, ids)


@pytest.mark.parametrize(
    ("of", "ids"),
    [
        (plan(), []),
        (plan("m", "size=1", "-v"), []),
        (plan("m", "--dry-run"), ["modprobe-loads-nothing"]),
        (plan("m", "-n"), ["modprobe-loads-nothing"]),
        (plan("m", "-r"), ["modprobe-loads-nothing"]),
        (plan("m", "-d/x"), ["modprobe-other-folder"]),
        (plan("m", "-d", "/x"), ["modprobe-other-folder"]),
        (plan("m", "-S", "5.14.0"), ["modprobe-other-folder"]),
        (plan("m", "-x"), ["modprobe-loads-nothing"]),
        (plan("m", "--", "-n"), []),
        (plan("m", options="other"), ["modprobe-loads-nothing"]),
        (plan("-m"), ["modprobe-loads-nothing"]),
        (plan("m", directory="/"), []),
    ],
)
@pytest.mark.parametrize("worker", Worker)
def test_options_among_the_parameters(of: Plan, ids: list[str], worker: Worker) -> None:
    assert [finding.id for finding in check_call(of, worker, True).findings] == ids
