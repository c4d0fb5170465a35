"""Small kmods that the loader accepts and whose init then does something special, compiled for a Debian kernel."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from .cache import kept
from .kmod import headers, run_checked
from .requirement import need_tool

_SOURCE = Path(__file__).with_name("kmod_source") / "trial"


def behaving(release: str) -> dict[str, bytes]:
    """Return the kmods by module name. They are compiled once and cached."""
    sources = sorted(_SOURCE.glob("*.c"))
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    folder = kept(f"behaving/{release}/{version}", lambda scratch: _make(release, sources, scratch))
    return {path.stem: path.read_bytes() for path in folder.iterdir()}


def _make(release: str, sources: list[Path], scratch: Path) -> Path:
    need_tool("gcc-12", "apt-get install gcc-12")
    make = need_tool("make", "apt-get install make")
    for path in sources:
        shutil.copy(path, scratch)
    (scratch / "Kbuild").write_text(f"obj-m := {' '.join(f'{path.stem}.o' for path in sources)}\n")
    run_checked([make, "-C", str(headers(release)), f"M={scratch.resolve()}", "modules"], scratch)
    result = scratch / "made"
    result.mkdir()
    for path in scratch.glob("*.ko"):
        path.rename(result / path.name)
    return result
