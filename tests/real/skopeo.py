"""Skopeo as an independent judge of what a registry holds and whom it admits."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import TYPE_CHECKING, Literal

from .requirement import need_tool

if TYPE_CHECKING:
    from pathlib import Path

    from .registry import Registry


def skopeo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run skopeo, which leaves nothing behind; its exit code and its words are the caller's to judge."""
    program = need_tool("skopeo", "apt-get install skopeo")
    with tempfile.TemporaryDirectory() as scratch:
        # Root's cache of blobs lies in /var/lib unless this variable says that an ordinary user started it all.
        own = {"_CONTAINERS_ROOTLESS_UID": "1000"}
        own |= dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"), scratch)
        command = [program, "--insecure-policy", "--tmpdir", scratch, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **own})


def access(registry: Registry, authfile: Path, side: Literal["", "src-", "dest-"] = "") -> list[str]:
    """Options that let skopeo trust the registry and log in; the side is where `copy` meets it."""
    trust = [f"--{side}cert-dir", str(registry.cert_dir)] if registry.cert_dir else [f"--{side}tls-verify=false"]
    return [f"--{side}authfile", str(authfile), *trust]
