"""What a test needs from the machine: missing parts skip the test, or fail it where all parts are demanded."""

from __future__ import annotations

import os
import shutil

import pytest


def need(what: str, present: bool, enable: str) -> None:
    """Skip the running test unless present; with PREFLIGHT_REAL_PARTS=required it fails instead, so CI cannot skip."""
    if present:
        return
    text = f"{what} is not here; enable it with: {enable}"
    if os.environ.get("PREFLIGHT_REAL_PARTS") == "required":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def need_tool(name: str, enable: str) -> str:
    """The path of an executable, which may live in an sbin folder that an ordinary user's PATH lacks."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    need(name, found is not None, enable)
    assert found is not None
    return found
