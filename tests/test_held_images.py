"""Images that nodes hold under the name of a Module's image, and imagePullPolicy: the bytes that nodes will run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kmm_preflight.model import Flavour, JudgedImage, ModuleName, Outcome, Stage, StageResult, TargetKernel
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.held_images import store_of, with_node_stores
from kmm_preflight.nodes.node import parse_node
from kmm_preflight.oci.findings import IMAGE_NOT_FOUND
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from kmm_preflight.planning.pull_policy import HeldImages, NodeStore, effective_policy
from kmm_preflight.stages.findings import KMOD_ABSENT
from kmm_preflight.stages.held_images import with_held_images

from .fleets import node
from .real.layout import Member
from .real.push import push
from .real.registry import Registry
from .runs import module, run_preflight, write_manifests
from .shapes import VERIFIED, Parts, refuted

OLD, NEW, INDEX = (f"sha256:{letter * 64}" for letter in "abc")
NAME = "quay.io/team/kmod:v1"
PLAN = Plan(
    ModuleName("ns", "m"),
    TargetKernel("k", "amd64", None, Flavour.STANDARD, None, ""),
    Reference.parse(NAME),
    selector=(("node-role.kubernetes.io/worker", ""),),
)


def holding(name: str, *images: list[str], role: str = "worker") -> dict[str, Any]:
    """Return a node that lists images with these names."""
    manifest = node(name, role)
    manifest["status"]["images"] = [{"names": names, "sizeBytes": 1} for names in images]
    return manifest


FILLER = [[f"quay.io/other/image:{number}"] for number in range(50)]
HELD = [f"quay.io/team/kmod@{OLD}", NAME]
STORES: dict[str, tuple[list[list[str]], NodeStore]] = {
    "held": ([HELD], NodeStore((HeldImages((OLD,), ("n",)),))),
    "two digests": ([[f"quay.io/team/kmod@{INDEX}", *HELD]], NodeStore((HeldImages((INDEX, OLD), ("n",)),))),
    "another tag": ([[f"quay.io/team/kmod@{OLD}", "quay.io/team/kmod:v2"]], NodeStore(without=("n",))),
    "by digest alone": ([[f"quay.io/team/kmod@{OLD}"]], NodeStore(without=("n",))),
    "without a digest": ([[NAME]], NodeStore(unlisted=("n",))),
    "no list": ([], NodeStore(unlisted=("n",))),
    "a full list": (FILLER, NodeStore(unlisted=("n",))),
    "a full list with the image": ([*FILLER[1:], HELD], NodeStore((HeldImages((OLD,), ("n",)),))),
    "names that are none": ([["<none>@<none>", "<none>:<none>"]], NodeStore(without=("n",))),
}


@pytest.mark.parametrize("case", STORES)
def test_store_of_a_node(case: str) -> None:
    images, want = STORES[case]
    assert store_of(PLAN.image, [parse_node(holding("n", *images))]) == want


def test_nodes_of_a_case() -> None:
    fleet = Fleet(
        nodes=tuple(
            parse_node(manifest)
            for manifest in (holding("b", HELD), holding("a", HELD), holding("m", HELD, role="master"))
        )
    )
    (selected,) = with_node_stores([PLAN], fleet)
    assert isinstance(selected, Plan)
    assert selected.store == NodeStore((HeldImages((OLD,), ("a", "b")),))
    (named,) = with_node_stores([replace(PLAN, node_names=("b",))], fleet)
    assert isinstance(named, Plan)
    assert named.store == NodeStore((HeldImages((OLD,), ("b",)),))
    for other in (
        replace(PLAN, pull_policy="Always"),
        replace(PLAN, image=Reference.parse("quay.io/team/kmod")),
        replace(PLAN, module=ModuleName("ns", "m", "BootModuleConfig")),
        replace(PLAN, image=Reference.parse(f"quay.io/team/kmod@{OLD}")),
    ):
        assert with_node_stores([other], fleet) == (other,)
    assert with_node_stores([PLAN], None) == (PLAN,)


@pytest.mark.parametrize(
    ("policy", "name", "want"),
    [
        (None, "q.io/a:v1", "IfNotPresent"),
        (None, "q.io/a:latest", "Always"),
        (None, "q.io/a", "Always"),
        (None, f"q.io/a@{OLD}", "IfNotPresent"),
        (None, f"q.io/a:latest@{OLD}", "IfNotPresent"),
        ("Never", "q.io/a:latest", "Never"),
    ],
)
def test_effective_policy(policy: str | None, name: str, want: str) -> None:
    assert effective_policy(policy, Reference.parse(name)) == want


GOOD = StageResult(Stage.IMAGE, Outcome.VERIFIED, "good", (), JudgedImage(NAME, INDEX, NEW))
ABSENT = KMOD_ABSENT(expected="x.ko", folder="opt", got="nothing", kernel="k")
BAD = replace(GOOD, outcome=Outcome.FAILED, reason="bad", findings=(ABSENT,))
GONE = replace(BAD, findings=(IMAGE_NOT_FOUND(problem="404", kernel="k"),), image=None)
STALE = NodeStore((HeldImages((OLD,), ("worker-1",)),))
SAME, SAME_CHILD = NodeStore((HeldImages((INDEX,), ("a",)),)), NodeStore((HeldImages((NEW, OLD), ("a",)),))
FAILED, UNDECIDED, PASSED = Outcome.FAILED, Outcome.UNDECIDED, Outcome.VERIFIED
RESULTS: dict[str, tuple[StageResult, str | None, NodeStore, StageResult, Outcome, list[str]]] = {
    "nothing known": (GOOD, None, NodeStore(), GOOD, PASSED, []),
    "the same index": (GOOD, None, SAME, BAD, PASSED, []),
    "the same manifest": (GOOD, None, SAME_CHILD, BAD, PASSED, []),
    "an older image that is bad": (GOOD, None, STALE, BAD, FAILED, ["node-image-bad"]),
    "an older image that is good": (GOOD, None, STALE, GOOD, PASSED, ["node-image-other"]),
    "an older image that is gone": (GOOD, None, STALE, GONE, UNDECIDED, ["node-image-open"]),
    "both are bad": (BAD, None, STALE, BAD, FAILED, ["kmod-absent", "node-image-bad"]),
    "the new is bad": (BAD, None, STALE, GOOD, FAILED, ["kmod-absent", "node-image-other"]),
    "never, not held": (GOOD, "Never", NodeStore(without=("a",)), GOOD, FAILED, ["image-never-pulled"]),
    "never, not known": (GOOD, "Never", NodeStore(), GOOD, UNDECIDED, ["image-never-open"]),
    "never, cut off": (GOOD, "Never", NodeStore(unlisted=("a",)), GOOD, UNDECIDED, ["image-never-open"]),
    "never, held": (GOOD, "Never", SAME, BAD, PASSED, []),
    "never, held and older": (GOOD, "Never", STALE, BAD, FAILED, ["node-image-bad"]),
    "never, and the registry lost it": (GONE, "Never", STALE, GONE, UNDECIDED, ["node-image-open", "image-not-found"]),
}


@pytest.mark.parametrize("case", RESULTS)
def test_result_with_what_nodes_hold(case: str) -> None:
    result, policy, store, held, outcome, ids = RESULTS[case]
    asked: list[str] = []

    def judge(name: Reference) -> StageResult:
        asked.append(str(name))
        return held

    got = with_held_images(replace(PLAN, pull_policy=policy, store=store), result, judge)
    assert (got.outcome, [finding.id for finding in got.findings]) == (outcome, ids)
    assert set(asked) <= {f"quay.io/team/kmod@{OLD}"}
    if got.outcome is not PASSED and ids[0].startswith("node"):
        assert got.reason == got.findings[0].sentence
        assert "worker-1" in got.reason
        assert OLD in got.reason


@pytest.mark.parametrize(("policy", "want"), [("", refuted("node-image-bad")), ("Always", VERIFIED)])
def test_a_tag_that_was_pushed_again(
    plain_registry: Registry,
    kernels: tuple[str, str],
    kmods: Mapping[str, bytes],
    tmp_path: Path,
    policy: str,
    want: tuple[str, ...],
) -> None:
    old, new = kernels
    parts = Parts(new, old, kmods[new], kmods[old])
    before, now = parts.image(Member(f"opt/lib/modules/{old}/probe.ko", kmods[old])), parts.image(parts.good)
    name = f"{plain_registry.host}/held/kmod:v1"
    push(plain_registry, "held/kmod", "v1", before)
    push(plain_registry, "held/kmod", "v1", now)
    loads = module("kmod", name)
    if policy:
        loads["spec"]["moduleLoader"]["container"]["imagePullPolicy"] = policy
    repository = name.rpartition(":")[0]
    manifests = [
        loads,
        holding("worker-1", [f"{repository}@{before.digest}", name]),
        holding("worker-2", [f"{repository}@{now.digest}", name]),
    ]
    folder = write_manifests(tmp_path / "manifests", manifests)
    run = run_preflight(tmp_path, f"--kernel={new}", f"--manifests={folder}")
    assert run.verdicts() == {"kmod": want}, run.output
    if policy:
        return
    sentence = run.sentences()["kmod"]
    assert sentence.startswith(f"node worker-1 will not pull image {name} (IfNotPresent)")
    assert before.digest in sentence
    assert now.digest in sentence
