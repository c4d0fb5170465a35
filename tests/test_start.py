"""Options whose value stands behind a space, where the value is a path outside the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kmm_preflight_start import joined
from tests.demo import RELEASE, ROOT


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--manifests", "a", "-n", "0"], ["--manifests=a", "-n", "0"]),
        (["--manifests=a", "tests/x.py"], ["--manifests=a", "tests/x.py"]),
        (["--realtime", "tests/x.py"], ["--realtime", "tests/x.py"]),
        (["--manifests", "-"], ["--manifests=-"]),
        (["--manifests"], ["--manifests"]),
    ],
)
def test_joined(given: list[str], told: list[str]) -> None:
    assert joined(given, {"--manifests"}) == told


@pytest.mark.parametrize("program", [["-m", "pytest"], [str(Path(sys.executable).with_name("pytest"))]], ids=len)
def test_a_value_behind_a_space_is_no_test_path(tmp_path: Path, program: list[str]) -> None:
    shutil.copytree(ROOT / "demo/modules", tmp_path / "modules")
    (tmp_path / "artifacts").mkdir()
    options = ["--release-image", RELEASE, "--image-layout", str(ROOT / "demo/images"), "--manifests",
               str(tmp_path / "modules"), "--artifact-dir", str(tmp_path / "artifacts"), "--cache-dir",
               str(tmp_path / "cache"), "-n", "0", "-p", "no:cacheprovider"]  # fmt: skip
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, *program, *options], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert "VERIFIED  demo/hello" in run.stdout
        assert (tmp_path / "artifacts" / "preflight.json").exists()
