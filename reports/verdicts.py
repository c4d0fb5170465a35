"""The verdicts at the end of a run, drawn from stage results, and the exit code that follows from them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fixtures.cluster import CLOSING
from fixtures.run import RUN_FOLDER, WORK, is_controller, steps
from fixtures.signals import hold_off
from kmm_preflight.model import Conclusion, Plan, Stage, Verdict
from kmm_preflight.oci.cache import Cache
from kmm_preflight.stages import findings
from kmm_preflight.stages.report import Problem
from kmm_preflight.stages.rules import conclude
from reports.artifacts import ARTIFACTS, REPORT


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Follows the run on the controller, where a run was planned."""
    if is_controller(config) and ARTIFACTS in config.stash:
        config.pluginmanager.register(Conclusions(config), "preflight-conclusions")


def _ended_badly(exitstatus: int) -> Problem | None:
    """What pytest itself stumbled over: its own words are on the terminal."""
    match exitstatus:
        case pytest.ExitCode.INTERNAL_ERROR:
            return Problem(int(exitstatus), "Internal error: pytest ended before the verdicts were complete.")
        case pytest.ExitCode.USAGE_ERROR:
            return Problem(int(exitstatus), "Usage error: pytest could not take its command line.")
        case _:
            return None


class Conclusions:
    """What the controller sees of a run, until the verdicts are drawn from the stage results."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._steps = steps(config.stash[WORK].plans)
        self._selected: set[tuple[str, Stage]] = set()
        self._interrupted = False
        self._others_failed = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Without workers: what was not deselected."""
        self._select([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """With workers: the same, as each of them collected it."""
        self._select(ids)

    def _select(self, ids: list[str]) -> None:
        names = [name.rpartition("::")[2] for name in ids]
        self._selected |= {(plan.id, stage) for plan, stage in (self._steps[n] for n in names if n in self._steps)}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Failures of tests that are no step of the validation keep their say in the exit code."""
        if report.failed and report.nodeid.rpartition("::")[2] not in self._steps:
            self._others_failed = True

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """SIGINT and SIGTERM; xdist raises a class of its own for -x."""
        self._interrupted = self._interrupted or excinfo.type is KeyboardInterrupt

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None]:
        """Verdicts, files, exit code; the other views are drawn in between, from the same report."""
        config = self._config
        if config.getoption("collectonly"):
            return (yield)
        hold_off()
        report = replace(
            config.stash[REPORT],
            verdicts=tuple(self._verdict(plan) for plan in config.stash[WORK].plans),
            interrupted=self._interrupted,
            problem=_ended_badly(exitstatus),
            finished=datetime.now(UTC),
        )
        config.stash[ARTIFACTS].write(report)
        if CLOSING in config.stash:
            # After the first writing: an API server that is away must not cost the reports of a run that is killed.
            report = replace(config.stash[CLOSING].close(report), finished=datetime.now(UTC))
            config.stash[ARTIFACTS].write(report)
        config.stash[REPORT] = report
        try:
            return (yield)
        finally:
            config.stash[ARTIFACTS].write_page(report)
            if not (self._others_failed and report.exit_code == 0):
                session.exitstatus = report.exit_code

    def _verdict(self, plan: Plan) -> Verdict:
        results = self._config.stash[RUN_FOLDER].results(plan, ended=not self._interrupted)
        verdict = conclude(plan, results)
        if verdict.conclusion is not Conclusion.NOT_VERIFIED:
            return verdict
        missed = {stage for stage in Stage if (plan.id, stage) in self._selected} - set(results)
        if self._interrupted:
            return replace(verdict, reason="the run was interrupted")
        if not missed:
            return replace(verdict, reason="its deciding step was deselected")
        if self._config.getoption("maxfail"):
            return replace(verdict, reason="the run stopped at an earlier failure (-x, --maxfail)")
        finding = findings.WORKER_LOST()
        return replace(verdict, conclusion=Conclusion.UNDECIDED, reason=finding.sentence)

    def pytest_unconfigure(self) -> None:
        """Keeps the cache within its bound."""
        work = self._config.stash[WORK]
        Cache(work.cache_dir).trim(work.cache_size)
