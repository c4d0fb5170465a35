"""A kubeconfig as `kubectl config` would write it, with everything inside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import yaml


def write_kubeconfig(path: Path, url: str, ca: Path, user: Mapping[str, str | bytes]) -> Path:
    """One cluster, one user, one context; user is a kubeconfig's, its bytes in base64: {"token": ...} and the like."""
    fields = {key: value if isinstance(value, str) else _base64(value) for key, value in user.items()}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "test", "cluster": {"server": url, "certificate-authority-data": _base64(ca.read_bytes())}}
        ],
        "users": [{"name": "test", "user": fields}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
