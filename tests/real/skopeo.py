"""skopeo, as an independent check of a registry's content and access."""

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
    """Run skopeo in a scratch folder. Return its exit code and output; the caller checks them."""
    program = need_tool("skopeo", "apt-get install skopeo")
    with tempfile.TemporaryDirectory() as scratch:
        # As root, skopeo has its blob cache in /var/lib. This variable makes it act as for an ordinary user.
        own = {"_CONTAINERS_ROOTLESS_UID": "1000"}
        own |= dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"), scratch)
        command = [program, "--insecure-policy", "--tmpdir", scratch, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **own})


def access(registry: Registry, authfile: Path, side: Literal["", "src-", "dest-"] = "") -> list[str]:
    """Return options for trust and login. The side says whether the registry is source or destination of `copy`."""
    trust = [f"--{side}cert-dir", str(registry.cert_dir)] if registry.cert_dir else [f"--{side}tls-verify=false"]
    return [f"--{side}authfile", str(authfile), *trust]
