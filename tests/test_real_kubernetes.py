"""The real API server itself: a test that leans on a broken one would prove nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import urllib3

from .real.kubernetes.binaries import COMMAND, assets
from .real.kubernetes.cluster import Cluster
from .real.kubernetes.definitions import MODULES, PREFLIGHTS, RELEASED, released

MODULE = {
    "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
    "kind": "Module",
    "metadata": {"name": "probe", "namespace": "default"},
    "spec": {
        "selector": {},
        "moduleLoader": {
            "container": {
                "modprobe": {"moduleName": "probe"},
                "kernelMappings": [{"regexp": ".", "containerImage": "registry.example/probe:1"}],
            }
        },
    },
}
ENTRY = {"verificationStatus": "True", "verificationStage": "Done", "lastTransitionTime": "2026-01-02T03:04:05Z"}
LATER_ENTRY = ENTRY | {"verificationStatus": "Success"}
NAMED = {"namespace": "default", "name": "probe"}
# By generation: the version through which the status is written, the spec, the status, and a wrong one.
GENERATIONS = {
    "seed": (
        "v1beta1",
        {"releaseImage": "registry.example/release:1"},
        {"crStatuses": {"probe": ENTRY}},
        {"crStatuses": {"probe": LATER_ENTRY}},
    ),
    "list": (
        "v1beta2",
        {"releaseImage": "registry.example/release:1"},
        {"modules": [NAMED | ENTRY]},
        {"modules": [NAMED | ENTRY, NAMED | ENTRY]},
    ),
    "later": (
        "v1beta2",
        {"kernelVersion": "6.1.0-1-amd64"},
        {"modules": [NAMED | LATER_ENTRY]},
        {"modules": [NAMED | LATER_ENTRY | {"verificationStage": "Build"}]},
    ),
}
ROOT = Path(__file__).parent.parent
ENDLESS = """
import sys, time
from pathlib import Path
from tests.real.kubernetes.cluster import Cluster

with Cluster(Path(sys.argv[1])) as cluster:
    print(*cluster.pids, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all tests of the file that do not end it."""
    with Cluster(tmp_path_factory.mktemp("kubernetes")) as cluster:
        yield cluster


@pytest.fixture
def bare(cluster: Cluster) -> Cluster:
    """The same without any definition."""
    cluster.remove_crds()
    return cluster


def told(cluster: Cluster, *args: str, kubeconfig: Path | None = None) -> str:
    """What a kubectl that must succeed prints."""
    done = cluster.kubectl(*args, kubeconfig=kubeconfig)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kubectl_and_server_answer(cluster: Cluster) -> None:
    versions = json.loads(told(cluster, "version", "-o", "json"))
    assert {versions[one]["gitVersion"][:3] for one in ("clientVersion", "serverVersion")} == {"v1."}
    assert "namespace/default" in told(cluster, "get", "namespaces", "-o", "name").split()


@pytest.mark.parametrize("generation", sorted(PREFLIGHTS))
def test_module_and_preflight_have_the_status_of_their_generation(bare: Cluster, generation: str) -> None:
    version, spec, status, wrong = GENERATIONS[generation]
    bare.apply_crds(MODULES, PREFLIGHTS[generation])
    preflight = {"apiVersion": f"kmm.sigs.x-k8s.io/{version}", "kind": "PreflightValidationOCP", "spec": spec}
    bare.apply(MODULE, preflight | {"metadata": {"name": "next"}, "status": status})
    module = json.loads(told(bare, "get", "modules.kmm.sigs.x-k8s.io", "probe", "-o", "json"))
    assert module["spec"]["moduleLoader"]["container"]["modprobe"] == {"moduleName": "probe", "dirName": "/opt"}
    resource = f"preflightvalidationsocp.{version}.kmm.sigs.x-k8s.io"
    assert "status" not in json.loads(told(bare, "get", resource, "next", "-o", "json"))
    patch = ["patch", resource, "next", "--subresource=status", "--type=merge", "-p"]
    told(bare, *patch, json.dumps({"status": status}))
    assert json.loads(told(bare, "get", resource, "next", "-o", "json"))["status"] == status
    refused = bare.kubectl(*patch, json.dumps({"status": wrong}))
    assert refused.returncode == 1
    assert "is invalid: status." in refused.stderr


def test_another_generation_refuses_the_spec(bare: Cluster) -> None:
    bare.apply_crds(PREFLIGHTS["later"])
    _, spec, *_ = GENERATIONS["list"]
    kind = {"apiVersion": "kmm.sigs.x-k8s.io/v1beta2", "kind": "PreflightValidationOCP"}
    preflight = json.dumps(kind | {"metadata": {"name": "next"}, "spec": spec})
    refused = bare.kubectl("create", "--validate=false", "-f", "-", input=preflight)
    assert refused.returncode == 1
    assert "spec.kernelVersion: Required value" in refused.stderr


@pytest.mark.parametrize("name", RELEASED)
def test_released_definitions_are_served(bare: Cluster, name: str) -> None:
    folder = released(name)
    bare.apply_crds(folder)
    crds = told(bare, "get", "crd", "-o", "jsonpath={.items[*].metadata.name}").split()
    assert len(crds) == len(list(folder.glob("*.yaml")))
    for crd in crds:
        assert not told(bare, "get", crd, "--all-namespaces")


def test_rbac_decides_for_accounts_and_users(cluster: Cluster) -> None:
    account = cluster.service_account_kubeconfig("team", "reader")
    user = cluster.kubeconfig("somebody", groups=["readers"])
    reading = ["get", "secrets", "--namespace=team"]
    for kubeconfig, name in ((account, "system:serviceaccount:team:reader"), (user, "somebody")):
        refused = cluster.kubectl(*reading, kubeconfig=kubeconfig)
        assert refused.returncode == 1
        assert f'User "{name}" cannot list resource "secrets"' in refused.stderr
    subjects = [
        {"kind": "ServiceAccount", "name": "reader", "namespace": "team"},
        {"kind": "Group", "name": "readers", "apiGroup": "rbac.authorization.k8s.io"},
    ]
    rbac, place = "rbac.authorization.k8s.io", {"metadata": {"name": "read", "namespace": "team"}}
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}
    to = {"apiGroup": rbac, "kind": "Role", "name": "read"}
    cluster.apply(
        {"apiVersion": f"{rbac}/v1", "kind": "Role", **place, "rules": [rule]},
        {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", **place, "roleRef": to, "subjects": subjects},
    )
    for kubeconfig in (account, user):
        # The authorizer hears of a new binding a little later than its author.
        eventually(partial(allowed, cluster, *reading, kubeconfig=kubeconfig))
    refused = cluster.kubectl("create", "secret", "generic", "s", "--namespace=team", kubeconfig=account)
    assert 'cannot create resource "secrets"' in refused.stderr


def test_requests_are_counted(cluster: Cluster) -> None:
    counted = cluster.kubeconfig("counted", groups=[])
    told(cluster, "get", "--raw", "/api")
    cluster.forget()
    assert cluster.requests() == []
    for _ in range(3):
        cluster.kubectl("get", "--raw", "/api/v1/namespaces/default/pods/p/log?limitBytes=1", kubeconfig=counted)
    told(cluster, "get", "--raw", "/api/v1/nodes?limit=500")
    first, second, third, last = cluster.requests()
    assert first == second == third
    assert (first.verb, first.resource, first.subresource, first.code) == ("get", "pods", "log", 403)
    assert (first.namespace, first.name, first.user) == ("default", "p", "counted")
    assert (last.verb, last.resource, last.user, last.code) == ("list", "nodes", "admin", 200)
    assert last.uri == "/api/v1/nodes?limit=500"
    cluster.forget()
    assert cluster.requests() == []


def test_stopped_and_started_it_has_kept_all(cluster: Cluster) -> None:
    name = {"metadata": {"name": "kept", "namespace": "default"}}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", **name, "data": {"key": "value"}})
    account = cluster.service_account_kubeconfig("team", "restarted")
    url = cluster.url
    watch = ["get", "--raw", "/api/v1/configmaps?watch=true"]
    watching = threading.Thread(target=cluster.kubectl, args=watch)
    cluster.forget()
    watching.start()
    eventually(lambda: [event.verb for event in cluster.requests()] == ["watch"])
    cluster.stop()
    watching.join(60)
    assert not watching.is_alive()
    assert [event.verb for event in cluster.requests()] == ["watch"]
    refused = cluster.kubectl("get", "--raw", "/readyz")
    assert refused.returncode == 1
    assert f"The connection to the server {url.removeprefix('https://')} was refused" in refused.stderr
    starter = threading.Thread(target=cluster.start)
    starter.start()
    starter.join()
    assert cluster.url == url
    assert told(cluster, "get", "configmap", "kept", "-o", "jsonpath={.data.key}") == "value"
    assert "restarted" in told(cluster, "auth", "whoami", kubeconfig=account)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        pids, url = cluster.pids, cluster.url
        assert all(running(pid) for pid in pids)
    assert not any(running(pid) for pid in pids)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.request("GET", url, retries=False, timeout=2)


def test_programs_die_with_a_killed_test(tmp_path: Path) -> None:
    assets()
    command = [sys.executable, "-c", ENDLESS, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            pids = [int(pid) for pid in process.stdout.readline().split()]
        finally:
            process.send_signal(signal.SIGKILL)
    assert len(pids) == 2
    eventually(lambda: not any(running(pid) for pid in pids))


def test_without_programs_a_test_is_skipped_and_told_how_to_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.delenv("PREFLIGHT_REAL_PARTS", raising=False)
    monkeypatch.setenv("PREFLIGHT_TEST_CACHE", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match=COMMAND):
        assets()


def test_given_programs_are_taken_but_an_old_kubectl_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, version in (("given", "v1.20.2"), ("elsewhere", "v1.30.0")):
        (tmp_path / folder).mkdir()
        for name in ("etcd", "kube-apiserver", "kubectl"):
            program = tmp_path / folder / name
            program.write_text(f'#!/bin/sh\necho \'{{"clientVersion": {{"gitVersion": "{version}"}}}}\'\n')
            program.chmod(0o755)
    given, elsewhere = tmp_path / "given", tmp_path / "elsewhere"
    monkeypatch.setenv("PREFLIGHT_TEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{elsewhere}:{os.environ['PATH']}")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(elsewhere))
    assert assets() == elsewhere
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(given))
    found = {path.name: path.resolve() for path in assets().iterdir()}
    assert found == {
        "etcd": given / "etcd",
        "kube-apiserver": given / "kube-apiserver",
        "kubectl": elsewhere / "kubectl",
    }


def allowed(cluster: Cluster, *args: str, kubeconfig: Path) -> bool:
    """Whether kubectl succeeds."""
    return cluster.kubectl(*args, kubeconfig=kubeconfig).returncode == 0


def running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(met: Callable[[], bool], within_s: float = 60) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + within_s
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)
