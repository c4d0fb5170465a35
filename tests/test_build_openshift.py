"""Builds by OpenShift's own: the objects as KMM makes them, how each end is taken, what is adopted and what deleted.

The API server is a real one; the phases are played by tests/real/kubernetes/build_controller.py.
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
# What kubectl itself asks.
REVIEWS = {("create", "selfsubjectaccessreviews"), ("get", "")}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One that serves Builds."""
    with Cluster(tmp_path_factory.mktemp("builds")) as cluster:
        cluster.apply_crds(DEFINITION, PREFLIGHTS["list"])
        cluster.apply(*namespaces("demo"))
        yield cluster


@pytest.fixture(scope="module")
def controller(cluster: Cluster) -> Iterator[BuildController]:
    """The one of the cluster, which does nothing until it is told to."""
    with BuildController(cluster, nothing) as controller:
        yield controller


@pytest.fixture
def api(cluster: Cluster, controller: BuildController) -> Iterator[Api]:
    """As the admin; nothing is left afterwards."""
    assert controller
    api = as_client(cluster.kubeconfig())
    yield api
    clean_up(api, (BUILDS, JOBS), datetime.now(UTC), everything=True)


@pytest.fixture
def builder(api: Api) -> OpenShiftBuilder:
    """Without an owner."""
    return OpenShiftBuilder(api, OpenShiftSettings())


def as_client(kubeconfig: Path, seconds: float = 60) -> Api:
    """The API server, as the option --kubeconfig gives it."""
    return connect(Access((kubeconfig,), "--kubeconfig", None, seconds))


@contextmanager
def playing(controller: BuildController, *acts: Act) -> Iterator[None]:
    """Each Build goes like this for a while; otherwise nothing becomes of any."""
    controller.acts = lambda _: acts
    yield
    controller.acts = nothing


def nothing(_: Mapping[str, Any]) -> Sequence[Act]:
    """As without a controller."""
    return ()


def found(api: Api, kind: ResourceKind = BUILDS, request: BuildRequest = REQUEST) -> dict[str, Any]:
    """The request's object."""
    manifest = api.get(kind, object_name(request.id), request.plan.module.namespace)
    assert manifest
    return dict(manifest)


def made_and_ended(builder: OpenShiftBuilder, request: BuildRequest = REQUEST) -> tuple[BuildResult, list[str]]:
    """The end of a build, and what was told meanwhile."""
    told: list[str] = []
    builder.start(request)
    return builder.result(request, told.append), told


def told_of(built: BuildResult) -> tuple[str, str]:
    """Id and sentence of what speaks against a build."""
    assert built.finding
    return built.finding.id, built.finding.sentence


def test_it_is_the_object_that_kmm_makes(cluster: Cluster, api: Api) -> None:
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
    build = found(api)
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


def test_without_a_push_and_a_secret_there_is_no_output_and_no_pull_secret(api: Api, builder: OpenShiftBuilder) -> None:
    request = replace(REQUEST, push=False, plan=replace(PLAN, secret=None), secrets=(), selector=(), stage=Stage.SIGN)
    builder.start(request)
    build = found(api)
    assert build["spec"]["output"] == {}
    assert set(build["spec"]["strategy"]["dockerStrategy"]) == {"buildArgs", "volumes"}
    assert "nodeSelector" not in build["spec"]
    assert build["metadata"]["labels"]["kmm.openshift.io/build.type"] == "sign"


@pytest.mark.parametrize("push", [True, False])
def test_a_build_that_ends_well(controller: BuildController, api: Api, builder: OpenShiftBuilder, push: bool) -> None:
    request, told = replace(REQUEST, push=push), list[str]()
    with playing(controller):
        # It completes once it was seen to run: the builder looks at it more rarely than a quick one changes.
        controller.acts = lambda _: (PENDING, RUNNING, *((COMPLETE,) if "Running" in told else ()))
        builder.start(request)
        built = builder.result(request, told.append)
    assert built == BuildResult(image=PLAN.image_name if push else None, pushed=push)
    assert told[-1] == "Running"
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
            "got no end within 20 s",
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
def test_a_build_that_ends_badly(
    controller: BuildController, api: Api, builder: OpenShiftBuilder, act: Act, finding: str, words: str
) -> None:
    snippet = f"probe.c:1: error: no such thing\ntoken {PASSWORD}\n"
    ending = replace(act, status={**act.status, "logSnippet": snippet})
    with playing(controller, PENDING, RUNNING, ending):
        built, _ = made_and_ended(builder)
    id, sentence = told_of(built)
    assert id == finding
    assert words in sentence
    assert built.finding
    assert built.finding.lines == ("probe.c:1: error: no such thing", "token ***")
    assert PASSWORD not in built.log
    assert (built.image, built.pushed) == (None, False)
    assert api.get(BUILDS, REQUEST.id, "demo") is None


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}


@pytest.mark.parametrize(
    ("act", "finding", "words"),
    [
        pytest.param(RUNNING, "build-timeout", "got no end within 3 s", id="running"),
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
def test_at_its_deadline_a_build_is_stopped(
    controller: BuildController, api: Api, builder: OpenShiftBuilder, act: Act, finding: str, words: str
) -> None:
    began = time.monotonic()
    with playing(controller, act):
        built, told = made_and_ended(builder, replace(REQUEST, timeout=3))
    assert 3 <= time.monotonic() - began < 20
    id, sentence = told_of(built)
    assert id == finding
    assert words in sentence
    assert finding == "build-timeout" or any(words.partition("(")[2].partition(")")[0] in one for one in told)
    assert api.get(BUILDS, REQUEST.id, "demo") is None


def test_a_build_that_somebody_deletes(cluster: Cluster, builder: OpenShiftBuilder) -> None:
    builder.start(REQUEST)
    cluster.kubectl("delete", "builds.build.openshift.io", REQUEST.id, "-n", "demo")
    id, sentence = told_of(builder.result(REQUEST, print))
    assert id == "builder-failed"
    assert f"Build demo/{REQUEST.id}: it was deleted before its end" in sentence


def test_what_goes_on_is_adopted_and_anything_else_replaced(
    cluster: Cluster, api: Api, builder: OpenShiftBuilder
) -> None:
    uids = []
    for request in (REQUEST, REQUEST, replace(REQUEST, dockerfile="FROM other\n"), replace(REQUEST, push=False)):
        builder.start(request)
        uids.append(found(api)["metadata"]["uid"])
    assert uids[0] == uids[1]
    assert len(set(uids)) == 3
    for phase in ("Complete", "Failed"):
        patch = f'--patch={{"status":{{"phase":"{phase}"}}}}'
        assert cluster.kubectl("patch", "builds", REQUEST.id, "-n", "demo", "--type=merge", patch).returncode == 0
        builder.start(replace(REQUEST, push=False))
        build = found(api)
        assert build["metadata"]["uid"] not in uids
        assert "status" not in build
        uids.append(build["metadata"]["uid"])
    assert len(api.list(BUILDS) or ()) == 1


def test_an_object_of_somebody_else_is_left_alone(cluster: Cluster, api: Api, builder: OpenShiftBuilder) -> None:
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
        assert found(api)["spec"] == {"strategy": {"type": "Docker"}}
    finally:
        cluster.kubectl("delete", "builds", REQUEST.id, "-n", "demo")


def test_what_is_left_of_builds_is_deleted_and_named(cluster: Cluster, api: Api, builder: OpenShiftBuilder) -> None:
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


def test_builds_are_served_or_not(cluster: Cluster, api: Api) -> None:
    assert api.serves(BUILDS)
    assert api.serves(JOBS)
    assert not api.serves(replace(BUILDS, plural="buildconfigs"))
    assert not api.serves(replace(BUILDS, version="v2"))
    nowhere = replace(BUILDS, group="build.example.io")
    assert not api.serves(nowhere)
    assert clean_up(api, (nowhere,), datetime.now(UTC), everything=True) == ()


def test_an_account_that_may_not_is_told_which_verb(cluster: Cluster) -> None:
    builder = OpenShiftBuilder(as_client(cluster.kubeconfig("nobody", groups=[])), OpenShiftSettings())
    with pytest.raises(Forbidden, match=r"get builds\.build\.openshift\.io as .*deploy/rbac-builds\.yaml"):
        builder.start(REQUEST)


def test_the_role_is_enough_and_all_of_it_is_used(cluster: Cluster, controller: BuildController, api: Api) -> None:
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
        built, _ = made_and_ended(OpenShiftBuilder(account, OpenShiftSettings()))
    assert clean_up(account, (BUILDS,), datetime.now(UTC), everything=True) == ()
    assert built.pushed
    events = [
        event for event in cluster.requests() if event.user == "system:serviceaccount:kmm-preflight:kmm-preflight"
    ]
    assert 403 not in {event.code for event in events}
    assert {(one.verb, "/".join(filter(None, (one.resource, one.subresource)))) for one in events} - REVIEWS == granted
    assert api


def test_a_lost_api_server_is_trouble_and_the_build_goes_on(
    cluster: Cluster, controller: BuildController, api: Api
) -> None:
    builder = OpenShiftBuilder(as_client(cluster.kubeconfig(), seconds=1), OpenShiftSettings())
    with playing(controller, PENDING, RUNNING):
        builder.start(REQUEST)
        uid = found(api)["metadata"]["uid"]
        cluster.stop()
        try:
            with pytest.raises(Unreachable, match="got no answer"):
                builder.result(REQUEST, print)
        finally:
            cluster.start()
    builder.start(REQUEST)
    assert found(api)["metadata"]["uid"] == uid
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
def test_names_are_what_the_api_server_takes(id: str, name: str) -> None:
    given = object_name(id)
    assert given.startswith(name)
    assert len(given) <= 57
    assert object_name(id) == given
    assert object_name(f"{id}x") != given
    assert not given.startswith("-")


@pytest.mark.parametrize(
    ("text", "value"),
    [("6.1.0-56-amd64", "6.1.0-56-amd64"), ("5.14.0+rt", "5.14.0_rt"), ("+a+", "a"), ("x" * 70, "x" * 63)],
)
def test_labels_are_what_the_api_server_takes(text: str, value: str) -> None:
    assert label_value(text) == value
