"""The run's folder: of several runs that start at once none takes the other's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.demo import ROOT

RUNS, FOLDERS = 4, 150
STARTS = f"""
from fixtures.run import RunFolder
for _ in range({FOLDERS}):
    folder = RunFolder.create()
    (folder.path / "work").write_text("")
    folder.remove()
"""


def test_runs_that_start_at_once_leave_each_other_s_folders_alone(tmp_path: Path) -> None:
    # A folder that was just made is not yet locked: it looks like one that a killed run left.
    several = [
        subprocess.Popen(
            [sys.executable, "-c", STARTS], cwd=ROOT, env={"TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE
        )
        for _ in range(RUNS)
    ]
    said = [process.communicate(timeout=60)[1].decode() for process in several]
    assert said == [""] * RUNS
    assert list(tmp_path.iterdir()) == []
