"""Whole runs on clusters of several kernels: which cases there are, and what is said of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from kmm_preflight.cluster.manifests import read_manifests
from kmm_preflight.errors import UsageProblem
from kmm_preflight.model import Flavour
from kmm_preflight.nodes.selection import KernelOptions, Selection, choose_kernels
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.layers import KeepRules
from kmm_preflight.oci.reference import LayoutReference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.release.choice import Choice
from kmm_preflight.release.payload import FILES
from tests.clusters import namespaces, serve, serve_machines
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import PREFLIGHTS, released

from .fleets import (
    AMD_9,
    AMD_10,
    ARM_9,
    ARM_10,
    RELEASE,
    RT_9,
    RT_10,
    TODAY,
    Object,
    cluster_version,
    config,
    module,
    node,
    node_pool,
    pool,
    release_images,
    release_options,
    rendered,
    show,
    streams,
)
from .real.layout import write_layout
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


def gathered(folder: Path, objects: Iterable[Object], *, listed: bool) -> str:
    """The option that names a must-gather with the objects: a file each, or a list of each kind."""
    inside = folder / "must-gather" / "quay-io-image-sha256-1" / "cluster-scoped-resources"
    by_kind: dict[str, list[Object]] = {}
    for one in objects:
        by_kind.setdefault(one["kind"], []).append(one)
    for kind, several in by_kind.items():
        group = inside / several[0]["apiVersion"].rpartition("/")[0].replace("/", "") / f"{kind.lower()}s"
        group.parent.mkdir(parents=True, exist_ok=True)
        if listed:
            items = [{key: value for key, value in one.items() if key not in ("kind", "apiVersion")} for one in several]
            body = {"apiVersion": several[0]["apiVersion"], "kind": f"{kind}List", "items": items}
            group.with_suffix(".yaml").write_text(yaml.safe_dump(body))
            continue
        group.mkdir()
        for one in several:
            (group / f"{one['metadata']['name']}.yaml").write_text("---\n" + yaml.safe_dump(one))
    return f"--manifests={folder / 'must-gather'}"


def of_time(number: int, one: Object) -> Object:
    """The object in a state of its own."""
    return {**one, "metadata": {**one["metadata"], "resourceVersion": str(number)}}


def test_the_same_of_several_must_gathers(tmp_path: Path, release: tuple[str, str]) -> None:
    """The later state of an object counts, in whatever order they are given."""
    old = [of_time(9, {**pool("rt"), "spec": {}}), of_time(9, node("rt-0", "worker", kernel="5.0.0"))]
    now = [of_time(10, one) for one in show()]
    trees = [
        gathered(tmp_path / "now", now, listed=False),
        gathered(tmp_path / "list", now, listed=True),
        gathered(tmp_path / "old", old, listed=True),
        written(tmp_path / "kmm", MODULES),
    ]
    version = release[0].rpartition(":")[2].removesuffix("-multi")  # an image for all architectures that nodes have
    run = run_preflight(tmp_path, f"--release-image={version}", *release[1:], *trees, "-n0")
    assert run.returncode == 1, run.output
    assert run.document["release"]["reference"] == RELEASE
    assert cases(run) == SHOW
    assert assumed(run) == []


@pytest.mark.parametrize("version", ["", "7", "x"])
def test_two_states_of_an_object_of_which_none_is_later(tmp_path: Path, version: str) -> None:
    two = [of_time(7, node("n")), node("n", kernel="5.0.0")]
    two[1]["metadata"]["resourceVersion"] = version
    with pytest.raises(UsageProblem, match="Node n stands twice, and not alike; keep one of them"):
        read_manifests([written(tmp_path / "a", two)[12:]], "default", io.StringIO())


def chosen_for(tmp_path: Path, options: KernelOptions, objects: Iterable[Object]) -> Selection:
    """The kernels of the release for the Modules among the objects."""
    layout = LayoutReference(write_layout(tmp_path / "images", release_images()), "", archive=False)
    images = ImageResolver(Network(), Cache(tmp_path / "cache"), layout, KeepRules(paths=FILES))
    inventory = read_manifests([written(tmp_path / "given", objects)[12:]], "default", io.StringIO())
    return choose_kernels(images, RELEASE, options, PullCredentials(), inventory.modules, inventory.fleet)


@pytest.mark.parametrize(
    ("options", "kernels", "named"),
    [
        (KernelOptions(Choice(streams=("rhel-9",))), {AMD_9, ARM_9, RT_9}, "--stream"),
        (KernelOptions(Choice(streams=("driver-toolkit-10",), arches=("amd64",))), {AMD_10, RT_10}, "--arch, --stream"),
        (KernelOptions(Choice(arches=("amd64",))), {AMD_9, RT_9, AMD_10}, "--arch"),
        (KernelOptions(Choice(arches=("multi",))), {AMD_9, RT_9, ARM_9, AMD_10, ARM_10}, "--arch"),
        (KernelOptions(Choice(), flavour_named=True), {AMD_9, ARM_9, ARM_10}, "--flavour"),
        (
            KernelOptions(Choice(flavours=(Flavour.RT,), arches=("amd64",)), flavour_named=True),
            {RT_9, RT_10},
            "--arch, --flavour",
        ),
    ],
)
def test_options_win_over_nodes(tmp_path: Path, options: KernelOptions, kernels: set[str], named: str) -> None:
    chosen = chosen_for(tmp_path, options, [*show(), MODULES[0]])
    (several,) = chosen.targets.values()
    assert {target.kernel.version for target in several} == kernels
    assert chosen.assumed == (f"{named}: taken for every Module, whatever its nodes say",)


NO_DEFAULT = "no OSImageStream tells the default stream: pools without a stream are taken to boot "
HOSTED = node("h", "worker", labels={"hypershift.openshift.io/nodePool": "np"})


@pytest.mark.parametrize(
    ("objects", "kernels", "said"),
    [
        (
            [cluster_version(("Completed", "4.12.3"))],
            {AMD_9},
            f"{NO_DEFAULT}rhel-9, as OpenShift does on a cluster installed with 4.12.3",
        ),
        (
            [],
            {AMD_9, AMD_10},
            f"{NO_DEFAULT}every stream of the release, since the version that the cluster was installed with is not "
            "known either",
        ),
    ],
)
def test_what_is_assumed_of_streams_is_said(
    tmp_path: Path, objects: list[Object], kernels: set[str], said: str
) -> None:
    given = [node("n", "worker"), pool("worker"), rendered("worker"), MODULES[0], *objects]
    chosen = chosen_for(tmp_path, KernelOptions(Choice()), given)
    assert ({one.version for one in chosen.kernels}, chosen.assumed) == (kernels, (said,))


def test_a_node_pool_that_asks_for_another_release_is_judged_on_this_one_and_said(tmp_path: Path) -> None:
    given = [HOSTED, node_pool("np", release="quay.io/older:1"), MODULES[0]]
    chosen = chosen_for(tmp_path, KernelOptions(Choice()), given)
    assert [(one.version, one.provenance.partition(", ")[2]) for one in chosen.kernels] == [(AMD_10, "for NodePool np")]
    assert chosen.assumed == (f"NodePool np asks for release quay.io/older:1 today: its nodes are judged on {RELEASE}",)


def test_what_is_not_known_is_not_green_and_what_stays_is_judged(tmp_path: Path, release: tuple[str, str]) -> None:
    """An image of a pool's own, of which a node tells the kernel or none does, and a flavour that the release lacks."""
    own = [
        config("50-edge", image="quay.io/team/os:1", role="edge"),
        config("50-rt", image="quay.io/team/rt:1", role="rt"),
    ]
    nodes = [
        node("edge-0", "worker", "edge", config="rendered-edge-0", desired="rendered-edge-1"),
        node("rt-0", "worker", "rt", kernel="5.14.0-1.el9.x86_64+rt"),
        node("big-0", "worker", "big", arch="arm64", kernel="5.14.0-1.el9.aarch64+64k"),
    ]
    pools = [
        pool("edge", paused=True),
        pool("rt"),
        pool("big"),
        rendered("edge"),
        rendered("rt"),
        rendered("big", "64k-pages"),
    ]
    objects = [*nodes, *pools, *own, streams("rhel-9"), module("all")]
    run = run_preflight(tmp_path, *release, written(tmp_path / "given", objects), "-n0")
    assert told(run) == {
        "all@unknown-pool-big-rhel-9-arm64-64k": {"release-lacks-kernel"},
        "all@unknown-pool-edge-amd64-standard": {"kernel-unknown", "pool-paused"},
        "all@5.14.0-1.el9.x86_64+rt": {"kernel-stays"},
    }
    assert run.returncode == 1, run.output
    assert {one["kernel"]: one["verdict"] for one in run.document["modules"]} == {
        "unknown-pool-big-rhel-9-arm64-64k": "undecided",
        "unknown-pool-edge-amd64-standard": "undecided",
        "5.14.0-1.el9.x86_64+rt": "refuted",
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
        cluster.apply_crds(PREFLIGHTS["later"])
        cluster.apply_crds(PREFLIGHTS["later"])
        # Pools that were changed: other cases, and an object for each kernel that is known.
        unsettled = pool("edge", sources=["50-edge"])
        unsettled["spec"]["configuration"]["name"] = "rendered-edge-2"
        own = config("50-edge", image="quay.io/team/os:1", role="edge")
        cluster.apply(pool("rt", stream="rhel-10"), unsettled, own)
        answers = ["--preflight=pf", "--create-preflight"]
        run = run_preflight(tmp_path, *release, f"--kubeconfig={cluster.kubeconfig()}", *answers, "-n0")
        assert run.returncode == 1, run.output
        unknown = "unknown-pool-edge-arm64-standard"
        changed = {RT_9: RT_10, ARM_10: unknown}
        assert cases(run) == {name: {changed.get(one, one) for one in kernels} for name, kernels in SHOW.items()}
        assert f"{unknown} has no PreflightValidationOCP: the kernel is not known" in run.document["assumed"]
        assert answered(cluster) == {
            AMD_9: {"everywhere", "later"},
            ARM_9: {"everywhere", "arm", "later"},
            RT_10: {"everywhere", "rt", "later", "lost"},
        }


def answered(cluster: Cluster) -> dict[str, set[str]]:
    """The Modules that are told of each kernel."""
    listed = json.loads(cluster.kubectl("get", "preflightvalidationsocp", "-o", "json").stdout)["items"]
    return {one["spec"]["kernelVersion"]: {told["name"] for told in one["status"]["modules"]} for one in listed}
