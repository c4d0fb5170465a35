"""Whole runs on clusters of several kernels: which cases there are, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.clusters import namespaces, serve, serve_machines
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import released

from .fleets import (
    AMD_9,
    ARM_9,
    ARM_10,
    RT_9,
    RT_10,
    TODAY,
    Object,
    module,
    pool,
    release_options,
    show,
)
from .runs import Run, run_preflight

MODULES = [
    module("everywhere"),
    module("rt", {"node-role.kubernetes.io/rt": ""}),
    module("edge", {"node-role.kubernetes.io/edge": ""}),
    module("arm", {"kubernetes.io/arch": "arm64"}),
    module("later", {"gpu": "yes"}),
    module("lost", {"node-role.kubernetes.io/rt": ""}, regexp=f"^{TODAY}"),
]
MACHINES = {"nodes", "machineconfigpools", "machineconfigs", "machineosconfigs", "osimagestreams", "clusterversions"}
SHOW = {
    "everywhere": {AMD_9, ARM_9, RT_9, ARM_10},
    "rt": {RT_9},
    "edge": {ARM_10},
    "arm": {ARM_9, ARM_10},
    "later": {AMD_9, ARM_9, RT_9, ARM_10},
    "lost": {RT_9},
}


def cases(run: Run) -> dict[str, set[str]]:
    """The kernels of the cases by Module."""
    found: dict[str, set[str]] = {}
    for one in run.document["modules"]:
        found.setdefault(one["name"], set()).add(one["kernel"])
    assert sum(len(kernels) for kernels in found.values()) == len(run.document["modules"]), "a case stands twice"
    return found


def told(run: Run) -> dict[str, set[str]]:
    """The ids of all findings but that of the image, by case."""
    return {
        f"{one['name']}@{one['kernel']}": {finding["id"] for finding in one["findings"]} - {"image-not-found"}
        for one in run.document["modules"]
    }


def written(folder: Path, objects: Iterable[Object]) -> str:
    """The option that names a file with the objects."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all.json").write_text("\n".join(json.dumps(one) for one in objects))
    return f"--manifests={folder / 'all.json'}"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The options that name the release."""
    return release_options(tmp_path_factory.mktemp("release"))


def assumed(run: Run) -> list[str]:
    """What was taken for granted of nodes; the release of these tests has no OS images to compare with."""
    return [words for words in run.document["assumed"] if "was not compared with" not in words]


def test_each_module_on_each_kernel_that_its_nodes_will_boot(tmp_path: Path, release: tuple[str, str]) -> None:
    run = run_preflight(tmp_path, *release, written(tmp_path / "given", [*show(), *MODULES]), "-n0")
    assert run.returncode == 1, run.output
    assert cases(run) == SHOW
    assert [one["version"] for one in run.document["kernels"]] == [AMD_9, RT_9, ARM_9, ARM_10]
    assert told(run) == {
        f"everywhere@{AMD_9}": set(),
        f"everywhere@{ARM_9}": set(),
        f"everywhere@{RT_9}": set(),
        f"everywhere@{ARM_10}": {"pool-paused"},
        f"rt@{RT_9}": set(),
        f"edge@{ARM_10}": {"pool-paused"},
        f"arm@{ARM_9}": set(),
        f"arm@{ARM_10}": {"pool-paused"},
        f"later@{AMD_9}": {"no-node-selected"},
        f"later@{ARM_9}": {"no-node-selected"},
        f"later@{RT_9}": {"no-node-selected"},
        f"later@{ARM_10}": {"no-node-selected", "pool-paused"},
        f"lost@{RT_9}": {"mapping-lost"},
    }
    assert assumed(run) == []
    nodes = {one["kernel"]: one["nodes"] for one in run.document["modules"] if one["name"] == "everywhere"}
    assert nodes == {
        AMD_9: ["pool worker (2 nodes)"],
        ARM_9: ["pool worker (1 node)"],
        RT_9: ["pool rt (2 nodes)"],
        ARM_10: ["pool edge (1 node, paused)"],
    }


def test_the_same_on_a_cluster(tmp_path: Path, release: tuple[str, str]) -> None:
    """Pools and streams as OpenShift defines them."""
    names = ("machineconfigpools.yaml", "osimagestreams.yaml")
    definitions = [released("openshift") / name for name in names]
    with Cluster(tmp_path / "cluster") as cluster:
        serve(cluster, tmp_path)
        serve_machines(cluster, tmp_path, *definitions)
        cluster.apply(*namespaces("demo"), *show(), *MODULES)
        cluster.forget()
        run = run_preflight(tmp_path, *release, f"--kubeconfig={cluster.kubeconfig('reader')}", "-n0")
        asked = [f"{event.verb} {event.resource} {event.name}".strip() for event in cluster.requests()]
        assert run.returncode == 1, run.output
        assert cases(run) == SHOW
        assert assumed(run) == []
        assert [one for one in asked if one.split()[1] in MACHINES] == [
            "list nodes",
            "list machineconfigpools",
            *(f"get machineconfigs rendered-{name}-1" for name in ("edge", "master", "rt", "worker")),
            "get osimagestreams cluster",
            "get clusterversions version",
            "list machineosconfigs",
        ]
        cluster.apply(pool("rt", stream="rhel-10"))
        run = run_preflight(tmp_path, *release, f"--kubeconfig={cluster.kubeconfig('reader')}", "-n0", "--collect-only")
        assert f"[demo/rt@{RT_10}]" in run.output
        assert f"[demo/rt@{RT_9}]" not in run.output
