"""Builds on a machine with errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmm_preflight.build.builder import BuildResult
from kmm_preflight.build.local import LocalBuilder, LocalSettings
from kmm_preflight.errors import Undecidable
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.registries import Registries

from .test_redaction import REQUEST


def test_an_error_of_the_machine_leaves_the_stage_undecided(tmp_path: Path) -> None:
    (tmp_path / "build").touch()  # not even root can create a folder below a file
    builder = LocalBuilder(LocalSettings("buildah", tmp_path, None, 1, Network(), Registries(), {}))
    for step in (lambda: builder.start(REQUEST), lambda: builder.publish(REQUEST, BuildResult())):
        with pytest.raises(Undecidable, match=f"{tmp_path}/build/m-build-1.*: Not a directory"):
            step()
