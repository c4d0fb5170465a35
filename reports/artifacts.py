"""The files of a run, each a view of the one report, replaced whole."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from kmm_preflight.errors import UsageProblem
from kmm_preflight.stages.report import Report
from kmm_preflight.status.dialects import Dialect
from reports.document import to_json
from reports.junit import to_junit
from reports.page import whole_page
from reports.patch import NAME as PATCH
from reports.patch import to_patch

JSON, JUNIT, PAGE, LOGS = "preflight.json", "junit_preflight.xml", "preflight.html", "logs"


@dataclass(frozen=True)
class Artifacts:
    """The folder of a run's outputs."""

    folder: Path
    dialect: Dialect = Dialect.SEED

    @property
    def logs(self) -> Path:
        """Where builders' logs go, there once one was written."""
        return self.folder / LOGS

    @classmethod
    def prepare(cls, folder: Path, keep: bool) -> Artifacts:
        """The folder, made where needed, without the outputs of an earlier run unless they are to be kept.

        UsageProblem when it cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in () if keep else (JSON, JUNIT, PAGE, PATCH):
                (folder / name).unlink(missing_ok=True)
            for log in () if keep else (folder / LOGS).glob("*.log"):
                log.unlink()
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as exc:
            raise UsageProblem(f"--artifact-dir {folder}: cannot be written ({exc.strerror})") from exc
        return cls(folder)

    def write(self, report: Report) -> None:
        """JSON, JUnit and status patch."""
        self._replace(JSON, to_json(report))
        self._replace(JUNIT, to_junit(report))
        self._replace(PATCH, to_patch(report, self.dialect))

    def written(self) -> bool:
        """Whether this run has left its reports."""
        return (self.folder / JSON).exists()

    def write_page(self, report: Report) -> None:
        """The HTML of a run for which pytest-html writes none here."""
        if not (self.folder / PAGE).exists():
            self._replace(PAGE, whole_page(report))

    def _replace(self, name: str, text: str) -> None:
        with tempfile.NamedTemporaryFile(
            "w", dir=self.folder, prefix=f".{name}.", delete=False, encoding="utf-8"
        ) as out:
            out.write(text)
        # A report is for others to read; a temporary file is not.
        mask = os.umask(0)
        os.umask(mask)
        Path(out.name).chmod(0o666 & ~mask)
        Path(out.name).replace(self.folder / name)


ARTIFACTS = pytest.StashKey[Artifacts]()
REPORT = pytest.StashKey[Report]()
