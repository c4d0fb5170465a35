"""A clone on a Python that cannot run the suite: one line, exit code 4, and no report of an earlier run."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.requirement import need
from tests.runs import ROOT

FIRST_READ = ("conftest.py", "fixtures/__init__.py", "fixtures/prerequisites.py", "kmm_preflight/__init__.py",
              "kmm_preflight/entry/__init__.py", "kmm_preflight/entry/places.py")  # fmt: skip
"""Files that are read before the version of Python is checked."""
PATIENCE_S = 300


@pytest.mark.parametrize("name", FIRST_READ)
def test_what_is_read_first_parses_on_an_old_python(name: str) -> None:
    ast.parse((ROOT / name).read_text(), feature_version=(3, 7))


def test_what_is_read_first_imports_only_itself_and_the_standard_library() -> None:
    imported = set()
    for name in FIRST_READ:
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            match node:
                case ast.Import():
                    imported |= {alias.name for alias in node.names}
                case ast.ImportFrom(module=str(module)):
                    imported.add(module)
    ours = {name.removesuffix(".py").replace("/", ".") for name in FIRST_READ}
    others = {name for name in imported - ours if name.partition(".")[0] not in sys.stdlib_module_names}
    assert others == {"packaging.requirements"}, "pytest itself needs packaging"


def _venv_with_pytest(python: str, folder: Path) -> Path:
    """Return the Python of a new venv that has pytest and nothing else."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True, timeout=PATIENCE_S)
    command = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "pytest>=9.1.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    need("pytest for another Python", done.returncode == 0, f"a network in which pip works ({done.stderr[-300:]})")
    return folder / "bin/python"


def _refusal(python: Path | str, tmp_path: Path, **variables: str) -> str:
    """Return the one line on stderr of a run in this clone. No report of an earlier run may stay."""
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    (artifacts / "preflight.json").write_text("verified")
    (artifacts / "notes.txt").write_text("of somebody else")
    done = subprocess.run(
        [python, "-m", "pytest", "--release-image=4.18.3", "-p", "no:cacheprovider", f"--artifact-dir={artifacts}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert done.stdout == ""
    assert [path.name for path in artifacts.iterdir()] == ["notes.txt"]
    (line,) = done.stderr.splitlines()
    return line


def _old_python() -> str:
    """Return a Python that is older than the oldest that the suite runs on."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [
        *map(str, versions.glob("3.10.*/bin/python3.10")),
        shutil.which("python3.10"),
        shutil.which("python3"),
    ]
    check = "import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 11))"
    for python in candidates:
        if python and subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0:
            return python
    need("Python 3.10", False, "pyenv install 3.10")
    raise AssertionError


def test_an_old_python(tmp_path: Path) -> None:
    python = _venv_with_pytest(_old_python(), tmp_path / "venv")
    line = _refusal(python, tmp_path)
    assert line.startswith(f"ERROR: kmm-preflight needs Python 3.11 or later: {python} is Python 3.10.")


def test_the_package_is_not_installed(tmp_path: Path) -> None:
    python = _venv_with_pytest(sys.executable, tmp_path / "venv")
    line = _refusal(python, tmp_path)
    assert line == (f"ERROR: kmm-preflight is not installed for {python}. Type: {python} -m pip install -e {ROOT}")


def test_a_dependency_is_missing_or_too_old(tmp_path: Path) -> None:
    python = _venv_with_pytest(sys.executable, tmp_path / "venv")
    _write_metadata(
        tmp_path / "path", "kmm_preflight", "0.1.0", "pytest>=9", "urllib3>=2.6.3", "filelock>=3", "x; extra == 'test'"
    )
    _write_metadata(tmp_path / "path", "filelock", "2.9")
    line = _refusal(python, tmp_path, PYTHONPATH=str(tmp_path / "path"))
    assert line.startswith("ERROR: packages are missing: urllib3>=2.6.3, filelock>=3. Type: ")


def _write_metadata(folder: Path, name: str, version: str, *requirements: str) -> None:
    information = folder / f"{name}-{version}.dist-info"
    information.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
    (information / "METADATA").write_text("\n".join(lines) + "\n")
