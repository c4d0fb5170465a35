"""Builds in parallel: limit and deadline, clean-up after killed processes, hidden secrets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.build import need_buildah
from tests.real.kmod import compile_kmod
from tests.real.registry import Registry
from tests.runs import PYTEST, ROOT, Run, run_preflight
from tests.workbench import SIGN, Workbench, build_module, key_pair, opaque_secret, signing_secrets

UPTIME = re.compile(r"^(begin|end) (\d+\.\d+)", re.MULTILINE)
SECONDS = 2


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """Return a registry without a login."""
    need_buildah()
    with Registry.plain(tmp_path_factory.mktemp("registry")) as registry:
        yield Workbench(registry, tmp_path_factory.mktemp("store"))


def slow(bench: Workbench, name: str, seconds: float = SECONDS) -> list[dict[str, Any]]:
    """Return a Module whose build logs when it begins and ends."""
    say = "{{ echo {} $(cat /proc/uptime); }}"
    step = f"{say.format('begin')} && sleep {seconds} && {say.format('end')}"
    return build_module(
        name, bench.new_image(name), bench.copy_dockerfile(bench.push_kmods(compile_kmod(bench.new), "good"), step)
    )


def preflight(tmp_path: Path, bench: Workbench, manifests: list[dict[str, Any]], *options: str, **more: Any) -> Run:
    """Run the suite for the newest kernel."""
    return run_preflight(tmp_path, *bench.options(tmp_path / "manifests", manifests), *options, **more)


def at_a_time(logs: Path) -> int:
    """Return the maximal number of builds that ran at a time, by their logs."""
    moments = []
    for log in logs.glob("*.log"):
        times = {word: float(uptime) for word, uptime in UPTIME.findall(log.read_text())}
        moments += [(times["begin"], 1), (times.get("end", float("inf")), -1)]
    most = now = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most


@pytest.mark.parametrize("workers", ["0", "4"])
def test_builds_run_in_parallel_up_to_the_limit_and_stop_at_the_deadline(
    tmp_path: Path, bench: Workbench, workers: str
) -> None:
    names = [f"m{number}" for number in range(5)]
    manifests = [*slow(bench, "hangs", 600), *(manifest for name in names for manifest in slow(bench, name))]
    options = ("--max-builds=3", "--build-timeout=30", "-n", workers)
    run = preflight(tmp_path, bench, manifests, *options)
    assert run.returncode == 1, run.output
    verdicts = run.verdicts()
    assert verdicts.pop("hangs") == ("refuted", "image-not-found", "build-timeout")
    assert set(verdicts.values()) == {("verified", "image-not-found")}
    assert at_a_time(tmp_path / "artifacts/logs") == 3
    assert left_over(tmp_path) == []


def left_over(tmp_path: Path) -> list[str]:
    """Return folders, mounts and processes that a run of this test left."""
    place = str(tmp_path)
    folders = [str(path) for path in (tmp_path / "tmp").glob("kmm-preflight-*")]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if f" {place}/tmp" in line]
    return folders + mounts + [line for line in processes() if f"{place}/tmp" in line]


def processes() -> list[str]:
    """Return the command line of every process."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return lines


def until(condition: Callable[[], object], seconds: float = 180) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class BackgroundRun:
    """Run in the background, with its own folder for temporary files."""

    def __init__(self, tmp_path: Path, bench: Workbench, manifests: list[dict[str, Any]], *options: str) -> None:
        self.tmp = tmp_path / "tmp"
        self.tmp.mkdir(exist_ok=True)
        ours = bench.options(tmp_path / "manifests", manifests)
        folders = [f"--artifact-dir={tmp_path / 'artifacts'}", f"--cache-dir={tmp_path / 'cache'}"]
        command = [*PYTEST, "-p", "no:cacheprovider", *ours, *folders, *options]
        kept = {name: os.environ[name] for name in ("PATH", "PREFLIGHT_PROOF")}
        environment = {**kept, "HOME": str(tmp_path), "TMPDIR": str(self.tmp)}
        self._output = tmp_path / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)

    def output(self) -> str:
        """Return the output so far."""
        return self._output.read_text()

    def building(self) -> bool:
        """True if a step of a build runs."""
        return any("begin " in log.read_text() for log in self.tmp.glob("kmm-preflight-*/build/*/log"))

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
        return [pid for pid, line in lines.items() if b"exec(eval" in line]


def test_a_run_that_gets_sigterm_during_a_build_leaves_nothing(tmp_path: Path, bench: Workbench) -> None:
    background = BackgroundRun(tmp_path, bench, slow(bench, "ended", 600), "-n", "0")
    until(background.building)
    background.process.send_signal(signal.SIGTERM)
    assert background.process.wait(180) == 2, background.output()
    until(lambda: left_over(tmp_path) == [])


def test_the_run_after_a_killed_worker_is_verified(tmp_path: Path, bench: Workbench) -> None:
    manifests = [*slow(bench, "killed", 4), *slow(bench, "other", 1)]
    background = BackgroundRun(tmp_path, bench, manifests, "-n", "2")
    until(background.building)
    for worker in background.workers():
        os.kill(worker, signal.SIGKILL)
        break
    assert background.process.wait(180) in (0, 10), background.output()
    assert left_over(tmp_path) == []
    run = preflight(tmp_path / "next", bench, manifests)
    assert run.returncode == 0, run.output


def test_the_run_after_a_killed_run_cleans_up(tmp_path: Path, bench: Workbench) -> None:
    background = BackgroundRun(tmp_path, bench, slow(bench, "gone", 600), "-n", "0")
    until(background.building)
    for line in Path("/proc").glob("[0-9]*"):  # kill -9 of the run, its workers and drivers
        try:
            command = (line / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if str(tmp_path) in command and ("pytest" in command or "driver" in command):
            os.kill(int(line.name), signal.SIGKILL)
    background.process.wait(180)
    assert left_over(tmp_path)
    quick = slow(bench, "gone", 0)
    run = preflight(tmp_path, bench, quick, env={"TMPDIR": str(tmp_path / "tmp")})
    assert run.returncode == 0, run.output
    assert left_over(tmp_path) == []


def test_keys_and_passwords_are_never_shown(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    need_buildah()
    pair, token = key_pair(), "a-token-that-nobody-may-see"
    seen: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            seen.update(processes())

    with Registry.with_htpasswd(tmp_path_factory.mktemp("login")) as registry:
        bench = Workbench(registry, tmp_path_factory.mktemp("store"))
        authfile = registry.authfile(tmp_path / "auth.json")
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": "shapes"},
                  "type": "kubernetes.io/dockerconfigjson",
                  "stringData": {".dockerconfigjson": authfile.read_text()}}  # fmt: skip
        base = bench.push_kmods(compile_kmod(bench.new), "good")
        step = "cat /run/secrets/token/value && env && ls -R /run/secrets"
        manifests = [
            *build_module(
                "shows",
                bench.new_image("shows"),
                bench.copy_dockerfile(base, step),
                sign=SIGN,
                imageRepoSecret="login",
                build={"secrets": [{"name": "token"}]},
            ),
            opaque_secret("token", {"value": token.encode()}),
            *signing_secrets(pair),
            secret,
        ]
        looking = threading.Thread(target=look)
        looking.start()
        try:
            ca = [f"--registry-ca={registry.ca}"] if registry.ca else []
            run = preflight(tmp_path, bench, manifests, "--push-built-image", *ca)
        finally:
            ended.set()
            looking.join()
        assert run.returncode == 0, run.output
        hidden = [token, registry.password, pair.key.decode().splitlines()[1]]
        log = next((tmp_path / "artifacts/logs").glob("shows-build-*.log")).read_text()
        assert "***" in log
        written = [path.read_bytes() for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
        layers = [path.read_bytes() for path in unpacked(bench, tmp_path)]
        for text in hidden:
            assert text not in run.output
            assert not any(text in line for line in seen)
            assert not any(text.encode() in data for data in (*written, *layers))


def unpacked(bench: Workbench, tmp_path: Path) -> list[Path]:
    """Unpack every blob of the registry, and return the files."""
    blobs = [path for path in bench.registry.storage.rglob("data") if path.is_file()]
    for number, blob in enumerate(blobs):
        plain = subprocess.run(["zcat", "-f", blob], capture_output=True, check=True).stdout
        (tmp_path / f"blob-{number}").write_bytes(plain)
    return list(tmp_path.glob("blob-*"))
