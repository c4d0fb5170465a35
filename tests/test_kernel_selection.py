"""Whole runs on clusters with several kernels: the cases and their findings."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from kmm_preflight.cluster.manifests import read_manifests
from kmm_preflight.errors import UsageProblem
from kmm_preflight.model import Flavour, ModuleName
from kmm_preflight.nodes.selection import KernelOptions, Selection, choose_kernels, named_kernels
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.layers import KeepRules
from kmm_preflight.oci.reference import LayoutReference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.module import RefusedModule
from kmm_preflight.release.choice import Choice
from kmm_preflight.release.payload import FILES
from tests.clusters import namespaces, pull_secret, serve, serve_machines
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
    node_modules,
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
from .test_collect import collect

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
    """Return the kernels of the cases by Module."""
    kernels: dict[str, set[str]] = {}
    for case in run.document["modules"]:
        kernels.setdefault(case["name"], set()).add(case["kernel"])
    assert sum(len(versions) for versions in kernels.values()) == len(run.document["modules"]), "a case is listed twice"
    return kernels


def finding_ids(run: Run) -> dict[str, set[str]]:
    """Return the ids of all findings except image-not-found, by case."""
    return {
        f"{case['name']}@{case['kernel']}": {finding["id"] for finding in case["findings"]} - {"image-not-found"}
        for case in run.document["modules"]
    }


def written(folder: Path, objects: Iterable[Object]) -> str:
    """Write the objects to a file. Return the option that names the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all.json").write_text("\n".join(json.dumps(manifest) for manifest in objects))
    return f"--manifests={folder / 'all.json'}"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the options that name the release."""
    return release_options(tmp_path_factory.mktemp("release"))


def assumed(run: Run) -> list[str]:
    """Return the assumptions about nodes. The release of these tests has no OS images to compare with."""
    return [words for words in run.document["assumed"] if "was not compared with" not in words]


def test_each_module_on_each_kernel_that_its_nodes_will_boot(tmp_path: Path, release: tuple[str, str]) -> None:
    run = run_preflight(tmp_path, *release, written(tmp_path / "given", [*show(), *MODULES]), "-n0")
    assert run.returncode == 1, run.output
    assert cases(run) == SHOW
    assert [kernel["version"] for kernel in run.document["kernels"]] == [AMD_9, RT_9, ARM_9, ARM_10]
    assert finding_ids(run) == {
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
    nodes = {case["kernel"]: case["nodes"] for case in run.document["modules"] if case["name"] == "everywhere"}
    assert nodes == {
        AMD_9: ["pool worker (2 nodes)"],
        ARM_9: ["pool worker (1 node)"],
        RT_9: ["pool rt (2 nodes)"],
        ARM_10: ["pool edge (1 node, paused)"],
    }


def gathered(folder: Path, objects: Iterable[Object], *, listed: bool) -> str:
    """Write a must-gather with the objects, as a file each or as a list for each kind. Return the option for it."""
    inside = folder / "must-gather" / "quay-io-image-sha256-1" / "cluster-scoped-resources"
    by_kind: dict[str, list[Object]] = {}
    for manifest in objects:
        by_kind.setdefault(manifest["kind"], []).append(manifest)
    for kind, manifests in by_kind.items():
        group = inside / manifests[0]["apiVersion"].rpartition("/")[0].replace("/", "") / f"{kind.lower()}s"
        group.parent.mkdir(parents=True, exist_ok=True)
        if listed:
            items = [
                {key: value for key, value in manifest.items() if key not in ("kind", "apiVersion")}
                for manifest in manifests
            ]
            body = {"apiVersion": manifests[0]["apiVersion"], "kind": f"{kind}List", "items": items}
            group.with_suffix(".yaml").write_text(yaml.safe_dump(body))
            continue
        group.mkdir()
        for manifest in manifests:
            (group / f"{manifest['metadata']['name']}.yaml").write_text("---\n" + yaml.safe_dump(manifest))
    return f"--manifests={folder / 'must-gather'}"


def with_version(number: int, manifest: Object) -> Object:
    """Return the object with a resourceVersion."""
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(number)}}


def test_kernels_from_several_must_gathers(tmp_path: Path, release: tuple[str, str]) -> None:
    """The later state of an object counts, in any order of the must-gathers."""
    old = [with_version(9, {**pool("rt"), "spec": {}}), with_version(9, node("rt-0", "worker", kernel="5.0.0"))]
    now = [with_version(10, manifest) for manifest in show()]
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
def test_two_states_of_an_object_without_a_later_state(tmp_path: Path, version: str) -> None:
    two = [with_version(7, node("n")), node("n", kernel="5.0.0")]
    two[1]["metadata"]["resourceVersion"] = version
    with pytest.raises(UsageProblem, match="Node n exists twice with different contents; keep one of them"):
        read_manifests([written(tmp_path / "a", two)[12:]], "default", io.StringIO())


def chosen_for(tmp_path: Path, options: KernelOptions, objects: Iterable[Object]) -> Selection:
    """Return the kernels of the release for the Modules among the objects."""
    layout = LayoutReference(write_layout(tmp_path / "images", release_images()), None, archive=False)
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
    selection = chosen_for(tmp_path, options, [*show(), MODULES[0]])
    (targets,) = selection.targets.values()
    assert {target.kernel.version for target in targets} == kernels
    assert selection.assumed == (f"{named}: used for every Module, whatever kernels its nodes would boot",)


@pytest.mark.parametrize(
    ("version", "arches", "arch", "release", "assumed"),
    [
        (AMD_9, ("arm64",), "amd64", None, ["target kernels were given by --kernel: no release image was read"]),
        (
            "6.6.0",
            ("arm64",),
            "arm64",
            RELEASE,
            [
                f"target kernels were given by --kernel instead of those of {RELEASE}: no release image was read",
                "kernel 6.6.0 names no architecture: arm64 is assumed",
            ],
        ),
    ],
)
def test_named_kernels(
    version: str, arches: tuple[str, ...], arch: str, release: str | None, assumed: list[str]
) -> None:
    name = ModuleName("ns", "m")
    selection = named_kernels([version], arches, "toolkit", release, [RefusedModule(name, "no spec")])
    (kernel,) = selection.kernels
    assert (kernel.version, kernel.arch, kernel.driver_toolkit) == (version, arch, "toolkit")
    assert [target.kernel for target in selection.targets[name]] == [kernel]
    assert (selection.release, selection.all_assumed) == (None, tuple(assumed))


NO_DEFAULT = "no OSImageStream with a default stream: pools without a stream are assumed to boot "
HOSTED = node("h", "worker", labels={"hypershift.openshift.io/nodePool": "np"})


@pytest.mark.parametrize(
    ("objects", "kernels", "assumed"),
    [
        (
            [cluster_version(("Completed", "4.12.3"))],
            {AMD_9},
            f"{NO_DEFAULT}rhel-9, as OpenShift does on a cluster installed with 4.12.3",
        ),
        (
            [],
            {AMD_9, AMD_10},
            f"{NO_DEFAULT}every stream of the release, because the version that the cluster was installed with is "
            "unknown too",
        ),
    ],
)
def test_assumptions_about_streams(tmp_path: Path, objects: list[Object], kernels: set[str], assumed: str) -> None:
    given = [node("n", "worker"), pool("worker"), rendered("worker"), MODULES[0], *objects]
    selection = chosen_for(tmp_path, KernelOptions(Choice()), given)
    assert ({kernel.version for kernel in selection.kernels}, selection.assumed) == (kernels, (assumed,))


def test_a_node_pool_of_another_release_is_judged_on_this_release_with_a_note(tmp_path: Path) -> None:
    given = [HOSTED, node_pool("np", release="quay.io/older:1"), MODULES[0]]
    selection = chosen_for(tmp_path, KernelOptions(Choice()), given)
    nodes = [(kernel.version, kernel.provenance.partition(", ")[2]) for kernel in selection.kernels]
    assert nodes == [(AMD_10, "for NodePool np")]
    assert selection.assumed == (
        f"NodePool np requests release quay.io/older:1 today: its nodes are judged on {RELEASE}",
    )


def test_an_unknown_kernel_is_undecided_and_an_unchanged_kernel_is_judged(
    tmp_path: Path, release: tuple[str, str]
) -> None:
    """Two pools have an image of their own: a node of rt reports its kernel. The release lacks the flavour of big."""
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
    assert finding_ids(run) == {
        "all@unknown-pool-big-rhel-9-arm64-64k": {"release-lacks-kernel"},
        "all@unknown-pool-edge-amd64-standard": {"kernel-unknown", "pool-paused"},
        "all@5.14.0-1.el9.x86_64+rt": {"kernel-stays"},
    }
    assert run.returncode == 1, run.output
    assert {case["kernel"]: case["verdict"] for case in run.document["modules"]} == {
        "unknown-pool-big-rhel-9-arm64-64k": "undecided",
        "unknown-pool-edge-amd64-standard": "undecided",
        "5.14.0-1.el9.x86_64+rt": "refuted",
    }


def test_kernels_from_a_cluster(tmp_path: Path, release: tuple[str, str]) -> None:
    """Pools and streams have OpenShift's own definitions."""
    names = ("machineconfigpools.yaml", "osimagestreams.yaml")
    definitions = [released("openshift") / name for name in names]
    with Cluster(tmp_path / "cluster") as cluster:
        serve(cluster, tmp_path)
        serve_machines(cluster, tmp_path, *definitions)
        cluster.apply(*namespaces("demo"), *show(), *MODULES)
        cluster.forget()
        run = run_preflight(tmp_path, *release, f"--kubeconfig={cluster.kubeconfig('reader')}", "-n0")
        requests = [
            f"{event.verb} {event.resource} {event.name}".strip() for event in cluster.requests() if event.resource
        ]
        assert run.returncode == 1, run.output
        assert cases(run) == SHOW
        assert assumed(run) == []
        assert [request for request in requests if request.split()[1] in MACHINES] == [
            "list nodes",
            "list machineconfigpools",
            *(f"get machineconfigs rendered-{name}-1" for name in ("edge", "master", "rt", "worker")),
            "get osimagestreams cluster",
            "get clusterversions version",
            "list machineosconfigs",
        ]
        cluster.apply_crds(PREFLIGHTS["later"])
        cluster.apply_crds(PREFLIGHTS["later"])
        # Changed pools give other cases, and an object for each known kernel.
        unsettled = pool("edge", sources=["50-edge"])
        unsettled["spec"]["configuration"]["name"] = "rendered-edge-2"
        own = config("50-edge", image="quay.io/team/os:1", role="edge")
        cluster.apply(pool("rt", stream="rhel-10"), unsettled, own)
        answers = ["--preflight=pf", "--create-preflight"]
        run = run_preflight(tmp_path, *release, f"--kubeconfig={cluster.kubeconfig()}", *answers, "-n0")
        assert run.returncode == 1, run.output
        unknown = "unknown-pool-edge-arm64-standard"
        changed = {RT_9: RT_10, ARM_10: unknown}
        assert cases(run) == {
            name: {changed.get(version, version) for version in kernels} for name, kernels in SHOW.items()
        }
        assert f"{unknown} has no PreflightValidationOCP: the kernel is not known" in run.document["assumed"]
        assert answered(cluster) == {
            AMD_9: {"everywhere", "later"},
            ARM_9: {"everywhere", "arm", "later"},
            RT_10: {"everywhere", "rt", "later", "lost"},
        }


def answered(cluster: Cluster) -> dict[str, set[str]]:
    """Return the Modules in the preflight object of each kernel."""
    objects = json.loads(cluster.kubectl("get", "preflightvalidationsocp", "-o", "json").stdout)["items"]
    return {item["spec"]["kernelVersion"]: {module["name"] for module in item["status"]["modules"]} for item in objects}


LABEL = "kmm.node.kubernetes.io/version-module.demo.versioned"
OLD = "registry.example/old:v0"


def ordered_upgrade() -> list[Object]:
    """Return a cluster in an ordered upgrade of one Module: worker-0 has it, worker-1 keeps the version before."""
    versioned = module("versioned", {"node-role.kubernetes.io/worker": "", "kubernetes.io/arch": "amd64"})
    versioned["spec"]["moduleLoader"]["container"]["version"] = "2"
    of_today = {"feature.node.kubernetes.io/kernel-version.full": TODAY, "site": "b"}
    lost = module("lost", of_today)
    lost["spec"]["moduleLoader"]["container"]["modprobe"]["moduleName"] = "other"
    rhel = node("rhel-0", "worker", labels={"site": "a"}, kernel="4.18.0-513.5.1.el8_9.x86_64")
    rhel["status"]["nodeInfo"]["osImage"] = "Red Hat Enterprise Linux 8.9 (Ootpa)"
    kept = node_modules("worker-1", ("demo", "versioned", OLD))
    kept["spec"]["modules"][0]["imageRepoSecret"] = {"name": "old-pull"}
    return [
        node("worker-0", "worker", labels={LABEL: "2", **of_today}),
        node("worker-1", "worker", labels={LABEL: "1"}),
        node("worker-2", "worker"),
        rhel,
        pool("worker"),
        rendered("worker"),
        pool("rt"),
        rendered("rt", "realtime"),
        streams("rhel-9"),
        kept,
        dict(pull_secret("demo", "old-pull")),
        versioned,
        lost,
        module("rhel", {"site": "a"}),
        module("all"),
        module("arm", {"kubernetes.io/arch": "arm64"}),
    ]


def images_and_findings(run: Run) -> dict[str, tuple[str, set[str]]]:
    """Return the image of each case and its findings except image-not-found."""
    return {
        f"{case['name']}@{case['kernel']}{case['version'] or ''}": (
            case["image"]["reference"],
            {finding["id"] for finding in case["findings"]} - {"image-not-found", "nodes-without-version"},
        )
        for case in run.document["modules"]
    }


NONE = "registry.example/none:v1"
FOREIGN = "unknown-nodes-with-Red-Hat-Enterprise-Linux-8.9-Ootpa--amd64-standard"
AFTER = {
    f"versioned@{AMD_9}": (NONE, {"pool-not-checked"}),
    f"versioned@{AMD_9}1": (OLD, {"version-kept", "version-kernel-unclear", "pool-not-checked"}),
    f"lost@{AMD_9}": ("", {"selector-lost", "pool-not-checked"}),
    f"rhel@{FOREIGN}": ("", {"node-not-coreos", "pool-not-checked"}),
    f"all@{AMD_9}": (NONE, set()),
    f"all@{RT_9}": (NONE, {"pool-to-come"}),
    f"all@{FOREIGN}": ("", {"node-not-coreos"}),
}
ARM_LISTED = [{"kind": "Module", "namespace": "demo", "name": "arm", "reason": "no node and no pool has arm64"}]


def test_nodes_as_they_will_be(tmp_path: Path, release: tuple[str, str]) -> None:
    run = run_preflight(tmp_path, *release, written(tmp_path / "given", ordered_upgrade()), "-n0")
    assert run.returncode == 1, run.output
    assert images_and_findings(run) == AFTER
    assert run.document["listed"] == ARM_LISTED
    assert f"demo/versioned  {AMD_9},version=1" in run.output
    # The version of KMM decides about nodes that keep an older version.
    run = run_preflight(
        tmp_path, *release, written(tmp_path / "given", ordered_upgrade()), "--proof=node", "--kmm-version=2.4", "-n0"
    )
    assert "version-kernel" in images_and_findings(run)[f"versioned@{AMD_9}1"][1], run.output


def test_nodes_as_they_will_be_from_a_cluster(tmp_path: Path, release: tuple[str, str]) -> None:
    """NodeModulesConfigs have KMM's own definition. A folder of collect gives the same cases."""
    with Cluster(tmp_path / "cluster") as cluster:
        serve(cluster, tmp_path)
        serve_machines(cluster, tmp_path, released("kmm-main") / "nodemodulesconfigs.yaml")
        cluster.apply(*namespaces("demo"), *ordered_upgrade())
        run = run_preflight(tmp_path, *release, f"--kubeconfig={cluster.kubeconfig('reader')}", "-n0")
        assert run.returncode == 1, run.output
        assert images_and_findings(run) == AFTER
        assert run.document["listed"] == ARM_LISTED
        collected = tmp_path / "collected"
        done = collect(cluster, collected)
        assert done.returncode == 0, done.stderr
    assert "old-pull" in (collected / "secrets.yaml").read_text()
    run = run_preflight(tmp_path, *release, f"--manifests={collected}", "-n0")
    assert images_and_findings(run) == AFTER
