"""Builds of OpenShift: the objects as KMM makes them, each end, objects that are used again, replaced or deleted.

The API server is real. tests/real/kubernetes/build_controller.py plays the phases.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmm_preflight.build.builder import BuildRequest, BuildResult, MountedSecret
from kmm_preflight.build.leftovers import clean_up
from kmm_preflight.build.objects import SPEC_HASH, label_value, object_name
from kmm_preflight.build.openshift import OpenShiftBuilder, OpenShiftSettings
from kmm_preflight.cluster.api import BUILDS, JOBS, Access, Api, Forbidden, ResourceKind
from kmm_preflight.cluster.login import connect
from kmm_preflight.errors import Undecidable, Unreachable
from kmm_preflight.model import Flavour, ModuleName, Stage, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from tests.clusters import namespaces
from tests.real.kubernetes.build_controller import BUILDS as DEFINITION
from tests.real.kubernetes.build_controller import COMPLETE, PENDING, RUNNING, Act, BuildController
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import PREFLIGHTS
from tests.runs import ROOT
from tests.test_real_kubernetes import eventually

PASSWORD = "correct horse battery"
KERNEL = TargetKernel("5.14.0-570.el9.x86_64+rt", "amd64", "rhel9", Flavour.RT, None, "")
IMAGE = Reference.parse("registry.example/kmods/probe:1")
PLAN = Plan(ModuleName("demo", "probe"), KERNEL, IMAGE, "probe", secret="pull")
REQUEST = BuildRequest(
    id="probe-build-0123456789",
    stage=Stage.BUILD,
    plan=PLAN,
    dockerfile='FROM base\nRUN make "$$HOME" $(KERNEL)\n',
    image=PLAN.image_name,
    push=True,
    timeout=20,
    arguments=(("KERNEL_VERSION", KERNEL.version), ("MOD_NAME", "probe")),
    secrets=(
        MountedSecret("token", "token", {"key": PASSWORD.encode()}),
        MountedSecret("cert", "a.b", {"cert": b"public"}),
    ),
    selector=(("kmm", "yes"),),
)
SPEC = {
    "serviceAccount": "builder",
    "source": {"type": "Dockerfile", "dockerfile": REQUEST.dockerfile},
    "strategy": {
        "type": "Docker",
        "dockerStrategy": {
            "buildArgs": [
                {"name": "KERNEL_VERSION", "value": KERNEL.version},
                {"name": "MOD_NAME", "value": "probe"},
            ],
            "pullSecret": {"name": "pull"},
            "volumes": [
                {
                    "name": "secret-token",
                    "source": {"type": "Secret", "secret": {"secretName": "token", "optional": False}},
                    "mounts": [{"destinationPath": "/run/secrets/token"}],
                },
                {
                    "name": "secret-1",
                    "source": {"type": "Secret", "secret": {"secretName": "a.b", "optional": False}},
                    "mounts": [{"destinationPath": "/run/secrets/cert"}],
                },
            ],
        },
    },
    "output": {"to": {"kind": "DockerImage", "name": PLAN.image_name}, "pushSecret": {"name": "pull"}},
    "mountTrustedCA": True,
    "completionDeadlineSeconds": 20,
    "nodeSelector": {"kmm": "yes"},
}
LABELS = {
    "app.kubernetes.io/managed-by": "kmm-preflight",
    "app.kubernetes.io/component": "build",
    "app.kubernetes.io/instance": "probe-build-0123456789",
    "kmm.node.kubernetes.io/module.name": "probe",
    "kmm.node.kubernetes.io/target-kernel": "5.14.0-570.el9.x86_64_rt",
}


ROLES: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy" / "rbac-builds.yaml").read_text()))
SUBJECT = "system:serviceaccount:kmm-preflight:kmm-preflight"
# Requests of kubectl itself.
REVIEWS = {("create", "selfsubjectaccessreviews"), ("get", "")}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster that serves Builds."""
    with Cluster(tmp_path_factory.mktemp("builds")) as cluster:
        cluster.apply_crds(DEFINITION, PREFLIGHTS["list"])
        cluster.apply(*namespaces("demo"))
        yield cluster


@pytest.fixture(scope="module")
def controller(cluster: Cluster) -> Iterator[BuildController]:
    """Return the build controller. It does nothing by default."""
    with BuildController(cluster, nothing) as controller:
        yield controller


@pytest.fixture
def api(cluster: Cluster, controller: BuildController) -> Iterator[Api]:
    """Return the API server with the admin's account. Delete all objects at the end."""
    assert controller
    api = as_client(cluster.kubeconfig())
    yield api
    clean_up(api, (BUILDS, JOBS), datetime.now(UTC), everything=True)


@pytest.fixture
def builder(api: Api) -> OpenShiftBuilder:
    """Return a builder without an owner for its objects."""
    return OpenShiftBuilder(api, OpenShiftSettings())


def as_client(kubeconfig: Path, seconds: float = 60) -> Api:
    """Connect to the API server of a kubeconfig."""
    return connect(Access((kubeconfig,), "--kubeconfig", None, seconds))


@contextmanager
def playing(controller: BuildController, *acts: Act) -> Iterator[None]:
    """Let the controller play these phases for each Build."""
    controller.acts = lambda _: acts
    yield
    controller.acts = nothing


def nothing(_: Mapping[str, Any]) -> Sequence[Act]:
    """Play no phase."""
    return ()


def read_object(api: Api, kind: ResourceKind = BUILDS, request: BuildRequest = REQUEST) -> dict[str, Any]:
    """Return the object of a request."""
    manifest = api.get(kind, object_name(request.id), request.plan.module.namespace)
    assert manifest
    return dict(manifest)


def run_build(builder: OpenShiftBuilder, request: BuildRequest = REQUEST) -> tuple[BuildResult, list[str]]:
    """Run a build, and return its result and the steps that were shown."""
    steps: list[str] = []
    builder.start(request)
    return builder.result(request, steps.append), steps


def failure(result: BuildResult) -> tuple[str, str]:
    """Return id and sentence of the finding."""
    assert result.finding
    return result.finding.id, result.finding.sentence


def test_the_build_has_the_fields_of_kmm_s_builds(cluster: Cluster, api: Api) -> None:
    cluster.apply(
        {
            "apiVersion": "kmm.sigs.x-k8s.io/v1beta2",
            "kind": "PreflightValidationOCP",
            "metadata": {"name": "next"},
            "spec": {"releaseImage": "registry.example/release:1"},
        }
    )
    owner = api.get(ResourceKind("kmm.sigs.x-k8s.io", "v1beta2", "preflightvalidationsocp", namespaced=False), "next")
    assert owner
    OpenShiftBuilder(api, OpenShiftSettings({KERNEL.version: owner})).start(REQUEST)
    build = read_object(api)
    metadata = build["metadata"]
    assert build["spec"] == SPEC
    assert metadata["name"] == REQUEST.id
    assert metadata["labels"] == {**LABELS, "kmm.openshift.io/build.type": "build"}
    assert list(metadata["annotations"]) == [SPEC_HASH]
    assert metadata["ownerReferences"] == [
        {
            "apiVersion": "kmm.sigs.x-k8s.io/v1beta2",
            "kind": "PreflightValidationOCP",
            "name": "next",
            "uid": owner["metadata"]["uid"],  # type: ignore[index]
        }
    ]
    assert PASSWORD not in str(build)


def test_a_build_without_push_and_secret_has_no_output_and_no_pull_secret(api: Api, builder: OpenShiftBuilder) -> None:
    request = replace(REQUEST, push=False, plan=replace(PLAN, secret=None), secrets=(), selector=(), stage=Stage.SIGN)
    builder.start(request)
    build = read_object(api)
    assert build["spec"]["output"] == {}
    assert set(build["spec"]["strategy"]["dockerStrategy"]) == {"buildArgs", "volumes"}
    assert "nodeSelector" not in build["spec"]
    assert build["metadata"]["labels"]["kmm.openshift.io/build.type"] == "sign"


@pytest.mark.parametrize("push", [True, False])
def test_a_build_that_succeeds(controller: BuildController, api: Api, builder: OpenShiftBuilder, push: bool) -> None:
    request, steps = replace(REQUEST, push=push), list[str]()
    with playing(controller):
        # The Build completes after the builder has seen it run: the builder reads it only now and then.
        controller.acts = lambda _: (PENDING, RUNNING, *((COMPLETE,) if "Running" in steps else ()))
        builder.start(request)
        result = builder.result(request, steps.append)
    assert result == BuildResult(image=PLAN.image_name if push else None, pushed=push)
    assert steps[-1] == "Running"
    assert api.get(BUILDS, REQUEST.id, "demo") is None


GENERIC = {"reason": "GenericBuildFailed"}


@pytest.mark.parametrize(
    ("act", "finding", "words"),
    [
        pytest.param(
            Act("Failed", {"reason": "DockerBuildFailed", "message": "Docker build strategy has failed."}),
            "build-failed",
            ": DockerBuildFailed: Docker build strategy has failed.",
            id="failed",
        ),
        pytest.param(
            Act("Failed", {"reason": "OutOfMemoryKilled", "message": "killed"}),
            "builder-failed",
            "the cluster ended it (OutOfMemoryKilled: killed)",
            id="memory",
        ),
        pytest.param(
            Act(
                "Failed", {"reason": "GenericBuildFailed"}, {"phase": "Failed", "reason": "Evicted", "message": "disk"}
            ),
            "builder-failed",
            "the cluster ended it (Evicted: disk)",
            id="evicted",
        ),
        pytest.param(
            Act("Failed", GENERIC, {"phase": "Failed", "reason": "DeadlineExceeded"}),
            "build-timeout",
            "did not finish within 20 s",
            id="deadline",
        ),
        pytest.param(
            Act("Error", {"reason": "CannotCreateBuildPod", "message": "forbidden"}),
            "builder-failed",
            "it ended with phase Error (CannotCreateBuildPod: forbidden)",
            id="error",
        ),
        pytest.param(
            Act("Cancelled", {"reason": "CancelledBuild", "message": "by the user"}),
            "builder-failed",
            "it ended with phase Cancelled (CancelledBuild: by the user)",
            id="cancelled",
        ),
    ],
)
def test_a_build_that_fails(
    controller: BuildController, api: Api, builder: OpenShiftBuilder, act: Act, finding: str, words: str
) -> None:
    snippet = f"probe.c:1: error: no such thing\ntoken {PASSWORD}\n"
    ending = replace(act, status={**act.status, "logSnippet": snippet})
    with playing(controller, PENDING, RUNNING, ending):
        result, _ = run_build(builder)
    id, sentence = failure(result)
    assert id == finding
    assert words in sentence
    assert result.finding
    assert result.finding.lines == ("probe.c:1: error: no such thing", "token ***")
    assert PASSWORD not in result.log
    assert (result.image, result.pushed) == (None, False)
    assert api.get(BUILDS, REQUEST.id, "demo") is None


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}


@pytest.mark.parametrize(
    ("act", "finding", "words"),
    [
        pytest.param(RUNNING, "build-timeout", "did not finish within 3 s", id="running"),
        pytest.param(
            Act("New", {"reason": "MissingPushSecret", "message": "Missing push secret."}),
            "builder-failed",
            "it did not run within 3 s: its phase is New (MissingPushSecret: Missing push secret.)",
            id="new",
        ),
        pytest.param(
            Act("Pending", pod={"phase": "Pending", "conditions": [UNSCHEDULABLE]}),
            "builder-failed",
            "it did not run within 3 s: its phase is Pending (Unschedulable: 0/3 nodes)",
            id="unschedulable",
        ),
    ],
)
def test_a_build_is_stopped_at_its_deadline(
    controller: BuildController, api: Api, builder: OpenShiftBuilder, act: Act, finding: str, words: str
) -> None:
    began = time.monotonic()
    with playing(controller, act):
        result, steps = run_build(builder, replace(REQUEST, timeout=3))
    assert 3 <= time.monotonic() - began < 20
    id, sentence = failure(result)
    assert id == finding
    assert words in sentence
    assert finding == "build-timeout" or any(words.partition("(")[2].partition(")")[0] in step for step in steps)
    assert api.get(BUILDS, REQUEST.id, "demo") is None


def test_a_deleted_build_leaves_the_stage_undecided(cluster: Cluster, builder: OpenShiftBuilder) -> None:
    builder.start(REQUEST)
    cluster.kubectl("delete", "builds.build.openshift.io", REQUEST.id, "-n", "demo")
    id, sentence = failure(builder.result(REQUEST, print))
    assert id == "builder-failed"
    assert f"Build demo/{REQUEST.id}: it was deleted before its end" in sentence


def test_the_same_build_is_used_again_and_another_is_replaced(
    cluster: Cluster, api: Api, builder: OpenShiftBuilder
) -> None:
    uids = []
    for request in (REQUEST, REQUEST, replace(REQUEST, dockerfile="FROM other\n"), replace(REQUEST, push=False)):
        builder.start(request)
        uids.append(read_object(api)["metadata"]["uid"])
    assert uids[0] == uids[1]
    assert len(set(uids)) == 3
    for phase in ("Complete", "Failed"):
        patch = f'--patch={{"status":{{"phase":"{phase}"}}}}'
        assert cluster.kubectl("patch", "builds", REQUEST.id, "-n", "demo", "--type=merge", patch).returncode == 0
        builder.start(replace(REQUEST, push=False))
        build = read_object(api)
        assert build["metadata"]["uid"] not in uids
        assert "status" not in build
        uids.append(build["metadata"]["uid"])
    assert len(api.list(BUILDS) or ()) == 1


def test_an_object_that_this_suite_did_not_make_is_kept(cluster: Cluster, api: Api, builder: OpenShiftBuilder) -> None:
    cluster.apply(
        {
            "apiVersion": "build.openshift.io/v1",
            "kind": "Build",
            "metadata": {"name": REQUEST.id, "namespace": "demo"},
            "spec": {"strategy": {"type": "Docker"}},
        }
    )
    try:
        with pytest.raises(Undecidable, match="the object exists and is not of this suite"):
            builder.start(REQUEST)
        assert clean_up(api, (BUILDS,), datetime.now(UTC), [REQUEST.id], everything=True) == ()
        assert read_object(api)["spec"] == {"strategy": {"type": "Docker"}}
    finally:
        cluster.kubectl("delete", "builds", REQUEST.id, "-n", "demo")


def test_leftovers_of_builds_are_deleted_and_named(cluster: Cluster, api: Api, builder: OpenShiftBuilder) -> None:
    requests = {
        name: replace(REQUEST, id=f"{name}-build-0123456789", timeout=300) for name in ("own", "over", "ended", "other")
    }
    for request in requests.values():
        builder.start(request)
    ended = '--patch={"status":{"phase":"Failed"}}'
    cluster.kubectl("patch", "builds", requests["ended"].id, "-n", "demo", "--type=merge", ended)
    short = '--patch={"spec":{"completionDeadlineSeconds":1}}'
    cluster.kubectl("patch", "builds", requests["over"].id, "-n", "demo", "--type=merge", short)

    def cleaned(later: timedelta, *ids: str, everything: bool = False) -> set[str]:
        gone = clean_up(api, (JOBS, BUILDS), datetime.now(UTC) + later, ids, everything)
        return {name.removeprefix("builds.build.openshift.io demo/").partition("-")[0] for name in gone}

    assert cleaned(timedelta(), requests["own"].id) == {"own", "ended"}
    assert cleaned(timedelta(minutes=4)) == set()
    assert cleaned(timedelta(minutes=5, seconds=20)) == {"over"}
    assert cleaned(timedelta(), everything=True) == {"other"}
    assert api.list(BUILDS) == ()


def test_the_cluster_serves_builds(cluster: Cluster, api: Api) -> None:
    assert api.serves(BUILDS)
    assert api.serves(JOBS)
    assert not api.serves(replace(BUILDS, plural="buildconfigs"))
    assert not api.serves(replace(BUILDS, version="v2"))
    nowhere = replace(BUILDS, group="build.example.io")
    assert not api.serves(nowhere)
    assert clean_up(api, (nowhere,), datetime.now(UTC), everything=True) == ()


def test_an_account_without_rights_gets_the_missing_verb(cluster: Cluster) -> None:
    builder = OpenShiftBuilder(as_client(cluster.kubeconfig("nobody", groups=[])), OpenShiftSettings())
    with pytest.raises(Forbidden, match=r"get builds\.build\.openshift\.io as .*deploy/rbac-builds\.yaml"):
        builder.start(REQUEST)


def test_the_role_has_exactly_the_needed_verbs(cluster: Cluster, controller: BuildController, api: Api) -> None:
    kubeconfig = cluster.service_account_kubeconfig("kmm-preflight", "kmm-preflight")
    cluster.apply(*ROLES)
    granted = {
        (verb, resource)
        for rule in ROLES[0]["rules"]
        if rule["apiGroups"] != ["batch"] and rule["resources"] != ["pods/exec"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }
    allowed = ["auth", "can-i", "list", "builds.build.openshift.io", "--all-namespaces"]
    eventually(lambda: cluster.kubectl(*allowed, kubeconfig=kubeconfig).returncode == 0)
    cluster.forget()
    account = as_client(kubeconfig)
    with playing(controller, PENDING, RUNNING, RUNNING, RUNNING, RUNNING, COMPLETE):
        result, _ = run_build(OpenShiftBuilder(account, OpenShiftSettings()))
    assert clean_up(account, (BUILDS,), datetime.now(UTC), everything=True) == ()
    assert result.pushed
    events = [
        event for event in cluster.requests() if event.user == "system:serviceaccount:kmm-preflight:kmm-preflight"
    ]
    assert 403 not in {event.code for event in events}
    assert {
        (event.verb, "/".join(filter(None, (event.resource, event.subresource)))) for event in events
    } - REVIEWS == granted
    assert api


def test_a_build_goes_on_if_the_api_server_stops(cluster: Cluster, controller: BuildController, api: Api) -> None:
    builder = OpenShiftBuilder(as_client(cluster.kubeconfig(), seconds=1), OpenShiftSettings())
    with playing(controller, PENDING, RUNNING):
        builder.start(REQUEST)
        uid = read_object(api)["metadata"]["uid"]
        cluster.stop()
        try:
            with pytest.raises(Unreachable, match="no answer within"):
                builder.result(REQUEST, print)
        finally:
            cluster.start()
    builder.start(REQUEST)
    assert read_object(api)["metadata"]["uid"] == uid
    with playing(controller, PENDING, RUNNING, COMPLETE):
        assert builder.result(REQUEST, print).pushed


@pytest.mark.parametrize(
    ("id", "name"),
    [
        ("probe-build-0123456789", "probe-build-0123456789"),
        ("a.b-build-0123456789", "a-b-build-0123456789-"),
        ("Ä-build", "build-"),
        (f"{'x' * 46}-build-0123456789", "x" * 46 + "-"),
        ("+", ""),
    ],
)
def test_the_api_server_accepts_the_names(id: str, name: str) -> None:
    shortened = object_name(id)
    assert shortened.startswith(name)
    assert len(shortened) <= 57
    assert object_name(id) == shortened
    assert object_name(f"{id}x") != shortened
    assert not shortened.startswith("-")


@pytest.mark.parametrize(
    ("text", "value"),
    [("6.1.0-56-amd64", "6.1.0-56-amd64"), ("5.14.0+rt", "5.14.0_rt"), ("+a+", "a"), ("x" * 70, "x" * 63)],
)
def test_the_api_server_accepts_the_labels(text: str, value: str) -> None:
    assert label_value(text) == value
