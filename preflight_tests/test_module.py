"""Preflight validation of every Module on every kernel that nodes will boot after the upgrade."""

from __future__ import annotations

import pytest

from fixtures.stages import settle
from kmm_preflight.model import StageResult


@pytest.mark.stage("Image")
def test_image(image_result: StageResult) -> None:
    """Check that the image can be pulled and has the kmod in <DirName>/lib/modules/<UpgradedKernel>/."""
    settle(image_result)


@pytest.mark.stage("Build")
def test_build(build_result: StageResult) -> None:
    """If the image fails and the Module has a build section, check that the build succeeds."""
    settle(build_result)


@pytest.mark.stage("Sign")
def test_sign(sign_result: StageResult) -> None:
    """If the image fails, any build passes and the Module has a sign section, check that signing succeeds."""
    settle(sign_result)
