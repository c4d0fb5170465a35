"""Progress of a run on the terminal: a line for each stage with a result, and below it the running steps."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping

import pytest

from fixtures.run import RUN_FOLDER, WORK, is_controller, steps
from kmm_preflight.model import Outcome, Stage, StageResult
from kmm_preflight.planning.plan import Case
from kmm_preflight.stages.rules import conclude
from kmm_preflight.stages.verdict import Conclusion
from kmm_preflight.text import clean
from reports.display import Display

_MARKUP: dict[Outcome, dict[str, bool]] = {
    Outcome.VERIFIED: {"green": True},
    Outcome.NOT_NEEDED: {"green": True},
    Outcome.FALLS_THROUGH: {"yellow": True},
    Outcome.FAILED: {"red": True, "bold": True},
    Outcome.UNDECIDED: {"yellow": True, "bold": True},
}
_WORDS_MOST = 60


@pytest.hookimpl(trylast=True)  # pytest's terminal is there once its own pytest_configure has run
def pytest_configure(config: pytest.Config) -> None:
    """Replace pytest's letters on the controller of a planned run, except with -q or -v."""
    if not is_controller(config) or WORK not in config.stash or config.getoption("collectonly"):
        return
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal and config.get_verbosity(pytest.Config.VERBOSITY_TEST_CASES) == 0:
        terminal.showfspath = False  # pytest would print file names without letters
        # With -s, tests print without pytest's writer: no row can stay below their text.
        live = bool(terminal.isatty) and config.getoption("capture", None) != "no"
        config.pluginmanager.register(Progress(config, live), "preflight-progress")


class Progress:
    """Progress of the steps, from pytest's reports and from the stage results in the run's folder."""

    def __init__(self, config: pytest.Config, live: bool) -> None:
        self._config = config
        self._live = live
        self._folder = config.stash[RUN_FOLDER]
        cases = config.stash[WORK].cases
        self._steps = steps(cases)
        self._cases = {case.id: case for case in cases}
        self._known: dict[str, dict[Stage, StageResult]] = {case.id: {} for case in cases}
        self._done: set[str] = set()
        self._running: dict[str, tuple[Case, Stage]] = {}
        self._since: dict[tuple[str, Stage], float] = {}
        cells = {case.id: (clean(str(case.module)), clean(case.kernel_words)) for case in cases}
        widths = [max(map(len, column)) for column in zip(*cells.values(), strict=True)]
        self._rows = {id: f"{name:{widths[0]}}  {kernel:{widths[1]}}" for id, (name, kernel) in cells.items()}
        several = len({kernel for _, kernel in cells.values()}) > 1
        self._names = {id: f"{name}@{kernel}" if several else name for id, (name, kernel) in cells.items()}
        self._display: Display | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Show progress while steps run. Remove it before any summary, whatever ends the loop."""
        self._display = Display(self._config.get_terminal_writer(), self._live, self.running)
        try:
            return (yield)
        finally:
            self._display.close()
            self._display = None

    def pytest_enter_pdb(self) -> None:
        """Free the terminal for the debugger."""
        if self._display:
            self._display.close()

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Generator[None, tuple[str, ...], tuple[str, ...]]:
        """Return no letter for a step. Keep its category, and its word for the summary."""
        status = yield
        return (status[0], "", "") if self._display and _name(report.nodeid) in self._steps else status

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Remember a step that begins, here or on a worker."""
        if step := self._steps.get(_name(nodeid)):
            self._running[nodeid] = step

    @pytest.hookimpl(tryfirst=True)  # before the status in the cluster is written, which is slow
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the new stage results of the case whose step or worker ended."""
        step = self._steps.get(_name(report.nodeid))
        if step and (report.when == "call" or report.outcome != "passed"):
            self._running.pop(report.nodeid, None)
            self._print_results(step[0])

    def running(self) -> str | None:
        """Return the running stages and their seconds, or None. The display calls this method in its own thread."""
        judged: list[tuple[str, Stage]] = []
        for case, step in list(self._running.values()):
            settled = self._folder.results(case, ended=False)
            if not _concluded(case, settled):
                # A step waits for earlier stages of its case, which another worker may run.
                judged += [(case.id, stage) for stage in _until(step) if stage not in settled][:1]
        now = time.monotonic()
        self._since = {stage: self._since.get(stage, now) for stage in judged}
        if not self._since:
            return None
        parts = [
            f"{self._names[id]} {stage.value} {int(now - at)} s{self._doing(id, stage)}"
            for (id, stage), at in self._since.items()
        ]
        head = f"{len(self._done)}/{len(self._known)} done · " if self._live else "still running: "
        return head + " · ".join(parts)

    def _doing(self, id: str, stage: Stage) -> str:
        """Return the builder's words about the stage."""
        words = None if stage is Stage.IMAGE else self._folder.activity(self._cases[id])
        return f" ({words[:_WORDS_MOST]})" if words else ""

    def _print_results(self, case: Case) -> None:
        known = self._known[case.id]
        for stage, result in self._folder.results(case, ended=False).items():
            if known.get(stage) == result:
                continue
            known[stage] = result
            if _concluded(case, known):
                self._done.add(case.id)
            # An image stage that is not needed means that an earlier run verified the image: print it.
            if self._display and (result.outcome is not Outcome.NOT_NEEDED or stage is Stage.IMAGE):
                self._display.line(self._line(case, result), **_MARKUP[result.outcome])

    def _line(self, case: Case, result: StageResult) -> str:
        total = str(len(self._known))
        count = f"{len(self._done):{len(total)}}/{total}"
        outcome = "verified before" if result.outcome is Outcome.NOT_NEEDED else result.outcome.value
        return f"{count}  {self._rows[case.id]}  {result.stage.value:5}  {outcome}  {result.seconds:.1f} s"


def _name(nodeid: str) -> str:
    return nodeid.rpartition("::")[2]


def _concluded(case: Case, settled: Mapping[Stage, StageResult]) -> bool:
    return conclude(case, settled).conclusion is not Conclusion.NOT_VERIFIED


def _until(step: Stage) -> list[Stage]:
    return list(Stage)[: list(Stage).index(step) + 1]
