"""Option --watch on a real cluster and a real registry: fixed Modules become verified, signals leave whole reports."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.clusters import module, namespaces, serve
from tests.demo import KERNEL, ROOT, demo_images
from tests.real.faults import Fault, FaultyRegistry
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import PREFLIGHTS
from tests.real.layout import Image
from tests.real.push import push
from tests.real.registry import Registry
from tests.runs import PYTEST, run_preflight

RESOURCE = "preflightvalidationsocp.v1beta2.kmm.sigs.x-k8s.io"
DONE = ("True", "Done")
SEED = int(os.environ.get("PREFLIGHT_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder) as running:
        serve(running, folder)
        running.apply_crds(PREFLIGHTS["list"])
        running.apply(*namespaces("one"))
        yield running


@pytest.fixture(scope="module")
def good() -> Image:
    """Return an image with the kmod hello for the demo's kernel."""
    return demo_images()[f"registry.example/kmods/hello:{KERNEL}"]


@pytest.fixture
def name(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the name of a new object. Delete the test's Modules at the end."""
    unique = f"pf-{abs(hash(request.node.name)) % 10**9}"
    cluster.apply(
        {
            "apiVersion": "kmm.sigs.x-k8s.io/v1beta2",
            "kind": "PreflightValidationOCP",
            "metadata": {"name": unique},
            "spec": {"releaseImage": "registry.example/unused:1"},
        }
    )
    yield unique
    cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "--all", "-n", "one")


class Started:
    """Running process of the suite, with its output so far."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self._artifacts = folder / "artifacts"
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        self._lines.extend(iter(self.process.stdout.readline, ""))

    @property
    def output(self) -> str:
        """Return the output."""
        return "".join(self._lines)

    def printed(self) -> str:
        """Return the output so far."""
        return self.output

    def ended(self, seconds: float = 180) -> int:
        """Wait for the end, and return the exit code."""
        code = self.process.wait(seconds)
        self._reader.join()
        return code

    def document(self) -> dict[str, Any]:
        """Return preflight.json. Check that the other reports are whole."""
        assert (self._artifacts / "preflight.html").exists(), self.output
        page = (self._artifacts / "preflight.html").read_text()
        assert page.rstrip().endswith("</html>")
        ElementTree.parse(self._artifacts / "junit_preflight.xml")
        assert sorted(path.name for path in self._artifacts.iterdir())[-1] == "status-patch.yaml"
        return dict(json.loads((self._artifacts / "preflight.json").read_text()))


@contextmanager
def started(tmp_path: Path, *options: str) -> Iterator[Started]:
    """Start a run in a process of its own. Kill it at the end."""
    command = [*PYTEST, f"--artifact-dir={tmp_path / 'artifacts'}",
               f"--cache-dir={tmp_path / 'cache'}", "-p", "no:cacheprovider", *options]  # fmt: skip
    temporary = tmp_path / "tmp"
    temporary.mkdir(parents=True)
    env = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    run = Started(process, tmp_path)
    try:
        yield run
    finally:
        process.kill()
        run.ended()
        assert process.stdout
        process.stdout.close()


def wait_for(condition: Callable[[], bool], output: Callable[[], str], seconds: float = 180) -> None:
    """Wait until the condition is true. After the seconds, fail with the output."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, output()
        time.sleep(0.05)


def entries(cluster: Cluster, name: str) -> dict[str, tuple[str, str]]:
    """Return status and stage by Module."""
    manifest = json.loads(cluster.kubectl("get", RESOURCE, name, "-o", "json").stdout)
    modules = manifest.get("status", {}).get("modules", [])
    return {one["name"]: (one["verificationStatus"], one["verificationStage"]) for one in modules}


def test_fixed_modules_become_verified_without_a_restart(
    cluster: Cluster, plain_registry: Registry, good: Image, name: str, tmp_path: Path
) -> None:
    host = plain_registry.host
    push(plain_registry, "watch/good", "v1", good)
    fixed = {"containerImage": f"{host}/watch/good:v1"}
    cluster.apply(
        module("one", "ready", **fixed),
        module("one", "mapped", containerImage=f"{host}/watch/wrong:v1"),
        module("one", "pushed", containerImage=f"{host}/watch/{name}:v1"),
    )
    options = (f"--kernel={KERNEL}", f"--kubeconfig={cluster.kubeconfig()}", f"--preflight={name}", "-n0")
    with started(tmp_path, *options, "--watch", "--interval=600", "--deadline=600") as run:
        wait_for(lambda: "round 1 ended with 1" in run.output, run.printed)
        assert entries(cluster, name) == {
            "ready": DONE,
            "mapped": ("False", "Requeued"),
            "pushed": ("False", "Requeued"),
        }
        cluster.apply(module("one", "mapped", **fixed))
        wait_for(lambda: "round 2 ended with 1" in run.output, run.printed)
        assert "--watch: changed: Module one/mapped" in run.output
        assert entries(cluster, name) == {"ready": DONE, "mapped": DONE, "pushed": ("False", "Requeued")}
        verdicts = {one["name"]: (one["verdict"], one["carriedOver"]) for one in run.document()["modules"]}
        assert verdicts == {"ready": ("verified", True), "mapped": ("verified", False), "pushed": ("refuted", False)}
        push(plain_registry, f"watch/{name}", "v1", good)
        cluster.kubectl(
            "label", "modules.kmm.sigs.x-k8s.io", "-n", "one", "ready", "looked=at"
        )  # a label is not a change
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 2
        assert run.document()["exitCode"] == 1, "the last round's report is left as it was"
    assert entries(cluster, name) == {"ready": DONE, "mapped": DONE, "pushed": ("False", "Requeued")}
    with started(tmp_path / "again", *options, "--watch", "--interval=1") as run:
        assert run.ended() == 0, run.output
    assert set(entries(cluster, name).values()) == {DONE}


def test_a_pushed_image_is_seen_after_the_interval(
    cluster: Cluster, plain_registry: Registry, good: Image, name: str, tmp_path: Path
) -> None:
    cluster.apply(module("one", "pushed", containerImage=f"{plain_registry.host}/watch/{name}:v1"))
    options = (f"--kernel={KERNEL}", f"--kubeconfig={cluster.kubeconfig()}", f"--preflight={name}", "-n0")
    with started(tmp_path, *options, "--watch", "--interval=1") as run:
        wait_for(lambda: "round 1 ended with 1" in run.output, run.printed)
        push(plain_registry, f"watch/{name}", "v1", good)
        assert run.ended() == 0, run.output
    assert entries(cluster, name) == {"pushed": DONE}


def test_a_new_secret_starts_a_round(
    cluster: Cluster, login_registry: Registry, good: Image, name: str, tmp_path: Path
) -> None:
    push(login_registry, "watch/good", "v1", good)
    cluster.apply(module("one", "needs", secret="pull", containerImage=f"{login_registry.host}/watch/good:v1"))
    options = (f"--kernel={KERNEL}", f"--kubeconfig={cluster.kubeconfig()}", f"--preflight={name}", "-n0",
               f"--registry-ca={login_registry.ca}")  # fmt: skip
    cluster.forget()
    with started(tmp_path, *options, "--watch", "--interval=600", "--deadline=600") as run:
        wait_for(lambda: "round 1 ended with 1" in run.output, run.printed)
        # The round and the watch after it have read the Secret.
        wait_for(lambda: [one.name for one in cluster.requests()].count("pull") > 1, run.printed)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "one", "name": "pull"}}
        entry = {"username": login_registry.user, "password": login_registry.password}
        logins = json.dumps({"auths": {login_registry.host: entry}})
        kind = {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": logins}}
        cluster.apply({**secret, **kind})
        assert run.ended() == 0, run.output
    assert "changed: Secret one/pull" in run.output
    cluster.kubectl("delete", "secret", "-n", "one", "pull")


def test_the_deadline_ends_the_watch_with_the_last_round_s_exit_code(
    cluster: Cluster, name: str, tmp_path: Path
) -> None:
    cluster.apply(module("one", "none", containerImage="127.0.0.1:1/watch/none:v1"))
    options = (f"--kernel={KERNEL}", f"--kubeconfig={cluster.kubeconfig()}", f"--preflight={name}", "-n0", "--watch")
    run = run_preflight(tmp_path, *options, "--interval=1", "--deadline=4")
    assert run.returncode == 10, run.output
    assert run.stdout.count("undecided") >= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--watch", "--manifests=demo/modules"), "--watch excludes --manifests"),
        (("--interval=5",), "--interval requires --watch"),
        (("--deadline=5",), "--deadline requires --watch"),
        (("--watch", "--lf"), "--watch excludes --lf"),
        (("--watch", "--interval=none"), "--interval none: expected seconds"),
        (("--watch", "--deadline=0"), "--deadline 0: expected seconds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_contradict_are_refused_in_one_line(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    run = run_preflight(tmp_path, f"--kernel={KERNEL}", *options)
    assert run.returncode == 4, run.output
    assert words in run.stderr
    assert run.document["exitCode"] == 4


def test_a_signal_at_any_moment_leaves_proved_verdicts_and_whole_reports(
    cluster: Cluster, good: Image, name: str, tmp_path: Path
) -> None:
    """Stop ten runs at a random moment. Each verified entry was proved, and the reports are whole."""
    dice = random.Random(SEED)
    names = [f"m{number}" for number in range(4)]
    images = {f"kmods/{one}:v1": good for one in names if one != "m3"}
    with FaultyRegistry(images, Fault("/manifests/", hang_s=0.3)) as registry:
        cluster.apply(*(module("one", one, containerImage=f"{registry.host}/kmods/{one}:v1") for one in names))
        options = (
            f"--kernel={KERNEL}",
            f"--kubeconfig={cluster.kubeconfig()}",
            f"--preflight={name}",
            "--revalidate",
            "--watch",
        )
        for turn in range(10):
            folder, workers = tmp_path / str(turn), ("-n0", "-n2")[turn % 2]
            with started(folder, *options, workers, "--interval=1") as run:
                wait_for((folder / "artifacts").exists, run.printed)
                moment = dice.uniform(0, 5)
                time.sleep(moment)
                run.process.send_signal(dice.choice([signal.SIGTERM, signal.SIGINT]))
                assert run.ended() == 2, run.output
                details = f"seed {SEED}, turn {turn} at {moment:.2f} s:\n{run.output}"
                document = run.document()
            verified = {one["name"] for one in document["modules"] if one["verdict"] == "verified"}
            claimed = {one for one, fields in entries(cluster, name).items() if fields == DONE}
            # A verdict of an earlier turn is on record, and stays until the Module is judged again.
            assert "m3" not in claimed, details
            assert verified <= claimed | {"m3"}, details
            assert not list((folder / "tmp").glob("kmm-preflight-*")), details
            # A worker that starts while its run ends prints a traceback.
            assert workers != "-n0" or "Traceback" not in run.output, details
