"""The wheel of this clone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.runs import ROOT


def build_wheel(folder: Path, source: Path = ROOT) -> Path:
    """Build the wheel of a source tree into a folder, without a network, and return its path."""
    _build(folder, source, "wheel")
    return next(folder.glob("*.whl"))


def build_sdist(folder: Path) -> Path:
    """Build the source distribution of this clone into a folder, and return its path."""
    _build(folder, ROOT, "sdist")
    return next(folder.glob("*.tar.gz"))


def _build(folder: Path, source: Path, target: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", f"--target={target}", f"--directory={folder}"]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
