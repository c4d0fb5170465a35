"""Builds on this machine, where the machine is in trouble."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmm_preflight.build.builder import BuildResult
from kmm_preflight.build.local import LocalBuilder, LocalSettings
from kmm_preflight.errors import Undecidable
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.registries import Registries

from .test_redaction import REQUEST


def test_what_the_machine_refuses_is_told_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "build").touch()  # no folder can be made below it, be it by root
    builder = LocalBuilder(LocalSettings("buildah", tmp_path, None, 1, Network(), Registries(), {}))
    for step in (lambda: builder.start(REQUEST), lambda: builder.publish(REQUEST, BuildResult())):
        with pytest.raises(Undecidable, match=f"{tmp_path}/build/m-build-1.*: Not a directory"):
            step()
