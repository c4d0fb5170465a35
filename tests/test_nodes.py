"""The kernel that a node will boot: a table for each rule of the machine config operator."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.fleet import made_by_operator
from kmm_preflight.cluster.fleet_manifests import KINDS, given_fleet
from kmm_preflight.cluster.manifests import read_manifests
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.model import Flavour, TargetKernel
from kmm_preflight.nodes import findings
from kmm_preflight.nodes.cases import make_cases
from kmm_preflight.nodes.demand import Demand, demand_of
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.machine_config import custom_os_image, flavour_of, merged_kernel_type, parse_machine_config
from kmm_preflight.nodes.node import parse_node
from kmm_preflight.nodes.pool import parse_pool, pool_of
from kmm_preflight.nodes.prediction import PredictedKernel, Prediction, ReleaseStreams, default_stream_of, hosted_stream
from kmm_preflight.nodes.selector import Selector, parse_selector
from kmm_preflight.nodes.targets import targets_of, with_nodes
from kmm_preflight.planning.module import parse_module
from kmm_preflight.planning.toleration import Taint, Toleration

from .fleets import (
    AMD_9,
    ARM_9,
    MASTER_TAINT,
    MCO,
    OWN_IMAGE,
    ROLE,
    RT_9,
    TODAY,
    TODAY_ARM,
    Object,
    cluster_version,
    config,
    config_map,
    layered,
    module,
    node,
    node_modules,
    node_pool,
    pool,
    rendered,
    streams,
)

STANDARD, RT, PAGES_64K = Flavour
TWO = ReleaseStreams("5.0.0", ("rhel-9", "rhel-10"))
ONE = ReleaseStreams("4.18.3", ("rhel-9",))


def fleet_of(objects: Iterable[Object]) -> Fleet:
    """Return the fleet of manifests."""
    manifests = list(objects)
    by_kind = {kind: [manifest for manifest in manifests if manifest["kind"] == kind] for kind in KINDS}
    maps = {
        (manifest["metadata"]["namespace"], manifest["metadata"]["name"]): manifest
        for manifest in manifests
        if manifest["kind"] == "ConfigMap"
    }
    fleet = given_fleet(by_kind, maps)
    assert fleet
    return fleet


def predict(*objects: Object, release: ReleaseStreams = TWO) -> dict[str, PredictedKernel]:
    """Return the kernel that each node will boot, by the node's name."""
    fleet = fleet_of(objects)
    prediction = Prediction(fleet, release)
    return {node.name: prediction.of_node(node) for node in fleet.nodes}


def demand(
    selector: Mapping[str, str], *objects: Object, tolerations: Iterable[Object] = (), release: ReleaseStreams = TWO
) -> list[Demand]:
    """Return the kernels that the nodes of a Module with this selector will boot."""
    manifest = module("m", selector)
    manifest["spec"]["tolerations"] = list(tolerations)
    return list(demand_of(parse_module(manifest, ""), Prediction(fleet_of(objects), release)))


def kinds(demands: Iterable[Demand]) -> list[str]:
    """Return stream, architecture, flavour and number of nodes of each demand."""
    return sorted(
        f"{kernel.stream or 'any'} {kernel.arch or 'any'} {kernel.flavour.value if kernel.flavour else 'any'} "
        f"{item.node_count}"
        for item in demands
        if (kernel := item.predicted)
    )


@pytest.mark.parametrize(
    ("roles", "name"),
    [
        ((), None),
        (("worker",), "worker"),
        (("master",), "master"),
        (("master", "worker"), "master"),
        (("worker", "rt"), "rt"),
        (("rt",), "rt"),
        (("master", "worker", "rt"), "master"),
        (("worker", "rt", "edge"), None),
        (("master", "rt", "edge"), None),
        (("worker", "infra"), "worker"),
        (("worker", "arbiter", "rt"), None),
        (("arbiter",), "arbiter"),
    ],
)
def test_the_pool_of_a_node(roles: tuple[str, ...], name: str | None) -> None:
    pools = [parse_pool(pool(role)) for role in ("master", "worker", "rt", "edge", "arbiter")]
    empty: Object = {**pool("none"), "spec": {"nodeSelector": {}}}
    result = pool_of(parse_node(node("n", *roles)), [*pools, parse_pool(empty), parse_pool({**empty, "spec": {}})])
    assert (result.name if result else None) == name


def test_windows_and_hosted_nodes_have_no_pool() -> None:
    pools = [parse_pool(pool("worker"))]
    assert pool_of(parse_node(node("n", "worker", os="windows")), pools) is None
    hosted = node("n", "worker", labels={"hypershift.openshift.io/nodePool": "a"})
    assert pool_of(parse_node(hosted), pools) is None


@pytest.mark.parametrize(
    ("expressions", "labels", "matches", "forbids"),
    [
        ([("a", "In", ["1", "2"])], {"a": "2"}, True, False),
        ([("a", "In", ["1"])], {"a": "2"}, False, True),
        ([("a", "In", ["1"])], {}, False, False),
        ([("a", "NotIn", ["1"])], {}, True, False),
        ([("a", "NotIn", ["1"])], {"a": "1"}, False, True),
        ([("a", "Exists", [])], {"a": ""}, True, False),
        ([("a", "Exists", [])], {}, False, False),
        ([("a", "DoesNotExist", [])], {"a": ""}, False, True),
        ([("a", "DoesNotExist", [])], {}, True, False),
        ([("a", "Exists", []), ("b", "Exists", [])], {"a": ""}, False, False),
    ],
)
def test_selectors(
    expressions: list[tuple[str, str, list[str]]], labels: Mapping[str, str], matches: bool, forbids: bool
) -> None:
    written = [{"key": key, "operator": operator, "values": values} for key, operator, values in expressions]
    selector = parse_selector(Field({"matchExpressions": written}))
    assert selector
    assert (selector.matches(labels), selector.forbids(labels)) == (matches, forbids)


def test_empty_and_invalid_selectors() -> None:
    assert parse_selector(Field({})) is None
    assert Selector().matches({})
    with pytest.raises(Malformed, match="operator: got text 'Near', expected one of In, NotIn, Exists, DoesNotExist"):
        parse_selector(Field({"matchExpressions": [{"key": "a", "operator": "Near"}]}))


# kernelType and osImageURL by name and role of each source, in any order.
@pytest.mark.parametrize(
    ("sources", "kernel_type", "image"),
    [
        ([], "default", None),
        ([("50", "worker", "default", "")], "default", None),
        ([("50", "worker", "realtime", ""), ("60", "worker", "default", "")], "realtime", None),
        ([("60", "worker", "64k-pages", ""), ("50", "worker", "realtime", "")], "64k-pages", None),
        ([("10", "rt", "realtime", "a"), ("90", "worker", "64k-pages", "b")], "realtime", "a"),
        ([("90", "worker", "realtime", ""), ("10", "rt", "default", "")], "realtime", None),
        ([("10", "worker", "", "a"), ("20", "worker", "", "b")], "default", "b"),
    ],
)
def test_configurations_merge(sources: list[tuple[str, str, str, str]], kernel_type: str, image: str | None) -> None:
    parsed = [parse_machine_config(config(name, kind, os_image, role)) for name, role, kind, os_image in sources]
    assert (merged_kernel_type(parsed), custom_os_image(parsed)) == (kernel_type, image)
    assert custom_os_image([parse_machine_config(config("99", "", "made", "worker", generated=True)), *parsed]) == image


@pytest.mark.parametrize(
    ("text", "flavour"),
    [("default", STANDARD), ("realtime", RT), ("64k-pages", PAGES_64K), ("tiny", None)],
)
def test_flavours(text: str, flavour: Flavour | None) -> None:
    assert flavour_of(text) is flavour


@pytest.mark.parametrize(
    ("more", "release", "of_worker", "of_rt", "of_edge"),
    [
        ([streams("rhel-9")], TWO, "rhel-9", "rhel-9", "rhel-10"),
        ([streams("rhel-10", "v1alpha1")], TWO, "rhel-10", "rhel-10", "rhel-10"),
        ([streams("rhel-9"), pool("worker", stream="rhel-10")], TWO, "rhel-10", "rhel-10", "rhel-10"),
        ([streams("rhel-9"), pool("master", stream="rhel-10")], TWO, "rhel-9", "rhel-9", "rhel-10"),
        ([], ONE, "rhel-9", "rhel-9", "rhel-10"),
        ([], TWO, None, None, "rhel-10"),
        ([cluster_version(("Partial", "5.0.0"), ("Completed", "5.0.0"), ("Completed", "4.9.1"))], TWO, "rhel-9",
         "rhel-9", "rhel-10"),
        ([cluster_version(("Completed", "5.0.0"), ("Partial", "4.9.1"))], TWO, "rhel-10", "rhel-10", "rhel-10"),
        ([cluster_version(("Completed", "4.20.0-okd-scos.5"))], TWO, "centos-10", "centos-10", "rhel-10"),
        ([cluster_version()], TWO, None, None, "rhel-10"),
    ],
    ids=["default", "before 4.23", "the worker's", "not the master's", "the only one", "unknown", "installed with 4",
         "installed with 5", "OKD", "no history"],
)  # fmt: skip
def test_streams(
    more: list[Object], release: ReleaseStreams, of_worker: str | None, of_rt: str | None, of_edge: str
) -> None:
    base = [pool("rt"), pool("edge", stream="rhel-10"), rendered("worker"), rendered("rt"), rendered("edge")]
    base += [] if any(manifest["metadata"]["name"] == "worker" for manifest in more) else [pool("worker")]
    nodes = [node("w", "worker"), node("r", "worker", "rt"), node("e", "worker", "edge")]
    kernels = predict(*base, *nodes, *more, release=release)
    assert {name: kernel.stream for name, kernel in kernels.items()} == {"w": of_worker, "r": of_rt, "e": of_edge}


def test_hosted_and_default_streams() -> None:
    assert hosted_stream(ReleaseStreams("4.22.1", ("rhel-9", "rhel-10"))) == "rhel-9"
    assert hosted_stream(TWO) == "rhel-10"
    assert hosted_stream(ReleaseStreams("5.0.0", ("rhel-9",))) == "rhel-9"
    assert default_stream_of(Fleet(installed_version="what"), TWO) == "rhel-9"


OWN = config("50-os", image=OWN_IMAGE, role="worker")
WORKER = pool("worker", sources=["00-worker", "50-os"])
SET = f"osImageURL is set to {OWN_IMAGE}"


@pytest.mark.parametrize(
    ("nodes", "kernel", "unknown"),
    [
        pytest.param([node("n", "worker")], TODAY, None, id="runs the image"),
        pytest.param(
            [node("n", "worker", config="rendered-worker-0", desired="rendered-worker-1")],
            None,
            f"{SET}, and no node reports the kernel",
            id="will run the image",
        ),
        pytest.param(
            [node("n", "worker", config="rendered-worker-0")],
            None,
            f"{SET}, and no node reports the kernel",
            id="paused before the image",
        ),
        pytest.param(
            [node("n", "worker", kernel="old", config="rendered-worker-0"), node("o", "worker")],
            TODAY,
            None,
            id="another node runs the image",
        ),
        pytest.param(
            [node("n", "worker"), node("o", "worker", kernel="5.0.0")],
            None,
            f"{SET}, and nodes with this image boot 5.0.0, {TODAY}",
            id="two kernels",
        ),
        pytest.param(
            [node("n", "worker"), node("o", "worker", kernel="what is this")],
            None,
            f"{SET}, and nodes with this image boot {TODAY}, an unknown kernel",
            id="a known and an unknown kernel",
        ),
        pytest.param(
            [node("n", "worker"), node("o", "worker", kernel=TODAY_ARM, arch="arm64")],
            TODAY,
            None,
            id="another architecture",
        ),
        pytest.param(
            [node("n", "worker", kernel="what is this")],
            None,
            f"{SET}, and no node reports the kernel",
            id="unknown kernel",
        ),
    ],
)
def test_a_pool_with_an_image_of_its_own(nodes: list[Object], kernel: str | None, unknown: str | None) -> None:
    predicted = predict(WORKER, OWN, rendered("worker"), *nodes)["n"]
    assert (predicted.kernel, predicted.unknown_because, predicted.stream) == (kernel, unknown, None)
    assert predicted.unchanged_because == (SET if kernel else None)


def test_the_images_of_other_pools_do_not_count() -> None:
    kernels = predict(pool("worker"), pool("rt"), OWN, rendered("worker"), rendered("rt"), node("w", "worker"),
                     config("50-rt", image="other", role="rt"), node("r", "worker", "rt"))  # fmt: skip
    assert kernels["w"].unchanged_because == SET
    assert kernels["r"].unchanged_because == "osImageURL is set to other"


@pytest.mark.parametrize(
    ("objects", "flavour", "unknown"),
    [
        pytest.param([rendered("worker")], STANDARD, None, id="rendered"),
        pytest.param([rendered("worker", "realtime")], RT, None, id="rendered rt"),
        pytest.param([rendered("worker", "64k-pages")], PAGES_64K, None, id="rendered 64k"),
        pytest.param([rendered("worker", "tiny")], STANDARD, "kernelType is tiny", id="an unknown kernelType"),
        pytest.param([config("50", "realtime", role="worker")], RT, None, id="from Git"),
        pytest.param([config("50", "realtime", role="other")], STANDARD, None, id="of another role"),
        pytest.param([], STANDARD, None, id="not given"),
    ],
)
def test_the_flavour_of_a_pool(objects: list[Object], flavour: Flavour, unknown: str | None) -> None:
    predicted = predict(pool("worker"), node("n", "worker"), *objects)["n"]
    assert (predicted.flavour, predicted.unknown_because) == (flavour, unknown)


@pytest.mark.parametrize(
    ("objects", "flavour"),
    [
        ([], RT),
        ([config("00-worker", role="worker")], RT),
        ([config("99-page", "64k-pages", role="worker")], PAGES_64K),
        ([config("00-worker", role="worker"), config("99-page", role="worker")], STANDARD),
        ([config("00-worker", role="worker"), rendered("worker")], STANDARD),
    ],
)
def test_a_missing_source_may_set_the_flavour(objects: list[Object], flavour: Flavour) -> None:
    two = pool("worker", sources=("00-worker", "99-page"))
    assert predict(two, node("n", "worker", kernel=f"{TODAY}+rt"), *objects)["n"].flavour is flavour


def test_without_a_configuration_a_node_keeps_the_flavour_of_today() -> None:
    assert predict(pool("worker"), node("n", "worker", kernel=f"{TODAY}+rt"))["n"].flavour is RT
    assert predict(node("n", kernel=f"{TODAY_ARM}+64k", arch="arm64"))["n"] == PredictedKernel(
        "nodes without pools", None, "arm64", PAGES_64K
    )


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("RUN dnf install -y tcpdump kernel-devel", None),
        ("# RUN dnf install kernel-core", None),
        ("COPY a /usr/src/kernel/a", None),
        ("RUN dnf install -y kernel", "kernel"),
        ("RUN rpm-ostree override replace https://e.x/kernel-core-5.14.0-1.rpm", "kernel-core"),
        ("RUN dnf install kernel-rt-core && true", "kernel-rt-core"),
        ("RUN dnf install kernel-modules-extra-6.1 a", "kernel-modules-extra"),
    ],
)
@pytest.mark.parametrize("version", ["v1", "v1alpha1"])
def test_pools_that_the_cluster_builds(text: str, package: str | None, version: str) -> None:
    predicted = predict(pool("worker"), rendered("worker"), node("n", "worker"), layered("worker", text, version))["n"]
    reason = f"the Containerfile of its MachineOSConfig names {package}, which may replace the release's kernel"
    assert (predicted.layered, predicted.unknown_because) == (True, reason if package else None)


def test_a_node_shows_that_its_pool_is_layered() -> None:
    layered_node = node("n", "worker")
    layered_node["metadata"]["annotations"][f"{MCO}/desiredImage"] = "made@sha256:1"
    (item,) = demand({}, pool("worker"), rendered("worker"), layered_node)
    assert [note.id for note in item.notes] == ["pool-layered"]


NO_SCHEDULE = Taint("a", "b", "NoSchedule")


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({}, False),
        ({"operator": "Exists"}, True),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "a", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "a", "value": "b"}, True),
        ({"key": "a", "value": "c"}, False),
        ({"key": "c", "operator": "Exists"}, False),
        ({"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}, True),
    ],
)
def test_tolerations(toleration: Mapping[str, str], tolerated: bool) -> None:
    assert Toleration(**toleration).tolerates(NO_SCHEDULE) is tolerated


@pytest.mark.parametrize(
    ("taint", "keeps_away"),
    [
        (MASTER_TAINT, True),
        ({"key": "x", "effect": "NoExecute"}, True),
        ({"key": "x", "effect": "PreferNoSchedule"}, False),
        ({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, False),
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}, False),
        ({"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}, False),
    ],
)
def test_taints(taint: Object, keeps_away: bool) -> None:
    assert parse_node(node("n", taints=[taint])).keeps_away(()) is keeps_away


def test_each_taint_must_be_tolerated() -> None:
    tainted = parse_node(node("n", taints=[MASTER_TAINT, {"key": "x", "effect": "NoExecute"}]))
    tolerations = [Toleration(key, "Exists") for key in (f"{ROLE}/master", "x")]
    assert [tainted.keeps_away(some) for some in (tolerations[:1], tolerations)] == [True, False]


AMD = [node("w0", "worker"), node("w1", "worker")]
ARM = node("w2", "worker", arch="arm64", kernel=TODAY_ARM)
RTS = [node("r0", "worker", "rt"), node("r1", "worker", "rt")]
POOLS = [pool("master"), pool("worker"), pool("rt"), rendered("master"), rendered("worker"),
         rendered("rt", "realtime"), streams("rhel-9")]  # fmt: skip
MASTER = node("m0", "master", taints=[MASTER_TAINT])


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, ["rhel-9 amd64 rt 2", "rhel-9 amd64 standard 2", "rhel-9 arm64 standard 1"]),
        ({f"{ROLE}/rt": ""}, ["rhel-9 amd64 rt 2"]),
        ({"kubernetes.io/arch": "arm64"}, ["rhel-9 arm64 standard 1"]),
        # No node has these labels: every pool that could have such a node.
        ({"gpu": "yes"}, ["rhel-9 amd64 rt 0", "rhel-9 amd64 standard 0", "rhel-9 arm64 standard 0"]),
        ({"gpu": "yes", f"{ROLE}/rt": ""}, ["rhel-9 amd64 rt 0"]),
        ({"gpu": "yes", f"{ROLE}/master": ""}, ["rhel-9 amd64 standard 0"]),
        ({"gpu": "yes", "kubernetes.io/arch": "arm64"}, ["rhel-9 arm64 standard 0"]),
        # No node and no pool has this architecture.
        ({"gpu": "yes", "kubernetes.io/arch": "s390x"}, []),
        ({f"{ROLE}/master": ""}, ["rhel-9 amd64 standard 0"]),
    ],
)
def test_the_kernels_of_a_module_s_nodes(selector: Mapping[str, str], expected: list[str]) -> None:
    assert kinds(demand(selector, *POOLS, MASTER, *AMD, ARM, *RTS)) == expected


def test_a_toleration_selects_masters() -> None:
    tolerated = demand({f"{ROLE}/master": ""}, *POOLS, MASTER, tolerations=[{"operator": "Exists"}])
    assert [(item.words, item.kernels_today, item.notes) for item in tolerated] == [
        ("pool master (1 node)", (TODAY,), ())
    ]
    (without_nodes,) = demand({f"{ROLE}/master": ""}, *POOLS, MASTER)
    assert [note.sentence for note in without_nodes.notes] == [
        "the Module selects no node today (nodes with its labels have a taint that it does not tolerate: 1 of 1), "
        "so it is checked on the kernel of each pool that could have such a node"
    ]


def test_a_pool_that_has_no_node_yet() -> None:
    """Only the architectures count for which OpenShift has the flavour."""
    demands = demand({f"{ROLE}/rt": ""}, *POOLS, *AMD, ARM)
    assert kinds(demands) == ["rhel-9 amd64 rt 0"]
    assert demands[0].words == "pool rt (no node today)"


def test_pools_without_any_node() -> None:
    (item,) = demand({}, pool("worker"), rendered("worker"), streams("rhel-9"))
    assert kinds([item]) == ["rhel-9 any standard 0"]
    assert "(there are no nodes)" in item.notes[0].sentence


def test_nodes_without_pools_of_which_no_node_is_selected() -> None:
    demands = demand({"gpu": "yes"}, *AMD, ARM, release=ONE)
    assert kinds(demands) == ["rhel-9 amd64 standard 0", "rhel-9 arm64 standard 0"]


HOSTED = {"hypershift.openshift.io/nodePool": "np"}


@pytest.mark.parametrize(
    ("objects", "predicted"),
    [
        pytest.param([], PredictedKernel("NodePool np", "rhel-10", "amd64", RT), id="no NodePool: as today"),
        pytest.param([node_pool("np")], PredictedKernel("NodePool np", "rhel-10", "amd64", STANDARD), id="NodePool"),
        pytest.param(
            [node_pool("np", "rhel-9", paused="true")],
            PredictedKernel("NodePool np", "rhel-9", "amd64", STANDARD, paused=True),
            id="stream, paused",
        ),
        pytest.param(
            [node_pool("np", configs=["c"])],
            PredictedKernel("NodePool np", "rhel-10", "amd64", RT),
            id="no ConfigMap: as today",
        ),
        pytest.param(
            [node_pool("np", configs=["c"]), config_map("c", config("50", "64k-pages"))],
            PredictedKernel("NodePool np", "rhel-10", "amd64", PAGES_64K),
            id="kernelType",
        ),
        pytest.param(
            [node_pool("np", configs=["c"]), config_map("c", config("50", image="own"))],
            PredictedKernel("NodePool np", None, "amd64", RT, f"{TODAY}+rt", "osImageURL is set to own"),
            id="osImageURL",
        ),
        pytest.param(
            [node_pool("np"), node_pool("np", namespace="other")],
            PredictedKernel("NodePool np", "rhel-10", "amd64", RT, unknown_because="several NodePools have this name"),
            id="two NodePools of the name",
        ),
    ],
)
def test_hosted_clusters(objects: list[Object], predicted: PredictedKernel) -> None:
    hosted = node("n", "worker", kernel=f"{TODAY}+rt", labels=HOSTED)
    assert replace(predict(hosted, *objects)["n"], boot=None) == predicted
    assert replace(predict(hosted, pool("worker"), *objects)["n"], boot=None) == predicted


def test_a_node_pool_that_has_no_node_yet() -> None:
    pools = [node_pool("a", arch="arm64", labels={"gpu": "yes"}), node_pool("b", labels={"gpu": "no"})]
    assert kinds(demand({"gpu": "yes"}, *pools)) == ["rhel-10 arm64 standard 0"]


def test_nodes_of_no_pool_stay_as_they_are() -> None:
    known, later = demand({}, pool("worker"), node("n", "byo"))
    assert later.words == "pool worker (no node today)"
    assert (known.predicted.kernel, [note.id for note in known.notes]) == (TODAY, ["kernel-stays"])
    unknown = demand({}, pool("worker"), node("n", "byo", kernel=""))[0]
    (target,) = targets_of([unknown], (), TWO)
    assert target.kernel.version == "unknown-nodes-of-no-pool-amd64-standard"
    assert target.unresolved
    assert target.unresolved.id == "kernel-unknown"


def kernel(version: str, stream: str = "rhel-9", arch: str = "amd64", flavour: Flavour = STANDARD) -> TargetKernel:
    """Return a kernel of the release."""
    return TargetKernel(version, arch, stream, flavour, "dtk", "read")


def test_targets() -> None:
    demands = [
        Demand(PredictedKernel("pool a", "rhel-9", "amd64", STANDARD), 2, ("1",)),
        Demand(PredictedKernel("pool b", "rhel-9", "amd64", STANDARD, paused=True), 1, ("0",)),
        Demand(PredictedKernel("pool c", "rhel-9", "amd64", RT), 1),
        Demand(PredictedKernel("pool d", "rhel-9", "arm64", STANDARD), 1),
        Demand(PredictedKernel("pool e", None, "amd64", STANDARD), 1),
    ]
    read = (kernel(AMD_9), kernel("6.12.0", "rhel-10"), kernel(RT_9, flavour=RT))
    targets = targets_of(demands, read, TWO)
    assert [(target.kernel.version, target.nodes, target.kernels_today) for target in targets] == [
        (AMD_9, ("pool a (2 nodes)", "pool b (1 node, paused)", "pool e (1 node)"), ("0", "1")),
        (RT_9, ("pool c (1 node)",), ()),
        ("unknown-pool-d-rhel-9-arm64-standard", ("pool d (1 node)",), ()),
        ("6.12.0", ("pool e (1 node)",), ()),
    ]
    assert targets[2].unresolved
    assert targets[2].unresolved.sentence == (
        "release 5.0.0 has no kernel for pool d: got rhel-9 amd64 standard, rhel-10 amd64 standard, rhel-9 amd64 rt, "
        "expected rhel-9 arm64 standard"
    )


def test_a_kernel_in_two_streams_has_the_heavier_problem() -> None:
    worse = replace(kernel(AMD_9, "rhel-10"), problem=findings.KERNEL_UNKNOWN(group="x", got="y"))
    both = [Demand(PredictedKernel(f"pool {rhel}", f"rhel-{rhel}", "amd64", STANDARD), 1) for rhel in ("9", "10")]
    (target,) = targets_of(both, (kernel(AMD_9), worse), TWO)
    assert target.kernel == worse
    (first,) = targets_of(both[:1], (kernel(AMD_9), worse), TWO)
    assert first.kernel == kernel(AMD_9)
    assert with_nodes([kernel(AMD_9), worse], [target])[AMD_9].problem == worse.problem


def test_a_kernel_that_the_upgrade_does_not_change_may_be_in_the_release() -> None:
    stays = [Demand(PredictedKernel("pool a", None, "arm64", STANDARD, ARM_9, "own"), 1)]
    (same,) = targets_of(stays, (kernel(ARM_9, arch="arm64"),), TWO)
    assert same.kernel.driver_toolkit == "dtk"
    (other,) = targets_of(stays, (), TWO)
    assert (other.kernel.arch, other.kernel.driver_toolkit) == ("arm64", None)
    assert other.kernel.provenance == "today's kernel of pool a, which the upgrade does not change"


@pytest.mark.parametrize(
    ("name", "by_operator"),
    [
        ("00-worker", True),
        ("00-override-os", False),
        ("00-rt", False),
        ("01-master-kubelet", True),
        ("01-worker-container-runtime", True),
        ("01-worker-os", False),
        ("97-rt-generated-kubelet", True),
        ("99-worker-generated-registries", True),
        ("99-other-generated-registries", False),
        ("99-worker-ssh", False),
        ("50-worker-generated-os", False),
    ],
)
def test_configurations_that_the_operator_makes(name: str, by_operator: bool) -> None:
    """The other configurations are read, because they may set an osImageURL."""
    assert made_by_operator(name, {"worker", "master", "rt"}) is by_operator


TODAY_S = "in the flavour that they boot today"
MISSING = "pool worker: MachineConfig rendered-worker-1 is not among the manifests: "


@pytest.mark.parametrize(
    ("objects", "assumed"),
    [
        (
            [streams("rhel-9")],
            "every Module is judged on every kernel read from the release: no Node and no MachineConfigPool among the "
            "manifests",
        ),
        (
            [pool("worker"), rendered("worker")],
            "no Node among the manifests: the nodes that a Module selects are unknown",
        ),
        (
            [node("n")],
            "no MachineConfigPool among the manifests: nodes are judged on every stream of the release and in the "
            "flavour that they boot today",
        ),
        (
            [node("n", labels=HOSTED)],
            f"no NodePool np among the manifests: its nodes are judged {TODAY_S}, on the stream that hosted clusters "
            "of this release have, without further kernel arguments",
        ),
        (
            [node_pool("np", configs=["c"]), node("n", labels=HOSTED)],
            f"NodePool np: no ConfigMap c among the manifests: its nodes are judged {TODAY_S}, without further "
            "kernel arguments",
        ),
        (
            [node("n"), pool("worker")],
            f"{MISSING}a pool is assumed to boot the flavour that its nodes boot today, and the release's OS image "
            "without further kernel arguments",
        ),
        ([node("n"), pool("worker"), OWN], f"{MISSING}its kernelType is read from the MachineConfigs that it selects"),
        (
            [node("n"), WORKER, OWN],
            f"{MISSING}its kernelType is read from the MachineConfigs that it selects, and 1 of 2 sources of its "
            "MachineConfig are not among the manifests: if the others set no kernelType, a node is assumed to boot the "
            "flavour that it boots today, and the missing sources are assumed to set no "
            "osImageURL and no kernelArguments",
        ),
        (
            [node("n"), WORKER, OWN, rendered("worker")],
            "pool worker: 1 of 2 sources of its MachineConfig are not among the manifests, and they are assumed to set "
            "no osImageURL",
        ),
        ([node("n"), WORKER, OWN, config("00-worker", generated=True), rendered("worker")], None),
    ],
)
def test_assumptions_about_missing_manifests(objects: list[Object], assumed: str | None) -> None:
    assert fleet_of(objects).assumed == ((assumed,) if assumed else ())


@pytest.mark.parametrize(
    ("kind", "name", "more", "message"),
    [
        ("Node", None, {}, "Node without a name: metadata.name: missing, expected a Kubernetes name"),
        ("Node", "a]", {}, "Node a]: metadata.name: got text 'a]', expected a Kubernetes name"),
        ("Node", "n", {"spec": {"taints": "x"}}, "Node n: spec.taints: got text 'x', expected a list"),
        ("Node", "n", {"status": []}, "Node n: status: got a list of 0, expected a mapping"),
        (
            "MachineConfigPool",
            "p",
            {"spec": {"paused": "no"}},
            "MachineConfigPool p: spec.paused: got text 'no', expec",
        ),
        ("MachineConfig", "c", {"spec": {"kernelType": 5}}, "MachineConfig c: spec.kernelType: got number 5, expected"),
        ("MachineOSConfig", "c", {"spec": {"containerFile": {}}}, "MachineOSConfig c: spec.containerFile: got a mapp"),
        ("ClusterVersion", "v", {"status": {"history": {}}}, "ClusterVersion v: status.history: got a mapping, expec"),
        (
            "OSImageStream",
            "cluster",
            {"status": {"defaultStream": []}},
            "OSImageStream cluster: status.defaultStream: ",
        ),
        (
            "NodePool",
            "np",
            {"spec": {"arch": "vax"}},
            "NodePool np: spec.arch: got text 'vax', expected an architecture",
        ),
    ],
)
def test_manifests_that_cannot_be_read(kind: str, name: str | None, more: Object, message: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        fleet_of([{"kind": kind, "metadata": {"name": name}, **more}])
    assert caught.value.message.startswith(f"--manifests: {message}")


HOSTILE: list[Any] = [
    None,
    "",
    "x" * 5000,
    "a\n::error::b",
    0,
    -1,
    True,
    [],
    [None],
    [[]],
    {},
    {"a": {}},
    {"": ""},
    "\ud800",
]


def test_a_manifest_with_a_hostile_field_is_read_or_refused() -> None:
    """No other exception is raised, and no text breaks a line or an id."""
    base = [*POOLS, MASTER, ARM, *RTS, OWN, layered("worker", "RUN dnf install kernel")]
    base.append(cluster_version(("Completed", "4")))
    base += [node_pool("np", "rhel-9", configs=["c"], labels={"a": "b"}), config_map("c", config("50", "realtime"))]
    base += [node("h", "worker", labels=HOSTED), module("m"), node_modules("w9", ("demo", "v", "registry.example/v:1"))]
    ordered = module("v")
    ordered["spec"]["moduleLoader"]["container"]["version"] = "2"
    full = {"feature.node.kubernetes.io/kernel-version.full": TODAY}
    labels = {"kmm.node.kubernetes.io/version-module.demo.v": "1", **full}
    base += [ordered, node("w9", "worker", labels=labels), module("f", full)]
    random, refused = Random(6), 0
    for _ in range(800):
        objects = copy.deepcopy(base)
        mutate(random.choice(objects), random)
        try:
            inventory = read_manifests(["-"], "default", io.StringIO(json.dumps(objects)))
        except UsageProblem:
            refused += 1
            continue
        assert inventory.fleet
        prediction = Prediction(inventory.fleet, TWO)
        for module_ in inventory.modules:
            targets = targets_of(demand_of(module_, prediction), (kernel(AMD_9),), TWO)
            for case in make_cases([module_], {module_.name: targets}):
                assert re.fullmatch(r"[\w.+-]{1,200}(,version=[\w.-]{0,70})?", case.kernel_words), case
                assert "\n" not in case.kernel.provenance + "".join(note.sentence for note in case.notes)
    assert 200 < refused < 600


def mutate(value: Any, random: Random) -> None:
    """Replace a value somewhere below with a hostile value."""
    while True:
        all_keys = value if isinstance(value, dict) else range(len(value))
        key = random.choice([key for key in all_keys if key not in ("kind", "apiVersion")])
        if not isinstance(value[key], dict | list) or not value[key] or random.random() < 0.2:
            value[key] = random.choice(HOSTILE)
            return
        value = value[key]
