"""Preflight validation of every Module on every kernel that nodes will boot after the upgrade."""

from __future__ import annotations

import pytest

from fixtures.stages import settle
from kmm_preflight.model import StageResult


@pytest.mark.stage("Image")
def test_image(image_result: StageResult) -> None:
    """The image can be had, and holds the kmod in <DirName>/lib/modules/<UpgradedKernel>/."""
    settle(image_result)


@pytest.mark.stage("Build")
def test_build(build_result: StageResult) -> None:
    """The image failed and there is a build section: its build succeeds."""
    settle(build_result)


@pytest.mark.stage("Sign")
def test_sign(sign_result: StageResult) -> None:
    """The image failed, a build if any passed, and there is a sign section: signing succeeds."""
    settle(sign_result)
