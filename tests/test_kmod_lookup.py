"""The files that modprobe loads for a name, and the findings if it loads none."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmm_preflight.kmod import findings
from kmm_preflight.kmod.lookup import LookupResult, ModprobeFolder, look_up
from kmm_preflight.kmod.names import wanted_key
from kmm_preflight.model import Finding

from .index_bytes import PREFIX, VALUES, index_of, leaf
from .objects import Object
from .real.kmod import run, run_checked
from .real.requirement import need_tool

RELEASE = "6.1.0-1-amd64"
PLACE = ModprobeFolder("/opt", RELEASE, f"opt/lib/modules/{RELEASE}")
WHERE = {"folder": PLACE.folder, "directory": "/opt", "kernel": RELEASE}
INDEX = index_of(leaf(b"a_b", b"x/a-b.ko: host/c.ko d.ko"), root=PREFIX | VALUES | 12)
FILES = frozenset(f"{PLACE.folder}/{path}" for path in ("x/a-b.ko", "host/c.ko", "d.ko"))


def looked_up(
    index: bytes | None, name: str = "a-b", names: tuple[str, ...] = (), without: str = ""
) -> LookupResult | Finding:
    """Look up a name in a folder that has all files but one."""
    files = FILES - {f"{PLACE.folder}/{without}"}
    return look_up(PLACE, name, index, frozenset(names), lambda path: path in files)


def test_dependencies_are_loaded_first() -> None:
    assert looked_up(INDEX) == LookupResult(
        tuple(f"{PLACE.folder}/{path}" for path in ("d.ko", "host/c.ko", "x/a-b.ko"))
    )


def test_a_folder_without_an_index() -> None:
    assert looked_up(None) == findings.INDEX_ABSENT(got="modules.dep.bin is missing", **WHERE)
    got = "modules.dep.bin is missing, and the text file modules.dep does not count"
    assert looked_up(None, names=("modules.dep",)) == findings.INDEX_ABSENT(got=got, **WHERE)


def test_a_damaged_index() -> None:
    assert looked_up(b"") == findings.INDEX_DAMAGED(got="0 bytes, expected a head of 12", **WHERE)
    assert looked_up(INDEX[:-20]) == findings.INDEX_DAMAGED(got="a string at byte 24 that does not end", **WHERE)


def test_the_finding_about_an_unknown_name_has_the_known_names() -> None:
    assert looked_up(INDEX, "other") == findings.INDEX_LACKS_KMOD(kmod="other", got="a_b", **WHERE)


def test_an_index_that_leads_to_a_missing_file() -> None:
    assert looked_up(INDEX, without="x/a-b.ko") == findings.INDEX_STALE(kmod="a-b", path="x/a-b.ko", **WHERE)


def test_with_a_missing_dependency_the_kmod_is_loaded_alone() -> None:
    note = findings.INDEX_DEPENDENCY_MISSING(kmod="a-b", paths="host/c.ko", **WHERE)
    assert looked_up(INDEX, without="host/c.ko") == LookupResult((f"{PLACE.folder}/x/a-b.ko",), (note,))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a-b", "a_b"),
        ("a-[1]-b", "a_[1]_b"),
        ("a[x-y]", "a[x-y]"),
        ("-[-]-[-[-]-", "_[-]_[-[-]_"),
        ("[]", "[]"),
        ("a]", ""),
        ("a[", ""),
        ("a[1]]", ""),
        ("a[1", ""),
        ("a.b-c", "a.b_c"),
        ("", ""),
        ("[" * 100_000, ""),
        ("[]" * 50_000, "[]" * 50_000),
    ],
)
def test_brackets_in_a_name(name: str, key: str) -> None:
    assert wanted_key(name) == key


@pytest.mark.parametrize(
    "name", ["a[1]", "b[x-y]", "b[x_y]", "c]", "d[", "e-[1]", "e_[1]", "f_[x_y]", "f-[x-y]", "[a]b"]
)
def test_modprobe_and_the_suite_find_the_same_names_with_brackets(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "lib/modules" / RELEASE
    folder.mkdir(parents=True)
    kmod = Object().packed()
    for file in ("a[1]", "b[x-y]", "c]", "d[", "e-[1]", "f_[x_y]"):
        (folder / f"{file}.ko").write_bytes(kmod)
    run_checked([need_tool("depmod", "apt-get install kmod"), "-b", str(tmp_path), RELEASE], tmp_path)
    found = run(
        [need_tool("modprobe", "apt-get install kmod"), "--show-depends", "-d", str(tmp_path), "-S", RELEASE, name],
        tmp_path,
    )
    index = (folder / "modules.dep.bin").read_bytes()
    result = look_up(PLACE, name, index, frozenset(), lambda path: True)
    assert isinstance(result, LookupResult) is (found.returncode == 0), found.stderr
