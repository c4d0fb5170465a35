"""Requirements of a test: a missing part of the machine skips the test, or fails it in the gate."""

from __future__ import annotations

import os
import shutil

import pytest


def need(what: str, present: bool, enable: str) -> None:
    """Skip the running test unless the part is present.

    With PREFLIGHT_REAL_PARTS=required, fail instead. With PREFLIGHT_REAL_PARTS=none, skip always,
    as on a machine without real parts.
    """
    if os.environ.get("PREFLIGHT_REAL_PARTS") == "none":
        pytest.skip(f"{what}: real parts are switched off by PREFLIGHT_REAL_PARTS=none", allow_module_level=True)
    if present:
        return
    text = f"{what} is not here; enable it with: {enable}"
    if os.environ.get("PREFLIGHT_REAL_PARTS") == "required":
        pytest.fail(text, pytrace=False)
    pytest.skip(text, allow_module_level=True)  # some parts are needed while tests are collected


def need_tool(name: str, enable: str) -> str:
    """Return the path of an executable. Look into sbin folders too, which an ordinary user's PATH lacks."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    need(name, path is not None, enable)
    assert path is not None
    return path
