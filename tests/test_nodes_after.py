"""The nodes as they will be: ordered upgrades, labels that the upgrade changes, pools to come, other systems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from kmm_preflight.nodes.candidates import missing_arch
from kmm_preflight.nodes.cases import make_cases
from kmm_preflight.nodes.changing_labels import PendingLabel, value_after
from kmm_preflight.nodes.demand import demand_of
from kmm_preflight.nodes.node import parse_node
from kmm_preflight.nodes.prediction import Prediction, ReleaseStreams
from kmm_preflight.nodes.selection import named_kernels
from kmm_preflight.nodes.settling import OrderedUpgrade
from kmm_preflight.nodes.superseded import with_superseded
from kmm_preflight.nodes.targets import targets_by_selector, targets_for_any_node, targets_of
from kmm_preflight.planning.module import parse_module
from kmm_preflight.planning.plan import Case, Plan, Unresolved

from .fleets import (
    AMD_9,
    AMD_10,
    ARM_9,
    MASTER_TAINT,
    ROLE,
    RT_9,
    TODAY,
    TODAY_ARM,
    Object,
    config,
    module,
    node,
    node_modules,
    node_pool,
    pool,
    rendered,
)
from .test_nodes import HOSTED, ONE, RT, TWO, fleet_of, kernel

NFD = "feature.node.kubernetes.io"
FULL = f"{NFD}/kernel-version.full"
LABEL = "kmm.node.kubernetes.io/version-module.demo.m"
WORKERS = [pool("master"), pool("worker"), rendered("master"), rendered("worker")]
KERNELS = (kernel(AMD_9), kernel(AMD_10, "rhel-10"), kernel(RT_9, flavour=RT), kernel(ARM_9, arch="arm64"))


def cases_of(manifest: Object, objects: Iterable[Object], release: ReleaseStreams = ONE, one_folder: bool = False
             ) -> dict[str, Case]:  # fmt: skip
    """Return the cases of a Module by kernel and version."""
    parsed = parse_module(manifest, "")
    demands = demand_of(parsed, Prediction(fleet_of(objects), release))
    targets = targets_of(demands, KERNELS, release, OrderedUpgrade(parsed.version, one_folder))
    cases = make_cases([parsed], {parsed.name: targets})
    by_kernel = {case.kernel_words: case for case in cases}
    assert len(by_kernel) == len(cases)
    return by_kernel


def words(cases: Mapping[str, Case]) -> dict[str, str]:
    """Return the image of each case, or the id of the finding that leaves it unresolved."""
    return {name: case.finding.id if isinstance(case, Unresolved) else case.image.name for name, case in cases.items()}


def notes(case: Case) -> list[str]:
    """Return the ids of the notes of a case."""
    return [note.id for note in case.notes]


def versioned(version: str, **mapping: str) -> Object:
    """Return a Module with a version."""
    manifest = module("m", {f"{ROLE}/worker": ""}, **mapping)
    manifest["spec"]["moduleLoader"]["container"]["version"] = version
    return manifest


def labelled(name: str, version: str | None, **more: Any) -> Object:
    """Return a worker with the label of a version."""
    return node(name, "worker", labels={} if version is None else {LABEL: version}, **more)


OWN, OLD = "registry.example/none:v1", "registry.example/old:v0"


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        pytest.param([labelled("a", "2")], {AMD_9: OWN}, id="the Module's version"),
        pytest.param([labelled("a", None)], {AMD_9: "no-node-loads"}, id="no label"),
        pytest.param(
            [labelled("a", "2"), labelled("b", None)], {AMD_9: OWN}, id="a node without the label is left out"
        ),
        pytest.param(
            [labelled("a", "1")], {f"{AMD_9},version=1": "version-image-unknown"}, id="no NodeModulesConfig"
        ),
        pytest.param(
            [labelled("a", "1"), node_modules("a", ("demo", "m", OLD))], {f"{AMD_9},version=1": OLD}, id="old image"
        ),
        pytest.param(
            [labelled("a", "1"), node_modules("a", ("demo", "other", OLD))],
            {AMD_9: "no-node-loads"},
            id="nothing of the Module is loaded",
        ),
        pytest.param(
            [labelled("a", "1"), labelled("b", "2"), labelled("c", None), node_modules("a", ("demo", "m", OLD))],
            {AMD_9: OWN, f"{AMD_9},version=1": OLD},
            id="three states",
        ),
        pytest.param(
            [labelled("a", "1"), labelled("b", "1"), node_modules("a", ("demo", "m", OLD)),
             node_modules("b", ("demo", "m", f"{OLD}b"))],
            {f"{AMD_9},version=1": OLD, f"{AMD_9},version=1-2": f"{OLD}b"},
            id="two images for one version",
        ),
        pytest.param(
            [labelled("a", "1\n/x"), node_modules("a", ("demo", "m", OLD))],
            {f"{AMD_9},version=1--x": OLD},
            id="a label that no server accepts",
        ),
    ],
)  # fmt: skip
def test_versions_of_an_ordered_upgrade(objects: list[Object], expected: Mapping[str, str]) -> None:
    assert words(cases_of(versioned("2"), [*WORKERS, *objects])) == expected


def test_a_module_without_a_version_ignores_the_labels() -> None:
    assert words(cases_of(module("m"), [*WORKERS, labelled("a", "1"), labelled("b", None)])) == {AMD_9: OWN}


def test_notes_of_an_ordered_upgrade() -> None:
    objects = [*WORKERS, labelled("a", "1"), labelled("b", "2"), labelled("c", None),
               node_modules("a", ("demo", "m", OLD), kernel=AMD_9)]  # fmt: skip
    cases = cases_of(versioned("2"), objects)
    own, old = cases[AMD_9], cases[f"{AMD_9},version=1"]
    assert isinstance(own, Plan)
    assert isinstance(old, Plan)
    assert (own.node_names, old.node_names) == (("b",), ("a",))
    assert own.id == f"demo/m@{AMD_9}"
    assert old.id == f"demo/m@{AMD_9},version=1"
    assert notes(own) == ["nodes-without-version"]
    assert notes(old) == ["nodes-without-version", "version-kept"]
    assert own.notes[0].sentence == f"nodes without the label {LABEL} load no kmod of the Module: c"


@pytest.mark.parametrize(
    ("today", "one_folder", "found"),
    [
        (TODAY, False, ["version-kept", "version-kernel-unclear"]),
        (TODAY, True, "version-kernel"),
        (AMD_9, True, ["version-kept"]),
        ("", True, ["version-kept"]),
    ],
)
def test_the_folder_that_a_node_modules_config_names(today: str, one_folder: bool, found: object) -> None:
    objects = [*WORKERS, labelled("a", "1"), node_modules("a", ("demo", "m", OLD), kernel=today)]
    (case,) = cases_of(versioned("2"), objects, one_folder=one_folder).values()
    assert (case.finding.id if isinstance(case, Unresolved) else notes(case)) == found


def test_an_old_version_keeps_its_modprobe_settings_and_its_secret() -> None:
    settings: Object = {"modprobe": {"moduleName": "old", "dirName": "/x", "parameters": ["a=1"], "firmwarePath": "/f",
                             "args": {"load": ["--force"]}, "modulesLoadingOrder": ["old", "b"]},
                "inTreeModulesToRemove": ["in"], "insecurePull": True}  # fmt: skip
    manifest = node_modules("a", ("demo", "m", OLD), **settings)
    manifest["spec"]["modules"][0] |= {"imageRepoSecret": {"name": "pull"}, "serviceAccountName": "loader"}
    (plan,) = cases_of(versioned("2"), [*WORKERS, labelled("a", "1"), manifest]).values()
    assert isinstance(plan, Plan)
    assert (plan.kmod, plan.directory, plan.parameters, plan.firmware_path) == ("old", "/x", ("a=1",), "/f")
    assert (plan.load_options, plan.modules_loading_order) == (("--force",), ("old", "b"))
    assert (plan.in_tree_modules_to_remove, plan.secret, plan.account) == (("in",), "pull", "loader")
    assert plan.tls.insecure
    assert (plan.build, plan.sign) == (None, None)


def test_an_old_version_goes_where_no_mapping_matches_the_kernel() -> None:
    objects = [*WORKERS, labelled("a", "1"), node_modules("a", ("demo", "m", OLD))]
    assert words(cases_of(versioned("2", regexp="^4"), objects)) == {f"{AMD_9},version=1": "no-mapping"}
    assert words(cases_of(versioned("2", regexp=f"^{TODAY}"), objects)) == {f"{AMD_9},version=1": "mapping-lost"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"{NFD}/kernel-version.full", "5.14.0-570.19.1.el9_6.x86_64_rt"),
        (f"{NFD}/kernel-version.major", "5"),
        (f"{NFD}/kernel-version.minor", "14"),
        (f"{NFD}/kernel-version.revision", "0"),
        ("kmm.node.kubernetes.io/kernel-version.full", "5.14.0-570.19.1.el9_6.x86_64_rt"),
        (f"{NFD}/kernel-config.NO_HZ", None),
        ("gpu", None),
    ],
)
def test_values_that_a_kernel_determines(key: str, value: str | None) -> None:
    assert value_after(key, RT_9) == value


@pytest.mark.parametrize(
    ("label", "holds"),
    [
        (PendingLabel(FULL, AMD_9, TODAY), True),
        (PendingLabel(FULL, TODAY, TODAY), False),
        (PendingLabel(f"{NFD}/system-os_release.VERSION_ID", "4.18", "4.17"), None),
        (PendingLabel("team/kernel", TODAY, TODAY), None),
        (PendingLabel("team/kernel", AMD_9, TODAY), None),
        (PendingLabel("team/kernel", "5.14.0-570.19.1.el9_6", TODAY), None),
        (PendingLabel("team/kernel", "5.14.0-570.19", TODAY), None),
        (PendingLabel("team/kernel", "5.14.0", "5.14.0-427"), False),
        (PendingLabel("team/kernel", "other", TODAY), False),
    ],
)
def test_labels_on_a_new_kernel(label: PendingLabel, holds: bool | None) -> None:
    assert label.holds_on(AMD_9) is holds


ON_NODE = node("a", "worker", labels={
    FULL: TODAY, f"{NFD}/kernel-version.major": "5", f"{NFD}/kernel-config.NO_HZ": "true", "team/driver": f"a-{TODAY}",
    f"{NFD}/system-os_release.VERSION_ID": "4.17", "team/os": "418.94.202501221327-0",
    "team/short": "5.14.0-427", "team/major": "5.14.0", "gpu": "yes"})  # fmt: skip
ON_NODE["status"]["nodeInfo"]["osImage"] = "Red Hat Enterprise Linux CoreOS 418.94.202501221327-0"


@pytest.mark.parametrize(
    ("selector", "found", "note"),
    [
        ({"gpu": "yes"}, OWN, []),
        ({FULL: TODAY}, "selector-lost", []),
        ({FULL: AMD_9}, OWN, ["selector-new"]),
        ({FULL: "4.18.0"}, "no-node-loads", None),
        ({f"{NFD}/kernel-version.major": "5"}, OWN, []),
        ({f"{NFD}/kernel-version.major": "4"}, "no-node-loads", None),
        ({f"{NFD}/kernel-config.NO_HZ": "true"}, "selector-unclear", []),
        ({f"{NFD}/system-os_release.VERSION_ID": "4.17"}, "selector-unclear", []),
        ({f"{NFD}/system-os_release.VERSION_ID": "4.18"}, "selector-unclear", None),
        ({"team/driver": f"a-{TODAY}"}, "selector-unclear", []),
        ({"team/short": "5.14.0-427"}, "selector-unclear", []),
        ({"team/major": "5.14.0"}, OWN, []),
        ({"team/os": "418.94.202501221327-0"}, "selector-unclear", []),
        ({FULL: TODAY, "gpu": "yes"}, "selector-lost", []),
    ],
)
def test_selectors_on_labels_that_the_upgrade_changes(
    selector: Mapping[str, str], found: str, note: list[str] | None
) -> None:
    cases = cases_of(module("m", selector), [*WORKERS, ON_NODE])
    assert words(cases) == {AMD_9: found}
    assert note in (None, notes(cases[AMD_9]))


def test_a_selector_that_is_lost_names_label_and_values() -> None:
    (case,) = cases_of(module("m", {FULL: TODAY}), [*WORKERS, ON_NODE]).values()
    assert isinstance(case, Unresolved)
    assert case.finding.sentence == (
        f"on {AMD_9} the Module does not select the nodes of pool worker any more: for label {FULL} got {AMD_9}, "
        f"expected {TODAY}"
    )


def test_labels_of_nodes_that_keep_their_kernel_stay() -> None:
    own = config("50-os", image="quay.io/own", role="worker")
    cases = cases_of(module("m", {FULL: TODAY}), [*WORKERS, own, ON_NODE])
    assert words(cases) == {TODAY: OWN}


def test_a_node_without_the_label_of_a_kernel_gets_none() -> None:
    assert words(cases_of(module("m", {FULL: AMD_9}), [*WORKERS, node("b", "worker")])) == {AMD_9: OWN}, "nodes to come"
    assert words(cases_of(module("m", {FULL: TODAY}), [*WORKERS, node("b", "worker")])) == {AMD_9: "no-node-loads"}


def test_selectors_of_a_run_without_nodes() -> None:
    targets = targets_for_any_node(KERNELS[:2])
    parsed = [parse_module(module("m", {FULL: value}), "") for value in (AMD_9, TODAY)]
    one, none = (targets_by_selector(each, targets) for each in parsed)
    assert [(target.kernel.version, target.unresolved) for target in one] == [(AMD_9, None)]
    assert [target.unresolved.id for target in none if target.unresolved] == ["no-node-loads"] * 2


POOLS = [pool("worker"), rendered("worker"), pool("rt"), rendered("rt", "realtime"), node("w", "worker")]


@pytest.mark.parametrize(
    ("selector", "kernels", "note"),
    [
        ({}, {AMD_9, RT_9}, []),
        ({f"{ROLE}/worker": ""}, {AMD_9, RT_9}, []),
        ({"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}, {AMD_9, RT_9}, []),
        ({f"{ROLE}/rt": ""}, {RT_9}, None),
        ({f"{NFD}/pci-10de.present": "true"}, {AMD_9, RT_9}, []),
        ({"kubernetes.io/hostname": "g"}, {AMD_9}, []),
        ({"gpu": "yes"}, {AMD_9}, ["pool-not-checked"]),
        ({f"{ROLE}/worker": "", "gpu": "yes"}, {AMD_9}, ["pool-not-checked"]),
    ],
)
def test_pools_that_are_empty_today(selector: Mapping[str, str], kernels: set[str], note: list[str] | None) -> None:
    labels = {"gpu": "yes", f"{NFD}/pci-10de.present": "true", "kubernetes.io/hostname": "g"}
    gpu = node("g", "worker", labels=labels)
    cases = cases_of(module("m", selector), [*POOLS, gpu])
    assert set(cases) == kernels
    if note is not None:
        assert notes(cases[AMD_9]) == note
    if AMD_9 in kernels and RT_9 in kernels:
        assert notes(cases[RT_9]) == ["pool-to-come"]
        assert cases[RT_9].nodes == ("pool rt (no node today)",)


def test_an_empty_pool_with_the_kernel_of_others_adds_no_note() -> None:
    objects = [pool("worker"), rendered("worker"), pool("edge"), rendered("edge"), node("w", "worker")]
    (case,) = cases_of(module("m"), objects).values()
    assert (case.nodes, notes(case)) == (("pool worker (1 node)", "pool edge (no node today)"), [])


def test_a_pool_to_come_has_the_architectures_of_compute_nodes() -> None:
    objects = [pool("master"), pool("worker"), pool("edge"), rendered("edge"), rendered("worker"), rendered("master"),
               node("m", "master", taints=[MASTER_TAINT]),
               node("w", "worker", arch="arm64", kernel=TODAY_ARM)]  # fmt: skip
    assert set(cases_of(module("m"), objects)) == {ARM_9}


@pytest.mark.parametrize(
    ("labels", "taints", "selector", "kernels"),
    [
        ({"gpu": "yes"}, [], {"gpu": "yes"}, {AMD_10, "unknown-NodePool-b-rhel-10-arm64-standard"}),
        ({"gpu": "no"}, [], {"gpu": "yes"}, {AMD_10}),
        ({"gpu": "yes"}, [{"key": "x", "effect": "NoSchedule"}], {"gpu": "yes"}, {AMD_10}),
        ({"gpu": "yes"}, [{"key": "x", "effect": "PreferNoSchedule"}], {"gpu": "yes"},
         {AMD_10, "unknown-NodePool-b-rhel-10-arm64-standard"}),
        ({}, [], {}, {AMD_10, "unknown-NodePool-b-rhel-10-arm64-standard"}),
        ({}, [], {"gpu": "yes"}, {AMD_10}),
        ({"gpu": "yes"}, [], {"gpu": "yes", "kubernetes.io/arch": "amd64"}, {AMD_10}),
    ],
)  # fmt: skip
def test_node_pools_that_are_empty_today(
    labels: Mapping[str, str], taints: Sequence[Object], selector: Mapping[str, str], kernels: set[str]
) -> None:
    empty = node_pool("b", arch="arm64", labels=labels)
    empty["spec"]["taints"] = list(taints)
    full = node_pool("np", labels={"gpu": "yes"})
    objects = [full, empty, node("n", labels={**HOSTED, "gpu": "yes"})]
    assert set(cases_of(module("m", selector), objects, TWO)) == kernels


@pytest.mark.parametrize(
    "taint",
    [
        "node.kubernetes.io/unschedulable",
        "medik8s.io/drain",
        "example.com/upgrading",
        "a.com/maintenance",
        "node.cilium.io/agent-not-ready",
    ],
)
def test_taints_of_maintenance_keep_no_kernel_away(taint: str) -> None:
    drained = node("r", "worker", "rt", taints=[{"key": taint, "effect": "NoSchedule"}])
    assert set(cases_of(module("m"), [*POOLS, drained])) == {AMD_9, RT_9}


def test_a_taint_that_stays_is_reported() -> None:
    taint = {"key": "example.com/team", "effect": "NoSchedule"}
    tainted = node("r", "worker", "rt", taints=[taint])
    (case,) = cases_of(module("m"), [*POOLS, tainted]).values()
    assert [note.sentence for note in case.notes] == [
        "the kernel of nodes with the Module's labels is not checked, because they have a taint that the Module does "
        "not tolerate: r (example.com/team)"
    ]
    master = node("m", "master", taints=[MASTER_TAINT])
    same = node("s", "worker", taints=[taint])
    full = [node("r", "worker", "rt"), *WORKERS, pool("rt"), rendered("rt", "realtime"), node("w", "worker")]
    for case in cases_of(module("m"), [*full, master, same]).values():
        assert notes(case) == []


@pytest.mark.parametrize(
    ("image", "core_os"),
    [
        ("", True),
        ("Unknown", True),
        ("Red Hat Enterprise Linux CoreOS 418.94.202501221327-0", True),
        ("Red Hat Enterprise Linux CoreOS 9.6.20250701-0 (Plow)", True),
        ("CentOS Stream CoreOS 9.0.20250510-0", True),
        ("Fedora CoreOS 37.20230218.3.0", True),
        ("Red Hat Enterprise Linux 8.9 (Ootpa)", False),
        ("Red Hat Enterprise Linux 8 CoreOS", False),
        ("Ubuntu 24.04 LTS", False),
        ("Bottlerocket OS 1.2", False),
    ],
)
def test_operating_systems(image: str, core_os: bool) -> None:
    manifest = node("n", "worker")
    manifest["status"]["nodeInfo"]["osImage"] = image
    assert parse_node(manifest).core_os is core_os


def test_a_node_without_core_os_is_undecided_and_the_others_are_checked() -> None:
    rhel = node("r", "worker", kernel="4.18.0-513.5.1.el8_9.x86_64")
    rhel["status"]["nodeInfo"]["osImage"] = "Red Hat Enterprise Linux 8.9 (Ootpa)"
    cases = cases_of(module("m"), [*WORKERS, node("w", "worker"), rhel])
    unknown = "unknown-nodes-with-Red-Hat-Enterprise-Linux-8.9-Ootpa--amd64-standard"
    assert words(cases) == {AMD_9: OWN, unknown: "node-not-coreos"}


@pytest.mark.parametrize(
    ("selector", "objects", "missing"),
    [
        ({"kubernetes.io/arch": "arm64"}, [node("w", "worker")], "arm64"),
        ({"kubernetes.io/arch": "arm64"}, [node("w", "worker", arch="arm64")], None),
        ({"kubernetes.io/arch": "arm64"}, [], None),
        ({"kubernetes.io/arch": "arm64"}, [node("w", "worker"), node_pool("np", arch="arm64")], None),
        ({"kubernetes.io/arch": "aarch64"}, [node("w", "worker")], "aarch64"),
        ({"beta.kubernetes.io/arch": "s390x"}, [node("w", "worker")], "s390x"),
        ({"gpu": "yes"}, [node("w", "worker")], None),
    ],
)
def test_architectures_that_nothing_has(
    selector: Mapping[str, str], objects: list[Object], missing: str | None
) -> None:
    manifest, given = module("m", selector), [*WORKERS, *objects]
    assert missing_arch(parse_module(manifest, ""), fleet_of(given)) == missing
    if missing:
        assert cases_of(manifest, given) == {}


def test_windows_and_virtual_nodes_load_nothing() -> None:
    virtual = node("v", "worker", labels={"type": "virtual-kubelet"})
    objects = [*WORKERS, node("w", "worker"), virtual, node("win", "worker", os="windows")]
    (case,) = cases_of(module("m"), objects).values()
    assert isinstance(case, Plan)
    assert case.node_names == ("w",)


def test_no_node_and_no_pool_with_the_labels() -> None:
    selector = {f"{ROLE}/worker": "no"}
    assert words(cases_of(module("m", selector), [*WORKERS, node("w", "worker")])) == {
        "unknown-no-node-standard": "no-node-loads"
    }


def selected(*modules: Object) -> dict[str, str]:
    """Return what becomes of Modules on one node: the finding or the image by Module."""
    parsed = [parse_module(manifest, "") for manifest in modules]
    prediction = Prediction(fleet_of([*WORKERS, ON_NODE]), ONE)
    every = {each.name: targets_of(demand_of(each, prediction), KERNELS, ONE) for each in parsed}
    cases = make_cases(parsed, with_superseded(parsed, every))
    return {case.module.name: word for case in cases for word in words({"": case}).values()}


def test_a_module_for_each_kernel() -> None:
    """The Module of today's kernel loses its nodes to the Module of the new kernel, if both load one kmod."""
    today, new = module("today", {FULL: TODAY}), module("new", {FULL: AMD_9})
    assert selected(today, new) == {"today": "no-node-loads", "new": OWN}
    assert selected(today, module("all")) == {"today": "selector-lost", "all": OWN}
    new["spec"]["moduleLoader"]["container"]["modprobe"]["moduleName"] = "other"
    assert selected(today, new) == {"today": "selector-lost", "new": OWN}
    assert selected(today, module("new", {FULL: AMD_10})) == {"today": "selector-lost", "new": "no-node-loads"}
    assert selected(today, module("lost", {FULL: TODAY})) == {"today": "selector-lost", "lost": "selector-lost"}


def named(manifest: Object, *objects: Object, one_folder: bool = False) -> dict[str, str]:
    """Return the cases of a Module on the kernel of --kernel."""
    parsed = parse_module(manifest, "")
    fleet = fleet_of([*WORKERS, *objects])
    selection = named_kernels([AMD_9], (), None, None, [parsed], fleet, one_folder)
    return words({case.kernel_words: case for case in make_cases([parsed], selection.targets)})


def test_nodes_on_a_kernel_that_an_option_names() -> None:
    """The kernel is given, so pools do not count. Versions and labels do."""
    rhel = node("r", "worker", kernel="4.18.0-513.5.1.el8_9.x86_64")
    rhel["status"]["nodeInfo"]["osImage"] = "Red Hat Enterprise Linux 8.9 (Ootpa)"
    assert named(module("m"), rhel) == {AMD_9: OWN}
    old = [labelled("a", "1"), node_modules("a", ("demo", "m", OLD))]
    assert named(versioned("2"), *old) == {f"{AMD_9},version=1": OLD}
    assert named(versioned("2"), *old, labelled("b", "2")) == {AMD_9: OWN, f"{AMD_9},version=1": OLD}
    assert named(versioned("2"), *old, one_folder=True) == {f"{AMD_9},version=1": "version-kernel"}
    assert named(versioned("2"), labelled("b", None)) == {AMD_9: "no-node-loads"}
    assert named(module("m", {FULL: TODAY}), ON_NODE) == {AMD_9: "selector-lost"}
    assert named(module("m", {FULL: AMD_9}), ON_NODE) == {AMD_9: OWN}
    assert named(module("m", {FULL: "4.18.0"}), ON_NODE) == {AMD_9: "no-node-loads"}
    assert named(module("m", {"kubernetes.io/arch": "arm64"}), ON_NODE) == {AMD_9: OWN}


def test_an_ordered_upgrade_without_nodes_is_assumed_to_be_complete() -> None:
    modules = [parse_module(versioned("2"), ""), parse_module(module("plain"), "")]
    said = "no node was read, so all nodes are assumed to run the version that the Module has now"
    assert named_kernels([AMD_9], (), None, None, modules).assumed[1:] == (f"ordered upgrades of demo/m: {said}",)
    assert named_kernels([AMD_9], (), None, None, modules, fleet_of(WORKERS)).assumed[1:] == ()
