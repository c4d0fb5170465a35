"""Whole runs that update a PreflightValidationOCP on a real API server, in each dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kmm_preflight.status.dialects import Dialect
from tests.clusters import module, namespaces, serve
from tests.demo import KERNEL, LAYOUT, RELEASE
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import PREFLIGHTS, released
from tests.runs import run_preflight

GOOD, OLD = "registry.example/kmods/hello:${KERNEL_FULL_VERSION}", "registry.example/kmods/hello:6.1.0-47-amd64"
RESOURCE = "preflightvalidationsocp"
OWN = [("own", "seed"), ("own", "list"), ("own", "later")]
KMM = [("kmm", "1.1"), ("kmm", "2.3"), ("kmm", "main")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Cluster with two Modules. The second one always uses the image of the old kernel."""
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder) as running:
        serve(running, folder)
        running.apply(*namespaces("one", "two"), module("one", "good"), module("two", "old", containerImage=OLD))
        yield running


@pytest.fixture(scope="module")
def dialect(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Dialect]:
    """Return the dialect of the CRD that the cluster serves: one of KMM's own, or a short one of these tests."""
    whose, name = request.param
    cluster.apply_crds(PREFLIGHTS[name] if whose == "own" else released(f"kmm-{name}") / f"{RESOURCE}.yaml")
    dialects = {"seed": Dialect.MAP, "1.1": Dialect.MAP, "list": Dialect.LIST, "2.3": Dialect.LIST}
    yield dialects.get(name, Dialect.ONE_KERNEL)
    cluster.remove_crds()
    serve(cluster, tmp_path_factory.mktemp("cluster"))


def create(cluster: Cluster, dialect: Dialect) -> None:
    """Create an object without a status."""
    cluster.kubectl("delete", RESOURCE, "--all")
    spec = {"kernelVersion": KERNEL} if dialect is Dialect.ONE_KERNEL else {"releaseImage": RELEASE}
    cluster.apply(
        {
            "apiVersion": f"kmm.sigs.x-k8s.io/{dialect.api_version}",
            "kind": "PreflightValidationOCP",
            "metadata": {"name": "pf"},
            "spec": spec,
        }
    )


def status(cluster: Cluster, dialect: Dialect) -> dict[str, Any]:
    """Return the entries by Module name, as kubectl reads them."""
    resource = f"{RESOURCE}.{dialect.api_version}.kmm.sigs.x-k8s.io"
    fields = json.loads(cluster.kubectl("get", resource, "pf", "-o", "json").stdout)["status"]
    entries = fields["crStatuses"] if dialect is Dialect.MAP else {entry["name"]: entry for entry in fields["modules"]}
    return {
        name: (entry["verificationStatus"], entry["verificationStage"], entry.get("statusReason", ""))
        for name, entry in entries.items()
    }


@pytest.mark.parametrize(
    ("dialect", "workers"),
    [(OWN[0], "2"), *((one, "0") for one in (*OWN, *KMM))],  # workers in each generation: test_meanwhile.py
    indirect=["dialect"],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_run_updates_the_status(cluster: Cluster, dialect: Dialect, tmp_path: Path, workers: str) -> None:
    cluster.apply(module("one", "good"), module("two", "old", containerImage=OLD))
    create(cluster, dialect)
    options = (f"--kubeconfig={cluster.kubeconfig()}", LAYOUT, "--preflight=pf", "-n", workers)
    run = run_preflight(tmp_path, *options)
    assert run.returncode == 1, run.output
    assert "the status of PreflightValidationOCP pf shows these verdicts" in run.stdout
    entries = status(cluster, dialect)
    later = dialect is Dialect.ONE_KERNEL
    assert entries["good"][:2] == (("Success" if later else "True"), "Done")
    assert entries["old"][:2] == (("Failure", "Done") if later else ("False", "Requeued"))
    assert f"{KERNEL}: image accessible and verified" in entries["good"][2]
    assert "6.1.0-47-amd64" in entries["old"][2]
    cluster.apply(module("two", "old", containerImage=GOOD))
    again = run_preflight(tmp_path, *options)
    assert again.returncode == 0, again.output
    assert status(cluster, dialect)["old"][:2] == (("Success" if later else "True"), "Done")


@pytest.fixture
def of_kubernetes_sigs(cluster: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """Return a cluster that serves the PreflightValidation of kubernetes-sigs only."""
    cluster.apply_crds(released("sig-main"))
    yield cluster
    cluster.remove_crds()
    serve(cluster, tmp_path)


def test_an_object_of_kubernetes_sigs_is_created_and_answered(of_kubernetes_sigs: Cluster, tmp_path: Path) -> None:
    cluster = of_kubernetes_sigs
    cluster.apply(module("one", "good"), module("two", "old", containerImage=OLD))
    options = (f"--kubeconfig={cluster.kubeconfig()}", LAYOUT, "--preflight=pf", "-n0")
    absent = run_preflight(tmp_path, *options)
    assert absent.returncode == 4, absent.output
    assert "--preflight pf: no such PreflightValidation in the cluster" in absent.stderr
    run = run_preflight(tmp_path, *options, f"--kernel={KERNEL}", "--create-preflight")
    assert run.returncode == 1, run.output
    assert "this run created PreflightValidation pf" in run.document["assumed"]
    assert "the status of PreflightValidation pf shows these verdicts" in run.stdout
    patch = (tmp_path / "artifacts" / "status-patch.yaml").read_text()
    assert patch.startswith("# kubectl patch preflightvalidations.v1beta2.kmm.sigs.x-k8s.io NAME ")
    resource = "preflightvalidations.v1beta2.kmm.sigs.x-k8s.io"
    found = json.loads(cluster.kubectl("get", resource, "pf", "-o", "json").stdout)
    assert found["spec"] == {"kernelVersion": KERNEL}
    entries = {one["name"]: (one["verificationStatus"], one["verificationStage"]) for one in found["status"]["modules"]}
    assert entries == {"good": ("Success", "Done"), "old": ("Failure", "Done")}
    cluster.apply(module("two", "old", containerImage=GOOD))
    again = run_preflight(tmp_path, *options)
    assert again.returncode == 0, again.output
    assert "the status of PreflightValidation pf shows these verdicts" in again.stdout


def test_an_absent_object_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    cluster.apply_crds(PREFLIGHTS["seed"])
    run = run_preflight(tmp_path, f"--kubeconfig={cluster.kubeconfig()}", LAYOUT, "--preflight=none")
    assert run.returncode == 4, run.output
    assert "--preflight none: no such PreflightValidationOCP" in run.stderr
    assert "Traceback" not in run.output


def test_manifests_and_an_object_exclude_each_other(tmp_path: Path) -> None:
    run = run_preflight(tmp_path, "--manifests=demo/modules", LAYOUT, "--preflight=pf")
    assert run.returncode == 4, run.output
    assert "--preflight excludes --manifests" in run.stderr
