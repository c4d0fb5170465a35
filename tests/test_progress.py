"""Progress of a run, in a log and on a real pseudo-terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from _pytest._io import TerminalWriter

from fixtures.run import RUN_FOLDER, WORK, RunFolder, case_name
from fixtures.work import Work
from kmm_preflight.model import Flavour, ModuleName, Outcome, Stage, StageResult, TargetKernel
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from reports.display import Display
from reports.progress import Progress
from tests.demo import BUILD, DEMO, GREEN, KERNEL, ROOT, manifests, module
from tests.real.faults import Fault, FaultyRegistry
from tests.runs import PYTEST, Run, run_preflight
from tests.test_workers import MODULES, kmod_image, wait_for, waiting_worker

ABSENT = "registry.example/kmods/none:1"
THREE = (
    module("gone", ABSENT),
    module("hello"),
    module("needs-build", ABSENT, sections=BUILD),
)
SETTLED = [
    "1/3  demo/gone         6.1.0-56-amd64  Image  failed",
    "2/3  demo/hello        6.1.0-56-amd64  Image  verified",
    "2/3  demo/needs-build  6.1.0-56-amd64  Image  falls through",
    "3/3  demo/needs-build  6.1.0-56-amd64  Build  undecided",
]
ONE_PROCESS = pytest.param(("-n", "0"), id="one process")
WITHOUT_XDIST = pytest.param(("-p", "no:xdist"), id="without xdist")
TWO_WORKERS = pytest.param(("-n", "2"), id="two workers")


def settled_lines(output: str) -> list[str]:
    """Return the lines of stages with a result, without their seconds."""
    return re.findall(r"^([0-9]+/[0-9]+  .*)  [0-9]+\.[0-9] s$", output, re.MULTILINE)


def body(run: Run) -> list[str]:
    """Return the lines between pytest's header and its summary, without xdist's own lines."""
    _, _, rest = run.stdout.partition("\nplugins: ")
    shown = re.split(r"\n=+ ", rest)[0].splitlines()[1:]
    return [line for line in shown if line and not re.match("collected |created: |2 workers ", line)]


@pytest.mark.parametrize("workers", [ONE_PROCESS, WITHOUT_XDIST, TWO_WORKERS])
def test_a_log_has_a_line_for_each_settled_stage_and_no_letters(tmp_path: Path, workers: tuple[str, ...]) -> None:
    run = run_preflight(tmp_path, *DEMO, manifests(tmp_path, *THREE), *workers)
    lines = [re.sub(r"  [0-9]+\.[0-9] s$", "", line) for line in body(run)]
    # Two workers end in any order. The count is the count at that moment.
    if "2" in workers:
        assert [line[:3] for line in lines] == [line[:3] for line in sorted(lines)]
        assert sorted(line[3:] for line in lines) == sorted(line[3:] for line in SETTLED)
        assert lines[-1].startswith("3/3")
    else:
        assert lines == SETTLED
    assert not {"\r", "\x1b"} & set(run.output)
    # The summary keeps pytest's words and counts.
    assert re.search(r"^XFAIL .*test_image\[demo/needs-build", run.stdout, re.MULTILINE), run.stdout
    assert re.search(r"^ERROR .*test_build\[demo/needs-build", run.stdout, re.MULTILINE), run.stdout
    assert "1 failed, 1 passed, 5 skipped, 1 xfailed, 1 error" in run.stdout


@pytest.mark.parametrize("option", ["-v", "-q", "--collect-only"])
def test_another_verbosity_leaves_pytest_as_it_is(tmp_path: Path, option: str) -> None:
    run = run_preflight(tmp_path, *DEMO, GREEN, "-n", "0", option)
    assert settled_lines(run.stdout) == []
    want = {"-v": "test_image[demo/hello@6.1.0-56-amd64] PASSED", "-q": "..ssss", "--collect-only": "<Function test_im"}
    assert want[option] in run.stdout


@pytest.mark.parametrize("workers", [ONE_PROCESS, TWO_WORKERS])
def test_a_stage_has_its_line_whatever_step_was_selected(tmp_path: Path, workers: tuple[str, ...]) -> None:
    run = run_preflight(tmp_path, *DEMO, manifests(tmp_path, *THREE), "-k", "test_sign and needs-build", *workers)
    assert settled_lines(run.stdout) == [SETTLED[2].replace("2/3", "0/3"), SETTLED[3].replace("3/3", "1/3")]


def test_other_tests_of_the_session_keep_their_letters(tmp_path: Path) -> None:
    other = tmp_path / "test_other.py"
    other.write_text("def test_good(): pass\ndef test_bad(): assert not 'letters'\n")
    run = run_preflight(tmp_path, *DEMO, manifests(tmp_path, *THREE), "-n", "0", "preflight_tests", other)
    assert settled_lines(run.stdout) == SETTLED
    assert ".F" in body(run)


class Screen:
    """The rows that a terminal shows after a text, without blanks at the end of a row.

    Characters that pytest does not write, other than colours, are an error.
    """

    def __init__(self, text: str, columns: int) -> None:
        rows, column = [""], 0
        for char in re.sub(r"\x1b\[[0-9;]*m", "", text):
            if char == "\r":
                column = 0
            elif char == "\n":
                rows.append("")
            else:
                assert char.isprintable(), f"{char!r} in {text!r}"
                if column == columns:
                    rows.append("")
                    column = 0
                row = rows[-1].ljust(column)
                rows[-1] = row[:column] + char + row[column + 1 :]
                column += 1
        self.rows = [row.rstrip() for row in rows]

    @property
    def text(self) -> str:
        """All rows, with those that scrolled out of view."""
        return "\n".join(self.rows)


class Terminal:
    """A pseudo-terminal that keeps all its output."""

    def __init__(self, columns: int = 100) -> None:
        self.columns = columns
        self.keyboard, self._line = pty.openpty()
        termios.tcsetwinsize(self._line, (24, columns))
        self.name = os.ttyname(self._line)
        self._read: list[bytes] = []
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def _follow(self) -> None:
        try:
            while data := os.read(self.keyboard, 65536):
                self._read.append(data)
        except OSError:
            return  # the other side is closed

    def file(self) -> TextIO:
        """Return a file that writes to the terminal, like the standard output of a process."""
        return open(os.dup(self._line), "w", encoding="utf-8", buffering=1)

    def raw(self) -> str:
        """Return all output until now."""
        return b"".join(self._read).decode()

    def drawn(self) -> list[str]:
        """Return the texts of the last row, in order."""
        return [text.rstrip() for text in re.findall(r"\r([0-9]+/[0-9]+ done · [^\r\n]*)(?=\r)", self.raw())]

    def close(self) -> Screen:
        """Return the rows at the end, after all writers have closed the terminal."""
        os.close(self._line)
        self._reader.join(30)
        os.close(self.keyboard)
        return Screen(self.raw(), self.columns)


OnTerminal = tuple[subprocess.Popen[bytes], FaultyRegistry]


@contextmanager
def on_terminal(tmp_path: Path, terminal: Terminal, hang_s: float, *options: str) -> Iterator[OnTerminal]:
    """Start a run on six Modules with this terminal as its controlling terminal. m3 waits for its manifest."""
    images = {f"kmods/m{number}:1": kmod_image(number) for number in range(MODULES)}
    with FaultyRegistry(images, Fault("m3/manifests", times=1, hang_s=hang_s)) as registry:
        modules = [module(f"m{n}", f"{registry.host}/kmods/m{n}:1", f"m{n}") for n in range(MODULES)]
        command = [*PYTEST, f"--kernel={KERNEL}", manifests(tmp_path, *modules),
                   f"--artifact-dir={tmp_path / 'artifacts'}", f"--cache-dir={tmp_path / 'cache'}",
                   "-p", "no:cacheprovider", *options]  # fmt: skip
        # The leader of a new session gets ^C from the first terminal that it opens.
        process = subprocess.Popen(
            ["sh", "-c", 'exec "$@" <>"$0" >&0 2>&1', terminal.name, *command],
            cwd=ROOT,
            env={**os.environ, "HOME": str(tmp_path), "TERM": "xterm"},
            start_new_session=True,
        )
        try:
            yield process, registry
        finally:
            process.kill()
            process.wait()


def waited_for(terminal: Terminal) -> bool:
    """True if a row has shown the seconds of m3. Their number depends on the machine."""
    return any(re.search(r"demo/m3 Image [1-9][0-9]* s", text) for text in terminal.drawn())


def is_clean(screen: Screen) -> bool:
    """True if the last row is erased and no other text is on our lines."""
    lines = [row for row in screen.rows if re.search(r"[0-9]/6  ", row)]
    return "done ·" not in screen.text and bool(lines) and lines == [row for row in lines if settled_lines(row)]


@pytest.mark.parametrize("workers", [ONE_PROCESS, TWO_WORKERS])
def test_a_terminal_shows_running_stages_and_erases_them_at_the_end(tmp_path: Path, workers: tuple[str, ...]) -> None:
    terminal = Terminal()
    with on_terminal(tmp_path, terminal, 2.5, "--color=yes", *workers) as (process, _):
        assert process.wait(180) == 0, terminal.raw()
    screen = terminal.close()
    assert waited_for(terminal), terminal.raw()
    assert is_clean(screen), screen.text
    lines = settled_lines(screen.text)
    assert sorted(line.split()[1] for line in lines) == [f"demo/m{number}" for number in range(MODULES)]
    assert re.search(r"^6/6  demo/m.  6\.1\.0-56-amd64  Image  verified", screen.text, re.MULTILINE)
    # m3 takes the longest time: 2.5 s or a bit more.
    assert re.search(r"demo/m3 .*  verified  ([2-9]|[1-9][0-9])\.[0-9] s$", screen.text, re.MULTILINE)
    assert "\x1b[32m" in terminal.raw()


def test_the_last_row_is_cut_to_the_width_of_the_terminal(tmp_path: Path) -> None:
    terminal = Terminal(columns=22)
    with on_terminal(tmp_path, terminal, 2.5, "-n", "0", "--color=no") as (process, _):
        assert process.wait(180) == 0, terminal.raw()
    screen = terminal.close()
    assert "3/6 done · demo/m3 Im" in terminal.drawn()
    assert {len(text) for text in terminal.drawn()} == {21}
    assert "done ·" not in screen.text
    assert "\x1b" not in terminal.raw()


@pytest.mark.parametrize("workers", [ONE_PROCESS, TWO_WORKERS])
def test_ctrl_c_erases_the_last_row(tmp_path: Path, workers: tuple[str, ...]) -> None:
    terminal = Terminal()
    with on_terminal(tmp_path, terminal, 600, *workers) as (process, _):
        wait_for(lambda: waited_for(terminal))
        os.write(terminal.keyboard, b"\x03")
        assert process.wait(180) == 2, terminal.raw()
    screen = terminal.close()
    assert is_clean(screen), screen.text
    assert "^C" in terminal.raw()
    assert "^C" not in screen.text
    assert "KeyboardInterrupt" in screen.text
    assert "Interrupted before the end" in screen.text


def test_a_killed_worker_is_reported_on_its_own_rows(tmp_path: Path) -> None:
    terminal = Terminal()
    with on_terminal(tmp_path, terminal, 600, "-n", "2") as (process, registry):
        wait_for(lambda: waited_for(terminal))
        os.kill(waiting_worker(process.pid, registry, slow=3), signal.SIGKILL)
        assert process.wait(180) == 10, terminal.raw()
    screen = terminal.close()
    assert is_clean(screen), screen.text
    assert re.search(
        r"^[1-6]/6  demo/m3  6\.1\.0-56-amd64  Image  undecided  [0-9]\.[0-9] s$", screen.text, re.MULTILINE
    )
    assert re.search(r"^\[gw[01]\] node down: Not properly terminated$", screen.text, re.MULTILINE), screen.text
    assert re.search(r"^replacing crashed worker gw[01]$", screen.text, re.MULTILINE), screen.text


class Config:
    """A pytest.Config with only the stash of a planned run and a terminal writer."""

    def __init__(self, folder: RunFolder, plans: tuple[Plan, ...]) -> None:
        self.stash = pytest.Stash()
        self.stash[RUN_FOLDER] = folder
        self.stash[WORK] = Work(plans, Network(), folder.path, 0, None, {})
        self.printed = io.StringIO()

    def get_terminal_writer(self) -> TerminalWriter:
        return TerminalWriter(self.printed)


def test_lines_of_a_run_on_two_kernels_with_a_case_that_an_earlier_run_verified() -> None:
    kernels = [TargetKernel(version, "amd64", None, Flavour.STANDARD, None, "") for version in ("6.1", "6.12")]
    plans = tuple(
        Plan(ModuleName("ns", name), kernel, Reference.parse("r/i:t"))
        for name in ("a", "b\x1b[2J\r")
        for kernel in kernels
    )
    folder = RunFolder.create()
    try:
        config = Config(folder, plans)
        progress = Progress(config, live=False)  # type: ignore[arg-type]  # see Config
        loop = progress.pytest_runtestloop()
        next(loop)
        for plan in plans:
            for stage in (Stage.IMAGE, Stage.BUILD):
                progress.pytest_runtest_logstart(f"x::{case_name(plan, stage)}")
        for plan, outcome in zip(plans, (Outcome.NOT_NEEDED, Outcome.UNDECIDED, Outcome.FAILED), strict=False):
            settled = StageResult(Stage.IMAGE, outcome, "")
            folder.settle(plan, Stage.IMAGE, lambda settled=settled: settled)  # type: ignore[misc]
            nodeid = f"x::{case_name(plan, Stage.IMAGE)}"
            progress.pytest_runtest_logreport(pytest.TestReport(nodeid, ("x", 0, ""), {}, "passed", None, "call"))
        # The build step waits for the image stage, so only the image stage is listed as running.
        assert progress.running() == r"still running: ns/b\x1b[2J\r@6.12 Image 0 s"
        loop.close()
    finally:
        folder.remove()
    assert config.printed.getvalue().splitlines() == [
        r"1/4  ns/a           6.1   Image  verified before  0.0 s",
        r"2/4  ns/a           6.12  Image  undecided  0.0 s",
        r"3/4  ns/b\x1b[2J\r  6.1   Image  failed  0.0 s",
    ]


def test_a_log_is_not_silent_for_long(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        writer = TerminalWriter(file)
        writer.line("header")
        display = Display(writer, live=False, text=lambda: "still running: x", tick_s=0.01, silence_s=0.5)
        end = time.monotonic() + 0.8
        while time.monotonic() < end:  # never silent for so long
            display.line("line")
            time.sleep(0.02)
        assert "still" not in log.read_text()
        writer.write("..")
        wait_for(lambda: log.read_text().count("still running") == 2)
        display.close()
        writer.line("after")
    head, _, tail = log.read_text().partition("..")
    assert set(head.splitlines()) == {"header", "line"}
    assert tail.splitlines() == ["", "still running: x", "still running: x", "after"]


def test_nothing_is_said_while_nothing_runs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    asked: list[int] = []
    with log.open("w") as file:
        display = Display(TerminalWriter(file), False, lambda: asked.append(1) or "", 0.001, 0.002)  # type: ignore[func-returns-value]
        wait_for(lambda: len(asked) > 20)
        display.close()
    assert log.read_text() == ""


def test_what_is_drawn_does_not_go_where_the_output_of_a_test_is_caught(tmp_path: Path) -> None:
    caught = tmp_path / "caught"
    log = tmp_path / "log"
    with log.open("w") as file, caught.open("w") as other:
        display = Display(TerminalWriter(file), False, lambda: "still running: x", 0.01, 0.01)
        # As pytest's capture does it for the time of a test.
        kept = os.dup(file.fileno())
        os.dup2(other.fileno(), file.fileno())
        before = log.read_text().count("still")
        wait_for(lambda: log.read_text().count("still") > before)
        os.dup2(kept, file.fileno())
        os.close(kept)
        display.close()
    assert caught.read_text() == ""


def test_a_file_with_no_descriptor_behind_it() -> None:
    file = io.StringIO()
    display = Display(TerminalWriter(file), False, lambda: "still running: x", 0.01, 0.01)
    wait_for(lambda: "still running: x\n" in file.getvalue())
    display.close()
    display.line("after")
    assert file.getvalue().endswith("still running: x\nafter\n")


def test_lines_stay_whole_however_often_the_last_row_is_drawn() -> None:
    terminal = Terminal(columns=40)
    with terminal.file() as file:
        writer = TerminalWriter(file)
        drawn = iter(range(10**9))
        display = Display(writer, True, lambda: f"1/2 done · {next(drawn)} {'x' * 60}", tick_s=0.0001)
        lines = [f"line {number}" for number in range(2000)]
        for number, line in enumerate(lines):
            if number % 100 == 1:
                writer.write("\rready: 1/2 workers")  # xdist's, which may be drawn over
                time.sleep(0.005)
            if number % 2:
                display.line(line)
            else:
                writer.line(line)
        display.close()
        shown = len(terminal.drawn())
    screen = terminal.close()
    assert [row for row in screen.rows if row and row != "ready: 1/2 workers"] == lines
    assert shown > 10
