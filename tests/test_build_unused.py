"""A good result that is not pushed, under a name that exists already: nodes take the image that is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kmm_preflight.build.findings import BUILD_UNPROVED
from kmm_preflight.build.unused import reach_nodes
from kmm_preflight.model import Finding, Flavour, JudgedImage, ModuleName, Outcome, Stage, StageResult, TargetKernel
from kmm_preflight.oci.findings import IMAGE_NOT_FOUND, IMAGE_UNREADABLE, REGISTRY_BLOCKED
from kmm_preflight.oci.reference import Reference
from kmm_preflight.oci.signature_policy import SignaturePolicy
from kmm_preflight.oci.signed_identity import SignedIdentity
from kmm_preflight.planning.plan import Build, Plan, Sign
from kmm_preflight.stages.findings import IMAGE_ACCESS_DENIED, KMOD_ABSENT, REGISTRY_TLS_IGNORED
from tests.real.build import need_buildah
from tests.real.kmod import compile_kmod
from tests.real.layout import Member, image, layer
from tests.real.push import push
from tests.real.registry import Registry
from tests.runs import run_preflight
from tests.workbench import SIGN, Workbench, build_module, key_pair, signing_secrets

BUILT = Plan(
    ModuleName("ns", "m"),
    TargetKernel("k", "amd64", None, Flavour.STANDARD, None, ""),
    Reference.parse("quay.io/a/b:1"),
    build=Build(),
)
SIGNED, BOTH = replace(BUILT, build=None, sign=Sign()), replace(BUILT, sign=Sign())
THERE = JudgedImage("quay.io/a/b:1", "sha256:old", "sha256:old")
MADE, PUSHED = replace(THERE, digest="sha256:new", stored=False), replace(THERE, digest="sha256:new")
ABSENT = KMOD_ABSENT(expected="x.ko", folder="opt", got="nothing", kernel="k")
WRONG = StageResult(Stage.IMAGE, Outcome.FALLS_THROUGH, "bad", (ABSENT,), THERE)
MISSING = StageResult(Stage.IMAGE, Outcome.FALLS_THROUGH, "bad", (IMAGE_NOT_FOUND(problem="404", kernel="k"),))
DENIED = replace(MISSING, findings=(IMAGE_ACCESS_DENIED(problem="401", credentials="none"),))
UNREADABLE = replace(WRONG, findings=(IMAGE_UNREADABLE(problem="no layer"),))
GOOD = StageResult(Stage.BUILD, Outcome.VERIFIED, "good", (), MADE)
GOOD_SIGN = replace(GOOD, stage=Stage.SIGN)
UNPROVED = replace(GOOD, outcome=Outcome.UNDECIDED, findings=(BUILD_UNPROVED(builder="x"),), image=None)
CASES = {
    "a build under a wrong image": (BUILT, WRONG, GOOD, True),
    "a signed image under a wrong image": (SIGNED, WRONG, GOOD_SIGN, True),
    "a build that a sign follows": (BOTH, WRONG, GOOD, False),
    "the sign after a build": (BOTH, WRONG, GOOD_SIGN, True),
    "a build under a new name": (BUILT, MISSING, GOOD, False),
    "a build under a name that nodes may not pull": (BUILT, DENIED, GOOD, False),
    "a build under an image that nodes cannot unpack": (BUILT, UNREADABLE, GOOD, False),
    "a build that was pushed": (BUILT, WRONG, replace(GOOD, image=PUSHED), False),
    "a build that failed": (BUILT, WRONG, replace(GOOD, outcome=Outcome.FAILED), False),
    "a build without a proof": (BUILT, WRONG, UNPROVED, False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_result_reaches_nodes(case: str) -> None:
    plan, there, result, unused = CASES[case]
    got = reach_nodes(plan, there, result)
    if not unused:
        assert got is result
        return
    assert (got.outcome, got.findings[0].id, got.stage) == (Outcome.FAILED, "build-unused", result.stage)
    assert got.reason == got.findings[0].sentence
    assert {"quay.io/a/b:1", "(sha256:old),"} <= set(got.reason.split())
    assert got.reason.endswith(ABSENT.sentence)


@pytest.mark.parametrize("finding", [REGISTRY_BLOCKED(problem="x"), REGISTRY_TLS_IGNORED(problem="x")])
def test_nodes_that_refuse_the_name_refuse_the_result_too(finding: Finding) -> None:
    there = replace(MISSING, findings=(finding,))
    for result in (GOOD, replace(GOOD, image=PUSHED)):
        got = reach_nodes(BUILT, there, result)
        assert (got.outcome, got.findings) == (Outcome.FAILED, (finding,))


def test_a_result_has_no_signature_that_a_policy_requires() -> None:
    policy = SignaturePolicy("ClusterImagePolicy p", ("quay.io",), SignedIdentity())
    for there, result in ((MISSING, GOOD), (WRONG, replace(GOOD, image=PUSHED))):
        got = reach_nodes(BUILT, there, result, (policy,))
        assert (got.outcome, got.findings[0].id) == (Outcome.FAILED, "build-unsigned")
        assert "ClusterImagePolicy p" in got.reason
    assert reach_nodes(BOTH, MISSING, GOOD, (policy,)) is GOOD


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """Return a registry without a login, and images for builds."""
    need_buildah()
    with Registry.plain(tmp_path_factory.mktemp("registry")) as registry:
        yield Workbench(registry, tmp_path_factory.mktemp("store"))


def test_a_build_over_a_wrong_image_needs_a_push(tmp_path: Path, bench: Workbench) -> None:
    base = bench.push_kmods(compile_kmod(bench.new), "good")
    wrong = image([layer([Member("opt/other", b"x")])])
    for name in ("built", "signed"):
        push(bench.registry, f"made/{name}", bench.new, wrong)
    manifests = [
        *build_module("built", bench.new_image("built"), bench.copy_dockerfile(base)),
        *build_module("signed", bench.new_image("signed"), bench.copy_dockerfile(base), sign=SIGN),
        *build_module("fresh", bench.new_image("fresh"), bench.copy_dockerfile(base)),
        *signing_secrets(key_pair()),
    ]
    options = bench.options(tmp_path / "manifests", manifests)
    run = run_preflight(tmp_path, *options)
    verdicts = {name: verdict[:3] for name, verdict in run.verdicts().items()}
    unused = ("refuted", "kmod-absent", "build-unused")
    assert verdicts == {
        "built": unused,
        "signed": unused,
        "fresh": ("verified", "image-not-found", *verdicts["fresh"][2:]),
    }
    assert run.returncode == 1
    assert "no node will load it" in run.sentences()["built"]
    pushed = run_preflight(tmp_path, *options, "--push-built-image")
    assert {name: verdict[0] for name, verdict in pushed.verdicts().items()} == dict.fromkeys(verdicts, "verified")
    assert pushed.returncode == 0, pushed.output
