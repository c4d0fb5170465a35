"""Changes in the cluster during a run: new and deleted Modules, other writers, an API server that stops."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kmm_preflight.status.dialects import Dialect
from tests.clusters import module, namespaces, serve
from tests.demo import KERNEL, demo_images
from tests.real.faults import Fault, FaultyRegistry
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import PREFLIGHTS
from tests.real.layout import Image
from tests.test_watch import Started, started, wait_for

OLD_KERNEL = "6.1.0-47-amd64"
MODULES = ("a", "b", "c")
# After the last image was asked for, so that the run is at its end and waits.
AWAY_SECONDS = 6.0


@pytest.fixture(scope="module")
def images() -> dict[str, Image]:
    made = demo_images()
    new, old = (made[f"registry.example/kmods/hello:{kernel}"] for kernel in (KERNEL, OLD_KERNEL))
    several = {
        f"kmods/{name}:{kernel}": image for name in MODULES for kernel, image in ((KERNEL, new), (OLD_KERNEL, old))
    }
    return {**several, f"kmods/c:{KERNEL}": old, f"kmods/late:{KERNEL}": new}


@pytest.fixture(scope="module", params=["list", "seed", "later"])
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Cluster in each dialect."""
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder) as running:
        serve(running, folder)
        running.apply_crds(PREFLIGHTS[request.param])
        running.apply(*namespaces("one"))
        yield running


@pytest.fixture
def dialect(cluster: Cluster, request: pytest.FixtureRequest) -> Dialect:
    return {"seed": Dialect.MAP, "list": Dialect.LIST, "later": Dialect.ONE_KERNEL}[
        request.node.callspec.params["cluster"]
    ]


only_list = pytest.mark.parametrize("cluster", ["list"], indirect=True)


@pytest.fixture
def continue_runs() -> threading.Event:
    """Return an event that the registry waits for. A test changes the cluster before it sets the event."""
    return threading.Event()


@pytest.fixture
def registry(cluster: Cluster, images: dict[str, Image], continue_runs: threading.Event) -> Iterator[FaultyRegistry]:
    """Return a registry. The cluster has a Module for each image."""
    with FaultyRegistry(images, Fault("/manifests/", until=continue_runs)) as registry:
        cluster.apply(*(of(registry, name) for name in MODULES))
        yield registry
        cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "--all", "-n", "one")
        cluster.kubectl("delete", "preflightvalidationsocp", "--all")


def of(registry: FaultyRegistry, name: str, **more: Any) -> Any:
    """Return the Module of an image. c has the image of the other kernel under both names."""
    return module("one", name, containerImage=f"{registry.host}/kmods/{name}:${{KERNEL_FULL_VERSION}}", **more)


def make(cluster: Cluster, dialect: Dialect, name: str, kernel: str) -> None:
    """Create an object."""
    spec = {"kernelVersion": kernel} if dialect is Dialect.ONE_KERNEL else {"releaseImage": "registry.example/unused:1"}
    head = {"apiVersion": f"kmm.sigs.x-k8s.io/{dialect.api_version}", "kind": "PreflightValidationOCP"}
    cluster.apply({**head, "metadata": {"name": name}, "spec": spec})


def object_of(cluster: Cluster, dialect: Dialect, name: str) -> dict[str, Any]:
    resource = f"preflightvalidationsocp.{dialect.api_version}.kmm.sigs.x-k8s.io"
    told = cluster.kubectl("get", resource, name, "-o", "json")
    assert told.returncode == 0, told.stderr
    return dict(json.loads(told.stdout))


def verified(cluster: Cluster, dialect: Dialect, name: str = "pf") -> dict[str, bool]:
    """Map each Module to True if its entry says verified."""
    status = object_of(cluster, dialect, name).get("status", {})
    several = (
        status.get("crStatuses", {}) if dialect is Dialect.MAP else {m["name"]: m for m in status.get("modules", ())}
    )
    return {one: fields["verificationStatus"] in ("True", "Success") for one, fields in several.items()}


def options(cluster: Cluster, kernel: str = KERNEL, name: str = "pf") -> tuple[str, ...]:
    return f"--kubeconfig={cluster.kubeconfig('runner')}", f"--kernel={kernel}", f"--preflight={name}"


def begun(run: Started, registry: FaultyRegistry) -> None:
    """Wait until the run requests images."""
    wait_for(lambda: any("/manifests/" in seen.path for seen in registry.requests()), run.printed)


@only_list
@pytest.mark.parametrize("answers", [True, False], ids=["answering", "only-reading"])
def test_modules_that_are_created_changed_and_deleted_during_a_run(
    cluster: Cluster,
    dialect: Dialect,
    registry: FaultyRegistry,
    continue_runs: threading.Event,
    tmp_path: Path,
    answers: bool,
) -> None:
    make(cluster, dialect, "pf", KERNEL)
    cluster.apply(of(registry, "c"), of(registry, "late") | {"metadata": {"namespace": "one", "name": "leaving"}})
    given = options(cluster) if answers else options(cluster)[:2]
    with started(tmp_path, *given, "-n2") as run:
        begun(run, registry)
        cluster.apply(of(registry, "late"), of(registry, "b", inTreeModulesToRemove=["x"]))
        cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "-n", "one", "leaving")
        continue_runs.set()
        assert run.ended() == 1, run.output
        document = run.document()
    told = {one["name"]: (one["verdict"], *(f["id"] for f in one["findings"])) for one in document["modules"]}
    assert told == {
        "a": ("verified",),
        "b": ("undecided", "module-changed"),
        "c": ("refuted", "kmod-absent"),
        "late": ("undecided", "module-appeared"),
    }
    leaving = {"kind": "Module", "namespace": "one", "name": "leaving", "reason": "deleted during the run"}
    assert document["listed"] == [leaving]
    if answers:
        assert "shows these verdicts" in document["answered"]
        assert verified(cluster, dialect) == {"a": True, "b": False, "c": False, "late": False}


def test_two_runs_for_two_kernels_and_an_operator_that_verifies_everything(
    cluster: Cluster, dialect: Dialect, registry: FaultyRegistry, continue_runs: threading.Event, tmp_path: Path
) -> None:
    pairs = {KERNEL: "new", OLD_KERNEL: "old"}
    for kernel, name in pairs.items():
        make(cluster, dialect, name, kernel)
    operator = Operator(cluster, dialect, "new")
    with (
        started(tmp_path / "new", *options(cluster, KERNEL, "new"), "-n2") as new,
        started(tmp_path / "old", *options(cluster, OLD_KERNEL, "old"), "-n2") as old,
    ):
        # The operator overwrites entries of the run before the run has written all.
        wait_for(lambda: set(verified(cluster, dialect, "new")) == set(MODULES), new.printed)
        with operator:
            wait_for(lambda: operator.writes > 1, new.printed)
            continue_runs.set()
            codes = new.ended(), old.ended()
        documents = [run.document() for run in (new, old)]
    assert codes == (1, 0), new.output + old.output
    verdicts = [{one["name"]: one["verdict"] for one in document["modules"]} for document in documents]
    good = dict.fromkeys(MODULES, "verified")
    assert verdicts == [{**good, "c": "refuted"}, good]
    assert verified(cluster, dialect, "old") == dict.fromkeys(MODULES, True)
    assert "another writer changed the status of PreflightValidationOCP new: " in documents[0]["answered"]
    assert " by kubectl-patch (Update, 20" in documents[0]["answered"]
    assert "PreflightValidationOCP old shows these verdicts" in documents[1]["answered"]
    # Entries of the operator do not count: c is judged again, a and b are on record.
    with started(tmp_path / "again", *options(cluster, KERNEL, "new"), "-n0") as again:
        assert again.ended() == 1, again.output
        stages = {one["name"]: one["stages"][0]["outcome"] for one in again.document()["modules"]}
    assert stages == {"a": "not needed", "b": "not needed", "c": "failed"}
    entries = object_of(cluster, dialect, "new")["status"]
    assert "foreign" in json.dumps(entries), "an entry of another writer stays"


class Operator:
    """Other writer in a thread. It calls every Module verified, again and again, and has an entry of its own."""

    def __init__(self, cluster: Cluster, dialect: Dialect, name: str) -> None:
        self._cluster, self._dialect, self._name = cluster, dialect, name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.writes = 0

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _write(self) -> None:
        resource = f"preflightvalidationsocp.{self._dialect.api_version}.kmm.sigs.x-k8s.io"
        yes = "Success" if self._dialect is Dialect.ONE_KERNEL else "True"
        entry = {"verificationStatus": yes, "verificationStage": "Done", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        names = (*MODULES, "foreign")
        status: dict[str, Any] = {"modules": [{"namespace": "one", "name": name, **entry} for name in names]}
        if self._dialect is Dialect.MAP:
            status = {"crStatuses": dict.fromkeys(names, entry)}
        while not self._ended.wait(0.2):
            body = json.dumps({"status": status})
            done = self._cluster.kubectl(
                "patch", resource, self._name, "--subresource=status", "--type=merge", f"-p={body}"
            )
            self.writes += done.returncode == 0


@only_list
@pytest.mark.parametrize("how", ["made anew", "changed", "deleted"])
def test_an_object_that_was_created_again_is_not_written(
    cluster: Cluster,
    dialect: Dialect,
    registry: FaultyRegistry,
    continue_runs: threading.Event,
    tmp_path: Path,
    how: str,
) -> None:
    make(cluster, dialect, "pf", KERNEL)
    cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "-n", "one", "c")
    told = dict.fromkeys(("a", "b"), False)
    with started(tmp_path, *options(cluster), "-n2") as run:
        wait_for(lambda: verified(cluster, dialect) == told, run.printed)
        begun(run, registry)
        if how != "changed":
            cluster.kubectl("delete", "preflightvalidationsocp", "pf")
        if how == "made anew":
            make(cluster, dialect, "pf", KERNEL)
        if how == "changed":
            body = json.dumps({"spec": {"releaseImage": "registry.example/other:2"}})
            cluster.kubectl("patch", "preflightvalidationsocp", "pf", "--type=merge", f"-p={body}")
        continue_runs.set()
        assert run.ended() == 10, run.output
        document = run.document()
    words = {"deleted": "it was deleted during the run"}.get(
        how, "it was created again, or its spec changed, during the run"
    )
    assert words in document["answered"]
    assert words in document["sentence"]
    if how == "deleted":
        assert "NotFound" in cluster.kubectl("get", "preflightvalidationsocp", "pf").stderr
    else:
        assert verified(cluster, dialect) == (told if how == "changed" else {})


@only_list
def test_a_changed_module_is_not_verified_after_an_interruption(
    cluster: Cluster, dialect: Dialect, registry: FaultyRegistry, continue_runs: threading.Event, tmp_path: Path
) -> None:
    make(cluster, dialect, "pf", KERNEL)
    continue_runs.set()
    with started(tmp_path / "first", *options(cluster), "-n2") as run:
        assert run.ended() == 1, run.output
    continue_runs.clear()
    seen = len(registry.requests())
    with started(tmp_path / "second", *options(cluster), "-n0", "--revalidate") as run:
        wait_for(lambda: len(registry.requests()) > seen, run.printed)
        cluster.apply(of(registry, "b", inTreeModulesToRemove=["x"]))
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 2, run.output
    assert verified(cluster, dialect) == {"a": True, "b": False, "c": False}


@only_list
def test_if_all_modules_are_deleted_there_is_nothing_to_validate(
    cluster: Cluster, dialect: Dialect, registry: FaultyRegistry, continue_runs: threading.Event, tmp_path: Path
) -> None:
    make(cluster, dialect, "pf", KERNEL)
    with started(tmp_path, *options(cluster), "-n2") as run:
        begun(run, registry)
        cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "--all", "-n", "one")
        continue_runs.set()
        assert run.ended() == 5, run.output
        assert "Traceback" not in run.output
        assert [one["reason"] for one in run.document()["listed"]] == ["deleted during the run"] * len(MODULES)
    assert verified(cluster, dialect) == {}


@only_list
def test_a_recorded_image_without_a_layer_is_judged_again(
    cluster: Cluster,
    dialect: Dialect,
    registry: FaultyRegistry,
    continue_runs: threading.Event,
    images: dict[str, Image],
    tmp_path: Path,
) -> None:
    make(cluster, dialect, "pf", KERNEL)
    continue_runs.set()
    with started(tmp_path / "first", *options(cluster), "-n2") as run:
        assert run.ended() == 1, run.output
    assert verified(cluster, dialect) == {"a": True, "b": True, "c": False}
    layer = images[f"kmods/a:{KERNEL}"].blobs[-1].digest
    lost = [path for path in registry.content if path.endswith(layer) and "/kmods/a/" in path]
    assert lost
    for path in lost:
        del registry.content[path]
    with started(tmp_path / "second", *options(cluster), "-n2") as run:
        assert run.ended() == 1, run.output
        told = {one["name"]: (one["verdict"], one["carriedOver"]) for one in run.document()["modules"]}
    assert told == {"a": ("refuted", False), "b": ("verified", True), "c": ("refuted", False)}
    assert verified(cluster, dialect) == {"a": False, "b": True, "c": False}


@only_list
def test_a_run_waits_for_an_api_server_that_stops_for_a_while(
    cluster: Cluster, dialect: Dialect, registry: FaultyRegistry, continue_runs: threading.Event, tmp_path: Path
) -> None:
    make(cluster, dialect, "pf", KERNEL)
    with started(tmp_path, *options(cluster), "-n0") as run:
        begun(run, registry)
        cluster.stop()
        try:
            continue_runs.set()
            wait_for(lambda: any("/kmods/c/" in seen.path for seen in registry.requests()), run.printed)
            time.sleep(AWAY_SECONDS)
            assert run.process.poll() is None, run.output
        finally:
            cluster.start()
        assert run.ended() == 1, run.output
        document = run.document()
    assert "shows these verdicts" in document["answered"], document["answered"]
    assert verified(cluster, dialect) == {"a": True, "b": True, "c": False}
    with started(tmp_path / "again", *options(cluster), "-n0") as again:
        assert again.ended() == 1, again.output
        assert [one["carriedOver"] for one in again.document()["modules"]] == [True, True, False]
