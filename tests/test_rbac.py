"""deploy/rbac.yaml is enough, and nothing in it is too much: each verb taken away is missed."""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmm_preflight.cluster.api import Access
from kmm_preflight.cluster.fleet import read_fleet
from kmm_preflight.cluster.login import connect
from tests.clusters import (
    account,
    module,
    namespaces,
    one_line,
    openshift,
    pull_secret,
    requests_of,
    serve,
    serve_machines,
)
from tests.demo import DEMO, KERNEL
from tests.fleets import config, node, pool, rendered
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import PREFLIGHTS
from tests.runs import ROOT, Run, run_preflight

RBAC: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy" / "rbac.yaml").read_text()))
SUBJECT = "system:serviceaccount:kmm-preflight:kmm-preflight"
REQUIRED = (("list", "modules"), ("get", "secrets"), ("list", "serviceaccounts"))
OPTIONAL = (
    ("list", "imagedigestmirrorsets"),
    ("list", "imagetagmirrorsets"),
    ("list", "imagecontentsourcepolicies"),
    ("list", "clusterimagepolicies"),
    ("list", "imagepolicies"),
    ("get", "images"),
    ("get", "proxies"),
    ("get", "configmaps"),
)
OF_NODES = (
    ("list", "nodes"),
    ("list", "nodemodulesconfigs"),
    ("list", "machineconfigpools"),
    ("get", "machineconfigs"),
    ("list", "machineosconfigs"),
    ("get", "osimagestreams"),
    ("get", "clusterversions"),
)
# What making and answering a PreflightValidationOCP needs, and reading Modules does not.
OF_PREFLIGHTS = (
    ("get", "customresourcedefinitions"),
    ("get", "preflightvalidationsocp"),
    ("list", "deployments"),
    ("create", "preflightvalidationsocp"),
    ("patch", "preflightvalidationsocp/status"),
)
OF_OTHER_KINDS = {
    *(("list", f"{name}s") for name in ("bootmoduleconfig", "managedclustermodule", "managedcluster")),
    *((verb, "preflightvalidations") for verb in ("get", "create", "patch")),
    ("patch", "preflightvalidations/status"),
}
"""Kinds that the cluster of these tests does not serve."""
OF_THE_RECORD = ("patch", "preflightvalidationsocp")


VERSION = "kmm.node.kubernetes.io/version-module.demo.by-account"


def versioned() -> dict[str, Any]:
    """Return a Module in an ordered upgrade, which the node has."""
    manifest: dict[str, Any] = copy.deepcopy(dict(module("demo", "by-account")))
    manifest["spec"]["moduleLoader"]["container"]["version"] = "1"
    return manifest


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One that has something of each kind that is read."""
    folder = tmp_path_factory.mktemp("rbac")
    with Cluster(folder) as cluster:
        serve(cluster, folder)
        serve_machines(cluster, folder)
        cluster.apply_crds(PREFLIGHTS["list"])
        cluster.apply(
            *namespaces("demo", "openshift-config", "kmm-preflight"),
            module("demo", "own", secret="pull", build={"dockerfileConfigMap": {"name": "file"}}),
            versioned(),
            pull_secret("demo", "pull"),
            account("demo", "pull"),
            openshift("Image", "cluster", {"additionalTrustedCA": {"name": "authorities"}}),
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"namespace": "openshift-config", "name": "authorities"},
            },
            node("worker-0", "worker", kernel=KERNEL, labels={VERSION: "1"}),
            pool("worker", sources=["50-of-the-team"]),
            rendered("worker"),
            config("50-of-the-team"),
            *RBAC,
        )
        yield cluster


@pytest.fixture(scope="module")
def kubeconfig(cluster: Cluster) -> Path:
    """The account's own."""
    return cluster.service_account_kubeconfig("kmm-preflight", "kmm-preflight")


def granted() -> set[tuple[str, str]]:
    """Verbs and resources of all rules."""
    rules = [rule for one in RBAC for rule in one.get("rules", ())]
    return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}


def without(verb: str, resource: str) -> list[dict[str, Any]]:
    """The roles without one verb on one resource."""
    roles = copy.deepcopy([one for one in RBAC if "rules" in one])
    for role in roles:
        rules = []
        for rule in role["rules"]:
            for one in rule["resources"]:
                verbs = [known for known in rule["verbs"] if (known, one) != (verb, resource)]
                rules += [{**rule, "resources": [one], "verbs": verbs}] if verbs else []
        role["rules"] = rules
    return roles


def settled(cluster: Cluster, kubeconfig: Path, allowed: Mapping[tuple[str, str], bool]) -> None:
    """Wait until the authorizer has heard of changed roles."""
    groups = {
        "modules": "modules.kmm.sigs.x-k8s.io",
        "images": "images.config.openshift.io/cluster",
        "osimagestreams": "osimagestreams.machineconfiguration.openshift.io/cluster",
        "clusterversions": "clusterversions.config.openshift.io/version",
        "proxies": "proxies.config.openshift.io/cluster",
        "serviceaccounts": "serviceaccounts/default",
        "deployments": "deployments.apps/kmm-operator-controller",
        "customresourcedefinitions": "customresourcedefinitions/preflightvalidationsocp.kmm.sigs.x-k8s.io",
    }
    deadline = time.monotonic() + 10
    for (verb, resource), expected in allowed.items():
        place = ["-n", "openshift-config"] if resource in ("configmaps", "secrets") else ["-A"]
        resource, _, subresource = resource.partition("/")
        question = ["auth", "can-i", verb, groups.get(resource, resource), *place, f"--subresource={subresource}"]
        while (cluster.kubectl(*question, kubeconfig=kubeconfig).returncode == 0) is not expected:
            assert time.monotonic() < deadline, question
            time.sleep(0.05)


def preflight(tmp_path: Path, kubeconfig: Path, *options: str) -> Run:
    """A run as the account."""
    return run_preflight(tmp_path, *DEMO, f"--kubeconfig={kubeconfig}", "-n0", *options)


def answering(cluster: Cluster, tmp_path: Path, kubeconfig: Path) -> Run:
    """A run as the account that makes an object and answers it."""
    cluster.kubectl("delete", "preflightvalidationsocp", "--all")
    return preflight(tmp_path, kubeconfig, "--preflight=pf", "--create-preflight")


@pytest.fixture
def lacking(cluster: Cluster, kubeconfig: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The account has everything but this verb on this resource."""
    missing: tuple[str, str] = request.param
    cluster.apply(*without(*missing))
    settled(cluster, kubeconfig, {missing: False})
    yield missing
    cluster.apply(*(one for one in RBAC if "rules" in one))
    settled(cluster, kubeconfig, {missing: True})


def test_the_role_is_enough_and_all_of_it_is_used(tmp_path: Path, cluster: Cluster, kubeconfig: Path) -> None:
    settled(cluster, kubeconfig, {REQUIRED[0]: True, OPTIONAL[-1]: True})
    cluster.forget()
    run = preflight(tmp_path, kubeconfig)
    assert run.returncode == 0, run.output
    assert not any("could not be read" in said for said in run.document["assumed"])
    assert {event.code for event in cluster.requests() if event.user == SUBJECT} <= {200, 404}
    used = {(verb, resource) for verb, resource, *_ in requests_of(cluster, SUBJECT)}
    of_preflights = {*OF_PREFLIGHTS, OF_THE_RECORD}
    assert used == granted() - of_preflights - OF_OTHER_KINDS == {*REQUIRED, *OPTIONAL, *OF_NODES}
    settled(cluster, kubeconfig, dict.fromkeys(of_preflights, True))
    cluster.forget()
    run = answering(cluster, tmp_path, kubeconfig)
    assert run.returncode == 0, run.output
    assert "pf shows these verdicts" in run.document["answered"]
    assert "could not be written" not in run.document["answered"]
    used = {
        (event.verb, f"{event.resource}/{event.subresource}" if event.subresource else event.resource)
        for event in cluster.requests()
        if event.user == SUBJECT and event.resource
    }
    assert used == granted() - OF_OTHER_KINDS


@pytest.mark.parametrize("lacking", [*OF_PREFLIGHTS, ("get", "configmaps")], indirect=True, ids=" ".join)
def test_without_a_verb_that_answering_needs_it_says_so(
    tmp_path: Path, cluster: Cluster, kubeconfig: Path, lacking: tuple[str, str]
) -> None:
    verb, resource = lacking
    run = answering(cluster, tmp_path, kubeconfig)
    assert run.returncode == 4, run.output
    line = one_line(run, verb, resource.partition("/")[0], f"as {SUBJECT}", f'cannot {verb} resource "{resource}"')
    assert line.endswith("grant the verb, see deploy/rbac.yaml")


@pytest.mark.parametrize("lacking", [OF_THE_RECORD], indirect=True, ids=" ".join)
def test_without_the_record_it_answers_all_the_same_and_says_so(
    tmp_path: Path, cluster: Cluster, kubeconfig: Path, lacking: tuple[str, str]
) -> None:
    run = answering(cluster, tmp_path, kubeconfig)
    assert run.returncode == 0, run.output
    assert "the record for a later run could not be written: " in run.document["answered"]
    assert f"patch preflightvalidationsocp.kmm.sigs.x-k8s.io as {SUBJECT}" in run.document["answered"]


@pytest.mark.parametrize("lacking", REQUIRED, indirect=True, ids=" ".join)
def test_without_a_verb_that_is_needed_it_says_so(tmp_path: Path, kubeconfig: Path, lacking: tuple[str, str]) -> None:
    verb, resource = lacking
    run = preflight(tmp_path, kubeconfig)
    assert run.returncode == 4, run.output
    line = one_line(run, f"{verb} {resource}", f"as {SUBJECT}", f'cannot {verb} resource "{resource}"')
    assert line.endswith("grant the verb, see deploy/rbac.yaml")


@pytest.mark.parametrize("lacking", OPTIONAL, indirect=True, ids=" ".join)
def test_without_an_optional_verb_it_goes_on_and_says_so(
    tmp_path: Path, kubeconfig: Path, lacking: tuple[str, str]
) -> None:
    verb, resource = lacking
    run = preflight(tmp_path, kubeconfig)
    assert run.returncode == 0, run.output
    (said,) = [said for said in run.document["assumed"] if "could not be read" in said]
    assert f"{verb} {resource}" in said
    assert f"as {SUBJECT}" in said
    assert f"{verb} {resource}" in (tmp_path / "artifacts" / "preflight.html").read_text()


@pytest.mark.parametrize("lacking", OF_NODES, indirect=True, ids=" ".join)
def test_without_a_verb_on_what_tells_of_nodes_it_goes_on_and_says_so(
    kubeconfig: Path, lacking: tuple[str, str]
) -> None:
    verb, resource = lacking
    fleet = read_fleet(connect(Access((kubeconfig,))), ordered=True)
    assert fleet.known is (resource != "nodes")
    (said,) = fleet.assumed
    assert re.search(rf", because {resource}[\w.-]* could not be read: .*: {verb} {resource}.* as {SUBJECT}", said)


def test_the_example_is_what_kubectl_takes(cluster: Cluster) -> None:
    done = cluster.kubectl("apply", "--dry-run=server", "-f", str(ROOT / "deploy" / "rbac.yaml"), "-o", "json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["items"]) == len(RBAC)
