"""Which kernel a node will boot: the rules of the machine config operator, one table each."""

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
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.machine_config import flavour_of, merged_kernel_type, own_image, parse_machine_config
from kmm_preflight.nodes.node import parse_node
from kmm_preflight.nodes.pool import parse_pool, pool_of
from kmm_preflight.nodes.prediction import PredictedKernel, Prediction, ReleaseStreams, default_stream_of, hosted_stream
from kmm_preflight.nodes.selector import Selector, parse_selector
from kmm_preflight.nodes.targets import Demand, needed, targets, with_nodes
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
    node_pool,
    pool,
    rendered,
    streams,
)

STANDARD, RT, PAGES_64K = Flavour
TWO = ReleaseStreams("5.0.0", ("rhel-9", "rhel-10"))
ONE = ReleaseStreams("4.18.3", ("rhel-9",))


def fleet_of(objects: Iterable[Object]) -> Fleet:
    """The fleet of manifests."""
    several = list(objects)
    by_kind = {kind: [one for one in several if one["kind"] == kind] for kind in KINDS}
    maps = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one for one in several if one["kind"] == "ConfigMap"
    }
    fleet = given_fleet(by_kind, maps)
    assert fleet
    return fleet


def boots_of(*objects: Object, offered: ReleaseStreams = TWO) -> dict[str, PredictedKernel]:
    """What each node boots, by its name."""
    fleet = fleet_of(objects)
    boots = Prediction(fleet, offered)
    return {one.name: boots.of_node(one) for one in fleet.nodes}


def need(
    selector: Mapping[str, str], *objects: Object, tolerations: Iterable[Object] = (), offered: ReleaseStreams = TWO
) -> list[Demand]:
    """What a Module with this selector needs."""
    manifest = module("m", selector)
    manifest["spec"]["tolerations"] = list(tolerations)
    return list(needed(parse_module(manifest, ""), Prediction(fleet_of(objects), offered)))


def kinds(several: Iterable[Demand]) -> list[str]:
    """Stream, architecture and flavour of each, with the number of its nodes."""
    return sorted(
        f"{boot.stream or 'any'} {boot.arch or 'any'} {boot.flavour.value if boot.flavour else 'any'} {one.nodes}"
        for one in several
        if (boot := one.boot)
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
    pools = [parse_pool(pool(one)) for one in ("master", "worker", "rt", "edge", "arbiter")]
    empty: Object = {**pool("none"), "spec": {"nodeSelector": {}}}
    found = pool_of(parse_node(node("n", *roles)), [*pools, parse_pool(empty), parse_pool({**empty, "spec": {}})])
    assert (found.name if found else None) == name


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


def test_a_selector_of_nothing_and_one_that_is_none() -> None:
    assert parse_selector(Field({})) is None
    assert Selector().matches({})
    with pytest.raises(Malformed, match="operator: got text 'Near', expected one of In, NotIn, Exists, DoesNotExist"):
        parse_selector(Field({"matchExpressions": [{"key": "a", "operator": "Near"}]}))


# kernelType and osImageURL by name and role of each source, in any order.
@pytest.mark.parametrize(
    ("sources", "kernel_type", "image"),
    [
        ([], "", ""),
        ([("50", "worker", "default", "")], "", ""),
        ([("50", "worker", "realtime", ""), ("60", "worker", "default", "")], "realtime", ""),
        ([("60", "worker", "64k-pages", ""), ("50", "worker", "realtime", "")], "64k-pages", ""),
        ([("10", "rt", "realtime", "a"), ("90", "worker", "64k-pages", "b")], "realtime", "a"),
        ([("90", "worker", "realtime", ""), ("10", "rt", "default", "")], "realtime", ""),
        ([("10", "worker", "", "a"), ("20", "worker", "", "b")], "", "b"),
    ],
)
def test_configurations_merge(sources: list[tuple[str, str, str, str]], kernel_type: str, image: str) -> None:
    parsed = [parse_machine_config(config(name, kind, own, role)) for name, role, kind, own in sources]
    assert (merged_kernel_type(parsed), own_image(parsed)) == (kernel_type, image)
    assert own_image([parse_machine_config(config("99", "", "made", "worker", generated=True)), *parsed]) == image


@pytest.mark.parametrize(
    ("text", "flavour"),
    [("", STANDARD), ("default", STANDARD), ("realtime", RT), ("64k-pages", PAGES_64K), ("tiny", None)],
)
def test_flavours(text: str, flavour: Flavour | None) -> None:
    assert flavour_of(text) is flavour


@pytest.mark.parametrize(
    ("more", "offered", "of_worker", "of_rt", "of_edge"),
    [
        ([streams("rhel-9")], TWO, "rhel-9", "rhel-9", "rhel-10"),
        ([streams("rhel-10", "v1alpha1")], TWO, "rhel-10", "rhel-10", "rhel-10"),
        ([streams("rhel-9"), pool("worker", stream="rhel-10")], TWO, "rhel-10", "rhel-10", "rhel-10"),
        ([streams("rhel-9"), pool("master", stream="rhel-10")], TWO, "rhel-9", "rhel-9", "rhel-10"),
        ([], ONE, "rhel-9", "rhel-9", "rhel-10"),
        ([], TWO, "", "", "rhel-10"),
        ([cluster_version(("Partial", "5.0.0"), ("Completed", "5.0.0"), ("Completed", "4.9.1"))], TWO, "rhel-9",
         "rhel-9", "rhel-10"),
        ([cluster_version(("Completed", "5.0.0"), ("Partial", "4.9.1"))], TWO, "rhel-10", "rhel-10", "rhel-10"),
        ([cluster_version(("Completed", "4.20.0-okd-scos.5"))], TWO, "centos-10", "centos-10", "rhel-10"),
        ([cluster_version()], TWO, "", "", "rhel-10"),
    ],
    ids=["default", "before 4.23", "the worker's", "not the master's", "the only one", "unknown", "installed with 4",
         "installed with 5", "OKD", "no history"],
)  # fmt: skip
def test_streams(more: list[Object], offered: ReleaseStreams, of_worker: str, of_rt: str, of_edge: str) -> None:
    base = [pool("rt"), pool("edge", stream="rhel-10"), rendered("worker"), rendered("rt"), rendered("edge")]
    base += [] if any(one["metadata"]["name"] == "worker" for one in more) else [pool("worker")]
    nodes = [node("w", "worker"), node("r", "worker", "rt"), node("e", "worker", "edge")]
    boots = boots_of(*base, *nodes, *more, offered=offered)
    assert {name: boot.stream for name, boot in boots.items()} == {"w": of_worker, "r": of_rt, "e": of_edge}


def test_hosted_and_default_streams() -> None:
    assert hosted_stream(ReleaseStreams("4.22.1", ("rhel-9", "rhel-10"))) == "rhel-9"
    assert hosted_stream(TWO) == "rhel-10"
    assert hosted_stream(ReleaseStreams("5.0.0", ("rhel-9",))) == "rhel-9"
    assert default_stream_of(Fleet(installed="what"), TWO) == "rhel-9"


OWN = config("50-os", image=OWN_IMAGE, role="worker")
WORKER = pool("worker", sources=["00-worker", "50-os"])
SET = f"osImageURL is set to {OWN_IMAGE}"


@pytest.mark.parametrize(
    ("nodes", "kernel", "unknown"),
    [
        pytest.param([node("n", "worker")], TODAY, "", id="runs it"),
        pytest.param(
            [node("n", "worker", config="rendered-worker-0", desired="rendered-worker-1")],
            "",
            f"{SET}, and no node shows which kernel that image boots",
            id="will run it",
        ),
        pytest.param(
            [node("n", "worker", config="rendered-worker-0")],
            "",
            f"{SET}, and no node shows which kernel that image boots",
            id="paused before it",
        ),
        pytest.param(
            [node("n", "worker", kernel="old", config="rendered-worker-0"), node("o", "worker")],
            TODAY,
            "",
            id="another runs it",
        ),
        pytest.param(
            [node("n", "worker"), node("o", "worker", kernel="5.0.0")],
            "",
            f"{SET}, and nodes that run it boot 5.0.0, {TODAY}",
            id="they differ",
        ),
        pytest.param(
            [node("n", "worker"), node("o", "worker", kernel=TODAY_ARM, arch="arm64")],
            TODAY,
            "",
            id="another architecture",
        ),
        pytest.param(
            [node("n", "worker", kernel="what is this")],
            "",
            f"{SET}, and no node shows which kernel that image boots",
            id="no kernel",
        ),
    ],
)
def test_a_pool_with_an_image_of_its_own(nodes: list[Object], kernel: str, unknown: str) -> None:
    boot = boots_of(WORKER, OWN, rendered("worker"), *nodes)["n"]
    assert (boot.kernel, boot.unknown, boot.stream) == (kernel, unknown, "")
    assert boot.own == (SET if kernel else "")


def test_the_images_of_other_pools_do_not_count() -> None:
    boots = boots_of(pool("worker"), pool("rt"), OWN, rendered("worker"), rendered("rt"), node("w", "worker"),
                     config("50-rt", image="other", role="rt"), node("r", "worker", "rt"))  # fmt: skip
    assert boots["w"].own == SET
    assert boots["r"].own == "osImageURL is set to other"


@pytest.mark.parametrize(
    ("objects", "flavour", "unknown"),
    [
        pytest.param([rendered("worker")], STANDARD, "", id="rendered"),
        pytest.param([rendered("worker", "realtime")], RT, "", id="rendered rt"),
        pytest.param([rendered("worker", "64k-pages")], PAGES_64K, "", id="rendered 64k"),
        pytest.param([rendered("worker", "tiny")], STANDARD, "kernelType is tiny", id="a new one"),
        pytest.param([config("50", "realtime", role="worker")], RT, "", id="from Git"),
        pytest.param([config("50", "realtime", role="other")], STANDARD, "", id="of another role"),
        pytest.param([], STANDARD, "", id="none is given"),
    ],
)
def test_the_flavour_of_a_pool(objects: list[Object], flavour: Flavour, unknown: str) -> None:
    boot = boots_of(pool("worker"), node("n", "worker"), *objects)["n"]
    assert (boot.flavour, boot.unknown) == (flavour, unknown)


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
def test_a_source_that_is_not_there_may_set_the_flavour(objects: list[Object], flavour: Flavour) -> None:
    two = pool("worker", sources=("00-worker", "99-page"))
    assert boots_of(two, node("n", "worker", kernel=f"{TODAY}+rt"), *objects)["n"].flavour is flavour


def test_what_a_node_boots_today_is_its_flavour_where_no_configuration_is_given() -> None:
    boots = boots_of(pool("worker"), node("n", "worker", kernel=f"{TODAY}+rt"))
    assert boots["n"].flavour is RT
    assert boots_of(node("n", kernel=f"{TODAY_ARM}+64k", arch="arm64"))["n"] == PredictedKernel(
        "nodes without pools", "", "arm64", PAGES_64K
    )


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("RUN dnf install -y tcpdump kernel-devel", ""),
        ("# RUN dnf install kernel-core", ""),
        ("COPY a /usr/src/kernel/a", ""),
        ("RUN dnf install -y kernel", "kernel"),
        ("RUN rpm-ostree override replace https://e.x/kernel-core-5.14.0-1.rpm", "kernel-core"),
        ("RUN dnf install kernel-rt-core && true", "kernel-rt-core"),
        ("RUN dnf install kernel-modules-extra-6.1 a", "kernel-modules-extra"),
    ],
)
@pytest.mark.parametrize("version", ["v1", "v1alpha1"])
def test_pools_that_the_cluster_builds(text: str, unknown: str, version: str) -> None:
    boot = boots_of(pool("worker"), rendered("worker"), node("n", "worker"), layered("worker", text, version))["n"]
    said = f"the Containerfile of its MachineOSConfig names {unknown}, which may replace the release's kernel"
    assert (boot.layered, boot.unknown) == (True, said if unknown else "")


def test_a_layered_pool_is_seen_at_its_nodes() -> None:
    one = node("n", "worker")
    one["metadata"]["annotations"][f"{MCO}/desiredImage"] = "made@sha256:1"
    (found,) = need({}, pool("worker"), rendered("worker"), one)
    assert [note.id for note in found.notes] == ["pool-layered"]


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
    ("taint", "kept"),
    [
        (MASTER_TAINT, f"{ROLE}/master"),
        ({"key": "x", "effect": "NoExecute"}, "x"),
        ({"key": "x", "effect": "PreferNoSchedule"}, ""),
        ({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, ""),
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}, ""),
        ({"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}, ""),
    ],
)
def test_taints(taint: Object, kept: str) -> None:
    assert parse_node(node("n", taints=[taint])).keeps_away(()) == kept


AMD = [node("w0", "worker"), node("w1", "worker")]
ARM = node("w2", "worker", arch="arm64", kernel=TODAY_ARM)
RTS = [node("r0", "worker", "rt"), node("r1", "worker", "rt")]
POOLS = [pool("master"), pool("worker"), pool("rt"), rendered("master"), rendered("worker"),
         rendered("rt", "realtime"), streams("rhel-9")]  # fmt: skip
MASTER = node("m0", "master", taints=[MASTER_TAINT])


@pytest.mark.parametrize(
    ("selector", "needs"),
    [
        ({}, ["rhel-9 amd64 rt 2", "rhel-9 amd64 standard 2", "rhel-9 arm64 standard 1"]),
        ({f"{ROLE}/rt": ""}, ["rhel-9 amd64 rt 2"]),
        ({"kubernetes.io/arch": "arm64"}, ["rhel-9 arm64 standard 1"]),
        # No node has these: every pool that could have one.
        ({"gpu": "yes"}, ["rhel-9 amd64 rt 0", "rhel-9 amd64 standard 0", "rhel-9 arm64 standard 0"]),
        ({"gpu": "yes", f"{ROLE}/rt": ""}, ["rhel-9 amd64 rt 0"]),
        ({"gpu": "yes", f"{ROLE}/master": ""}, ["rhel-9 amd64 standard 0"]),
        ({"gpu": "yes", "kubernetes.io/arch": "arm64"}, ["rhel-9 arm64 standard 0"]),
        ({"gpu": "yes", "kubernetes.io/arch": "s390x"}, ["rhel-9 s390x standard 0"]),
        ({f"{ROLE}/master": ""}, ["rhel-9 amd64 standard 0"]),
    ],
)
def test_what_a_module_needs(selector: Mapping[str, str], needs: list[str]) -> None:
    assert kinds(need(selector, *POOLS, MASTER, *AMD, ARM, *RTS)) == needs


def test_a_toleration_selects_masters() -> None:
    found = need({f"{ROLE}/master": ""}, *POOLS, MASTER, tolerations=[{"operator": "Exists"}])
    assert [(one.words, one.today, one.notes) for one in found] == [("pool master (1 node)", (TODAY,), ())]
    (found_none,) = need({f"{ROLE}/master": ""}, *POOLS, MASTER)
    assert [note.sentence for note in found_none.notes] == [
        "the Module selects no node today (nodes with its labels have a taint that it does not tolerate: 1 of 1), "
        "so it is checked on the kernel of each pool that could have such a node"
    ]


def test_a_pool_that_has_no_node_yet() -> None:
    """Of all architectures only those for which OpenShift has the flavour."""
    found = need({f"{ROLE}/rt": ""}, *POOLS, *AMD, ARM)
    assert kinds(found) == ["rhel-9 amd64 rt 0"]
    assert found[0].words == "pool rt (no node today)"


def test_pools_without_any_node() -> None:
    (one,) = need({}, pool("worker"), rendered("worker"), streams("rhel-9"))
    assert kinds([one]) == ["rhel-9 any standard 0"]
    assert "(there are no nodes)" in one.notes[0].sentence


def test_nodes_without_pools_and_none_selected() -> None:
    assert kinds(need({"gpu": "yes"}, *AMD, ARM, offered=ONE)) == ["rhel-9 amd64 standard 0", "rhel-9 arm64 standard 0"]


HOSTED = {"hypershift.openshift.io/nodePool": "np"}


@pytest.mark.parametrize(
    ("objects", "boot"),
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
            PredictedKernel("NodePool np", "", "amd64", RT, f"{TODAY}+rt", "osImageURL is set to own"),
            id="osImageURL",
        ),
        pytest.param(
            [node_pool("np"), node_pool("np", namespace="other")],
            PredictedKernel("NodePool np", "rhel-10", "amd64", RT, unknown="several NodePools given have this name"),
            id="two of the name",
        ),
    ],
)
def test_hosted_clusters(objects: list[Object], boot: PredictedKernel) -> None:
    one = node("n", "worker", kernel=f"{TODAY}+rt", labels=HOSTED)
    assert boots_of(one, *objects)["n"] == boot
    assert boots_of(one, pool("worker"), *objects)["n"] == boot


def test_a_node_pool_that_has_no_node_yet() -> None:
    pools = [node_pool("a", arch="arm64", labels={"gpu": "yes"}), node_pool("b", labels={"gpu": "no"})]
    assert kinds(need({"gpu": "yes"}, *pools)) == ["rhel-10 arm64 standard 0"]


def test_nodes_of_no_pool_stay_as_they_are() -> None:
    (one,) = need({}, pool("worker"), node("n", "byo"))
    assert (one.boot.kernel, [note.id for note in one.notes]) == (TODAY, ["kernel-stays"])
    (other,) = need({}, pool("worker"), node("n", "byo", kernel=""))
    (target,) = targets([other], (), TWO)
    assert target.kernel.version == "unknown-nodes-of-no-pool-amd64-standard"
    assert target.unresolved
    assert target.unresolved.id == "kernel-unknown"


def kernel(version: str, stream: str = "rhel-9", arch: str = "amd64", flavour: Flavour = STANDARD) -> TargetKernel:
    """A kernel of the release."""
    return TargetKernel(version, arch, stream, flavour, "dtk", "read")


def test_targets() -> None:
    both = [
        Demand(PredictedKernel("pool a", "rhel-9", "amd64", STANDARD), 2, ("1",)),
        Demand(PredictedKernel("pool b", "rhel-9", "amd64", STANDARD, paused=True), 1, ("0",)),
        Demand(PredictedKernel("pool c", "rhel-9", "amd64", RT), 1),
        Demand(PredictedKernel("pool d", "rhel-9", "arm64", STANDARD), 1),
        Demand(PredictedKernel("pool e", "", "amd64", STANDARD), 1),
    ]
    read = (kernel(AMD_9), kernel("6.12.0", "rhel-10"), kernel(RT_9, flavour=RT))
    made = targets(both, read, TWO)
    assert [(one.kernel.version, one.nodes, one.today) for one in made] == [
        (AMD_9, ("pool a (2 nodes)", "pool b (1 node, paused)", "pool e (1 node)"), ("0", "1")),
        (RT_9, ("pool c (1 node)",), ()),
        ("unknown-pool-d-rhel-9-arm64-standard", ("pool d (1 node)",), ()),
        ("6.12.0", ("pool e (1 node)",), ()),
    ]
    assert made[2].unresolved
    assert made[2].unresolved.sentence == (
        "release 5.0.0 has no kernel for pool d: got rhel-9 amd64 standard, rhel-10 amd64 standard, rhel-9 amd64 rt, "
        "expected rhel-9 arm64 standard"
    )


def test_of_one_kernel_in_two_streams_the_problem_counts() -> None:
    worse = replace(kernel(AMD_9, "rhel-10"), problem=findings.KERNEL_UNKNOWN(group="x", got="y"))
    both = [Demand(PredictedKernel(f"pool {one}", f"rhel-{one}", "amd64", STANDARD), 1) for one in ("9", "10")]
    (target,) = targets(both, (kernel(AMD_9), worse), TWO)
    assert target.kernel == worse
    (first,) = targets(both[:1], (kernel(AMD_9), worse), TWO)
    assert first.kernel == kernel(AMD_9)
    assert with_nodes([kernel(AMD_9), worse], [target])[AMD_9].problem == worse.problem


def test_a_kernel_that_stays_may_be_the_release_s() -> None:
    stays = [Demand(PredictedKernel("pool a", "", "arm64", STANDARD, ARM_9, "own"), 1)]
    (same,) = targets(stays, (kernel(ARM_9, arch="arm64"),), TWO)
    assert same.kernel.driver_toolkit == "dtk"
    (other,) = targets(stays, (), TWO)
    assert (other.kernel.arch, other.kernel.driver_toolkit) == ("arm64", None)
    assert other.kernel.provenance == "today's kernel of pool a, which the upgrade does not change"


@pytest.mark.parametrize(
    ("name", "theirs"),
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
def test_which_configurations_the_operator_makes(name: str, theirs: bool) -> None:
    """The others are asked for: one of them may set an osImageURL."""
    assert made_by_operator(name, {"worker", "master", "rt"}) is theirs


TODAY_S = "in the flavour that they boot today"
MISSING = "pool worker: MachineConfig rendered-worker-1 is not among the manifests: "


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (
            [streams("rhel-9")],
            "every Module is judged on every kernel taken of the release: no Node and no MachineConfigPool among the "
            "manifests",
        ),
        (
            [pool("worker"), rendered("worker")],
            "no Node among the manifests: which nodes a Module selects is not known",
        ),
        (
            [node("n")],
            "no MachineConfigPool among the manifests: nodes are judged on every stream of the release and in the "
            "flavour that they boot today",
        ),
        (
            [node("n", labels=HOSTED)],
            f"no NodePool np among the manifests: its nodes are judged {TODAY_S}, on the stream that hosted clusters "
            "of this release have",
        ),
        (
            [node_pool("np", configs=["c"]), node("n", labels=HOSTED)],
            f"NodePool np: no ConfigMap c among the manifests: its nodes are judged {TODAY_S}",
        ),
        (
            [node("n"), pool("worker")],
            f"{MISSING}a pool boots the flavour that its nodes boot today, and no image of its own",
        ),
        ([node("n"), pool("worker"), OWN], f"{MISSING}its kernelType is that of the MachineConfigs that it selects"),
        (
            [node("n"), WORKER, OWN],
            f"{MISSING}its kernelType is that of the MachineConfigs that it selects, and 1 of 2 sources of its "
            "MachineConfig are not among the manifests: where the others set no kernelType a node has the flavour that "
            "it boots today, and none is taken to set an osImageURL",
        ),
        (
            [node("n"), WORKER, OWN, rendered("worker")],
            "pool worker: 1 of 2 sources of its MachineConfig are not among the manifests: none of them is taken to "
            "set an osImageURL",
        ),
        ([node("n"), WORKER, OWN, config("00-worker", generated=True), rendered("worker")], ""),
    ],
)
def test_what_is_missing_among_manifests_is_said(objects: list[Object], said: str) -> None:
    assert fleet_of(objects).lacking == ((said,) if said else ())


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


def test_whatever_stands_in_a_manifest_it_is_read_or_refused() -> None:
    """One field of one object is something else: no exception of another kind, no text that breaks a line or an id."""
    base = [*POOLS, MASTER, ARM, *RTS, OWN, layered("worker", "RUN dnf install kernel")]
    base.append(cluster_version(("Completed", "4")))
    base += [node_pool("np", "rhel-9", configs=["c"], labels={"a": "b"}), config_map("c", config("50", "realtime"))]
    base += [node("h", "worker", labels=HOSTED), module("m")]
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
        boots = Prediction(inventory.fleet, TWO)
        for target in targets(
            [one for each in inventory.modules for one in needed(each, boots)], (kernel(AMD_9),), TWO
        ):
            assert re.fullmatch(r"[\w.+-]{1,200}", target.kernel.version), target
            assert "\n" not in target.kernel.provenance + "".join(note.sentence for note in target.notes)
    assert 200 < refused < 600


def mutate(one: Any, random: Random) -> None:
    """Put something else in the place of one value somewhere below."""
    while True:
        keys = [key for key in (one if isinstance(one, dict) else range(len(one))) if key not in ("kind", "apiVersion")]
        key = random.choice(keys)
        if not isinstance(one[key], dict | list) or not one[key] or random.random() < 0.2:
            one[key] = random.choice(HOSTILE)
            return
        one = one[key]
