"""The real node itself: Jobs run on it, their logs and files are had, and a Pod without privileges builds an image."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .clusters import namespaces
from .real.builder_image import push_builder_image
from .real.kubernetes.apart import cgroups, remove_cgroups
from .real.kubernetes.binaries import COMMAND
from .real.kubernetes.real_node import RealNode, cluster_with_node, need_node
from .real.kubernetes.runtime import busybox_image
from .real.push import push
from .real.registry import Registry
from .test_real_kubernetes import ROOT, eventually, running, told

SHELL = ["/bin/busybox", "sh", "-c"]
BUILD = """
set -e
buildah bud --isolation=chroot --tls-verify=false --tag "$IMAGE" /context
buildah push --tls-verify=false "$IMAGE"
"""
# The shell's wget does not speak the TLS of the API server, which answers those who speak none, too.
ASK = """
cd /var/run/secrets/kubernetes.io/serviceaccount
[ -s token ] && /bin/busybox cat namespace
/bin/busybox printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /bin/busybox nc "$KUBERNETES_SERVICE_HOST" "$KUBERNETES_SERVICE_PORT"
"""
# What building takes without being privileged: owners and modes of the files, and a change of root for RUN.
CAPABILITIES = ["SYS_CHROOT", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "SETFCAP"]
ENDLESS = """
import sys, time
from pathlib import Path
from tests.real.kubernetes.real_node import cluster_with_node

with cluster_with_node(Path(sys.argv[1])) as node:
    print(*node.pids, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def small(plain_registry: Registry, login_registry: Registry) -> str:
    """The repository and tag of an image with a shell, in both registries."""
    for registry in (plain_registry, login_registry):
        push(registry, "small", "1", busybox_image())
    return "small:1"


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, plain_registry: Registry, login_registry: Registry
) -> Iterator[RealNode]:
    """One for all tests of the file; when it has ended nothing of it is left on the machine."""
    need_node()
    folder = tmp_path_factory.mktemp("node")
    before = traces(folder)
    with cluster_with_node(folder, plain_registry, login_registry) as node:
        node.cluster.apply(*namespaces("team"))
        # The controllers make it a little later, and without it no Pod is taken.
        eventually(lambda: bool(node.cluster.read("/api/v1/namespaces/team/serviceaccounts/default")))
        yield node
    assert list(folder.iterdir()) == []
    assert traces(folder) == before
    assert [path for path in cgroups(node.folder) if path.exists()] == []


@pytest.fixture(scope="module")
def jobs(
    node: RealNode,
    plain_registry: Registry,
    login_registry: Registry,
    small: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Several Jobs and a Pod that waits, at the same time."""
    logins = login_registry.authfile(tmp_path_factory.mktemp("logins") / "auth.json").read_text()
    kind = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson"}
    where = {"metadata": {"name": "pull", "namespace": "team"}}
    node.cluster.apply({**kind, **where, "stringData": {".dockerconfigjson": logins}})
    public = partial(container, f"{plain_registry.host}/{small}")
    private = container(f"{login_registry.host}/{small}", "true")
    environment = [{"name": name, "value": value} for name, value in node.api_environment.items()]
    node.cluster.apply(
        job("says", public("echo said; echo more >&2")),
        job("fails", public("exit 3")),
        job("pulls", private, imagePullSecrets=[{"name": "pull"}]),
        job("lacks", private),
        job("asks", public(ASK, env=environment)),
        pod("waits", public("echo made >/file; sleep 600")),
    )


@pytest.mark.usefixtures("jobs")
def test_a_job_runs_to_its_end_and_has_logs(node: RealNode) -> None:
    assert node.job_ended("team", "says") == "Complete"
    # It is the Pod that the Job describes: nobody has put it on the machine's network.
    assert "hostNetwork" not in node.pod_of_job("team", "says")["spec"]
    assert sorted(told(node.cluster, "logs", "--namespace=team", "job/says").split()) == ["more", "said"]


@pytest.mark.usefixtures("jobs")
def test_a_job_that_fails_has_failed(node: RealNode) -> None:
    assert node.job_ended("team", "fails") == "Failed"
    (status,) = node.pod_of_job("team", "fails")["status"]["containerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == 3


@pytest.mark.usefixtures("jobs")
def test_a_file_is_had_by_exec(node: RealNode) -> None:
    node.pod_phase("team", "waits", "Running")
    read = partial(told, node.cluster, "exec", "--namespace=team", "waits", "--", "/bin/busybox")
    eventually(lambda: "file" in read("ls", "/").split())
    assert read("cat", "/file") == "made\n"
    refused = node.cluster.kubectl("exec", "--namespace=team", "waits", "--", "/bin/busybox", "false")
    assert refused.returncode == 1


@pytest.mark.usefixtures("jobs")
def test_a_private_registry_wants_its_secret(node: RealNode) -> None:
    assert node.job_ended("team", "pulls") == "Complete"
    eventually(lambda: waiting(node, "lacks") in ("ErrImagePull", "ImagePullBackOff"))


@pytest.mark.usefixtures("jobs")
def test_a_pod_has_a_token_and_reaches_the_api_server(node: RealNode) -> None:
    assert node.job_ended("team", "asks") == "Complete"
    log = told(node.cluster, "logs", "--namespace=team", "job/asks")
    assert "Client sent an HTTP request to an HTTPS server" in log
    assert log.startswith("team")


def test_a_pod_without_privileges_builds_and_pushes_an_image(
    node: RealNode, plain_registry: Registry, small: str
) -> None:
    made = f"{plain_registry.host}/made:1"
    recipe = f"FROM {plain_registry.host}/{small}\nRUN id -u >/made && chown 7:8 /made\n"
    where = {"metadata": {"name": "context", "namespace": "team"}}
    node.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", **where, "data": {"Containerfile": recipe}})
    builder = {
        "name": "builder",
        "image": push_builder_image(plain_registry),
        "command": ["/bin/sh", "-c", BUILD],
        "env": [{"name": "IMAGE", "value": made}, {"name": "STORAGE_DRIVER", "value": "vfs"}],
        "securityContext": {"capabilities": {"drop": ["ALL"], "add": CAPABILITIES}},
        "volumeMounts": [
            {"name": "context", "mountPath": "/context"},
            {"name": "storage", "mountPath": "/var/lib/containers"},
        ],
    }
    volumes = [{"name": "context", "configMap": {"name": "context"}}, {"name": "storage", "emptyDir": {}}]
    node.cluster.apply(job("builds", builder, volumes=volumes))
    ended = node.job_ended("team", "builds", 180)
    assert ended == "Complete", told(node.cluster, "logs", "--namespace=team", "job/builds")
    node.cluster.apply(job("shows", container(made, "cat /made; stat -c %u:%g /made")))
    assert node.job_ended("team", "shows") == "Complete"
    assert told(node.cluster, "logs", "--namespace=team", "job/shows").split() == ["0", "7:8"]


def test_all_ends_with_a_killed_test(tmp_path: Path) -> None:
    need_node()
    before = traces(tmp_path)
    command = [sys.executable, "-c", ENDLESS, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            pids = [int(pid) for pid in process.stdout.readline().split()]
        finally:
            process.send_signal(signal.SIGKILL)
    assert len(pids) == 3
    eventually(lambda: not any(running(pid) for pid in pids))
    eventually(lambda: traces(tmp_path) == before)
    (folder,) = tmp_path.glob("node-*")
    remove_cgroups(folder)


def test_without_programs_a_test_is_skipped_and_told_how_to_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_node()
    monkeypatch.delenv("PREFLIGHT_REAL_PARTS", raising=False)
    monkeypatch.setenv("PREFLIGHT_TEST_CACHE", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match=COMMAND):
        need_node()


def container(reference: str, script: str, **more: object) -> Mapping[str, object]:
    """A container of the small image that runs a script of shell."""
    return {"name": "main", "image": reference, "command": [*SHELL, script], **more}


def pod(name: str, one: Mapping[str, object]) -> Mapping[str, object]:
    """A Pod of the one container."""
    where = {"metadata": {"name": name, "namespace": "team"}}
    return {"apiVersion": "v1", "kind": "Pod", **where, "spec": {"restartPolicy": "Never", "containers": [one]}}


def job(name: str, one: Mapping[str, object], **more: object) -> Mapping[str, object]:
    """A Job with one try at the one container."""
    spec = {"restartPolicy": "Never", "containers": [one], **more}
    where = {"metadata": {"name": name, "namespace": "team"}}
    return {"apiVersion": "batch/v1", "kind": "Job", **where, "spec": {"backoffLimit": 0, "template": {"spec": spec}}}


def waiting(node: RealNode, name: str) -> str:
    """For what the container of a Job's Pod waits."""
    statuses = node.pod_of_job("team", name)["status"].get("containerStatuses", [{}])
    return str(statuses[0].get("state", {}).get("waiting", {}).get("reason", ""))


def traces(folder: Path) -> dict[str, Any]:
    """What a node in the folder could leave on the machine, which others use meanwhile."""
    settings = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
    places = (
        "/run/containerd",
        "/run/netns",
        "/var/lib/cni",
        "/var/lib/kubelet",
        "/var/log/containers",
        "/var/log/pods",
    )
    return {
        "processes": [pid for pid in os.listdir("/proc") if pid.isdigit() and str(folder) in command_line(pid)],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line],
        "places": [place for place in places if Path(place).exists()],
        "settings": [Path("/proc/sys", name).read_text() for name in settings],
    }


def command_line(pid: str) -> str:
    """The command of a process, empty when it is gone."""
    try:
        return Path("/proc", pid, "cmdline").read_text()
    except OSError:
        return ""
