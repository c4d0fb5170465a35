"""The custom resources of KMM as files: the project's own short ones, and those that KMM and OpenShift released."""

from __future__ import annotations

import os
from pathlib import Path

from tests.real.requirement import need

_OWN = Path(__file__).parent / "crds"

MODULES = _OWN / "modules.yaml"
"""Module, which all generations share."""

PREFLIGHTS = {name: _OWN / f"preflights-{name}.yaml" for name in ("seed", "list", "later")}
"""PreflightValidationOCP by generation: KMM 1.0 to 2.0, 2.1 to 2.3, 2.4 and later; a cluster holds one of them."""

RELEASED = ("kmm-1.1", "kmm-2.3", "kmm-main", "openshift", "sig-main")
"""The folders of released definitions."""


def released(name: str) -> Path:
    """One of those folders, which lie in $PREFLIGHT_REAL_DATA/crds because they are other projects' files."""
    folder = Path(os.environ.get("PREFLIGHT_REAL_DATA", os.devnull)) / "crds" / name
    need(f"the definitions of {name}", folder.is_dir(), "PREFLIGHT_REAL_DATA=a folder with them in crds/")
    return folder
