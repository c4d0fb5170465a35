"""The digest of the judging code changes with the code and with the libraries that judge, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.judging_code import rules
from kmm_preflight.status.rules_digest import DIGITS, rules_digest

VERSIONS: dict[str, str | None] = {"cryptography": "45.0.0", "google-re2": None}


def package(folder: Path) -> Path:
    """Write a small package."""
    (folder / "kmod").mkdir(parents=True)
    (folder / "model.py").write_bytes(b"a = 1\nb = 2\n")
    (folder / "kmod" / "loader.py").write_bytes(b"c = 3\n")
    return folder


def digest(folder: Path, versions: dict[str, str | None] = VERSIONS) -> str:
    return rules_digest({"kmm_preflight": folder}, versions)


def write(name: str, content: bytes) -> Callable[[Path], object]:
    """Return a change that writes a file of the package."""

    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return change


@pytest.mark.parametrize(
    "change",
    [
        write("kmod/loader.py", b"c = 4\n"),
        write("kmod/new.py", b""),
        lambda folder: (folder / "kmod/loader.py").rename(folder / "kmod/other.py"),
        lambda folder: (folder / "kmod/loader.py").unlink(),
    ],
    ids=["edited", "added", "renamed", "removed"],
)
def test_a_change_of_the_code_changes_the_digest(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = package(tmp_path / "a")
    before = digest(folder)
    change(folder)
    assert digest(folder) != before


@pytest.mark.parametrize("versions", [{**VERSIONS, "cryptography": "46.0.0"}, {**VERSIONS, "google-re2": "1.1"}])
def test_another_version_of_a_library_changes_the_digest(tmp_path: Path, versions: dict[str, str | None]) -> None:
    folder = package(tmp_path / "a")
    assert digest(folder, versions) != digest(folder)


@pytest.mark.parametrize(
    "change",
    [
        write("model.py", b"a = 1\r\nb = 2\r\n"),
        write("__pycache__/model.cpython-311.pyc", b"x"),
        write("suite/fixtures/stages.py", b"d = 5\n"),
        write("notes.txt", b"x"),
    ],
    ids=["line ends", "bytecode", "suite of the wheel", "other files"],
)
def test_the_digest_is_the_same_in_a_clone_and_in_a_wheel(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder, other = package(tmp_path / "a"), package(tmp_path / "b")
    change(other)
    assert digest(other) == digest(folder)


def test_this_process_has_a_digest() -> None:
    assert len(rules()) == DIGITS
    assert rules() == rules()
