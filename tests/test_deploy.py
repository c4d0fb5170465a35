"""The image and the manifests of deploy/, tried as far as this goes without a kubelet.

The image is built by its Containerfile, on a base of Debian's packages. A real API server takes the manifests by the
commands of docs/running-inside.md in a namespace that enforces the restricted Pod security; Kubernetes' own controller
of Jobs makes the Pods; podman runs them as the arbitrary user that OpenShift would give them, with the account's token
and the manifest's volumes and limits, and the test reports the exit code to the cluster.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from kmm_preflight.stages import report
from tests.clusters import account, demo_manifests, module, namespaces, requests_of, serve
from tests.demo import KERNEL, RELEASE
from tests.inside import NAMESPACE, PATIENCE_S, Inside
from tests.pages import block
from tests.real.container import Containers
from tests.real.faults import FOREVER_S, MANIFESTS, Fault, FaultyRegistry
from tests.real.kubernetes.binaries import assets, job_controller
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.node import Ended, Node
from tests.real.kubernetes.program import Program
from tests.real.python_base import python_base, wheels
from tests.runs import ROOT
from tests.wheel import build_wheel

DEPLOY = ROOT / "deploy"
PAGE = "running-inside.md"
JOB: dict[str, Any] = yaml.safe_load((DEPLOY / "job.yaml").read_text())
CRONJOB: dict[str, Any] = yaml.safe_load((DEPLOY / "cronjob.yaml").read_text())
REQUIREMENTS = DEPLOY / "requirements.txt"
IMAGE = "registry.example/kmm-preflight:0.1.0"
BUILD_PACKAGES = ("hatchling>=1.27", "pathspec", "tomlkit", "trove-classifiers")
"""What builds the wheel, besides packages that a run needs, too."""
OFFLINE = "[global]\nno-index = true\nfind-links = /wheels\n"
SUBJECT = "system:serviceaccount:kmm-preflight:kmm-preflight"
VERIFIED = "Every Module is verified on every target kernel: 2 Modules (2 Module and kernel pairs)."
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
KILLED = 137
INTERNAL = int(pytest.ExitCode.INTERNAL_ERROR)
FINAL = (report.EXIT_REFUTED, INTERNAL, report.EXIT_USAGE, report.EXIT_NOTHING)
REPORTS = {"preflight.json", "junit_preflight.xml", "preflight.html", "status-patch.yaml"}


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """A storage with the image of the checkout."""
    folder = tmp_path_factory.mktemp("image")
    with Containers(folder) as containers:
        base = python_base()
        (folder / "pip.conf").write_text(OFFLINE)
        options = [
            f"--build-arg=BASE=oci-archive:{base.archive}",
            f"--volume={wheels(REQUIREMENTS, BUILD_PACKAGES, base.version)}:/wheels:ro",
            f"--volume={folder / 'pip.conf'}:/etc/pip.conf:ro",
        ]
        containers.build(ROOT, IMAGE, options)
        yield containers


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory, containers: Containers) -> Iterator[Inside]:
    """A cluster with the Modules of the demo, in which the page's commands have made the account and the Job."""
    folder = tmp_path_factory.mktemp("inside")
    with Cluster(folder) as cluster:
        serve(cluster, folder)
        cluster.apply(*namespaces("demo", "storage", "openshift-config"), *demo_manifests("modules"))
        # The demo stands for the registries; it is no part of what is deployed.
        registries = [f"--volume={ROOT / 'demo'}:/demo:ro", "--env=PREFLIGHT_IMAGE_LAYOUT=/demo/images"]
        kubeconfig = str(cluster.kubeconfig())
        shell = {"HOME": str(folder), "KUBECONFIG": kubeconfig, "IMAGE": IMAGE, "RELEASE": RELEASE}
        path = f"{assets()}:{os.environ.get('PATH', os.defpath)}"
        inside = Inside(cluster, Node(cluster, containers, folder, registries), {**shell, "PATH": path})
        inside.typed(block(PAGE, "deploy/rbac.yaml"))
        cluster.apply(account("kmm-preflight"))
        inside.kubectl("label", "namespace", "kmm-preflight", "pod-security.kubernetes.io/enforce=restricted")
        inside.typed(block(PAGE, "deploy/job.yaml"))
        controller = Program([str(job_controller()), kubeconfig], folder, folder / "jobs.log")
        try:
            yield inside
        finally:
            controller.end()


def in_image(containers: Containers, *command: str) -> str:
    """What a command prints that root runs in the image."""
    return containers.checked("run", "--rm", "--network=none", "--user=0", "--entrypoint", json.dumps(command), IMAGE)


def renamed(name: str) -> dict[str, Any]:
    """The Job under another name, with the image of the checkout."""
    job = copy.deepcopy(JOB)
    job["metadata"]["name"] = name
    job["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE
    return job


def assert_green(ended: Ended, folder: Path) -> None:
    """The whole run is green, has no trouble with places that it cannot write, and left its reports."""
    assert ended.code == report.EXIT_VERIFIED, ended.log
    assert VERIFIED in ended.log.splitlines()
    assert not re.search("warning|cannot be used", ended.log, re.IGNORECASE), ended.log
    assert {path.name for path in folder.iterdir()} == REPORTS
    assert json.loads((folder / "preflight.json").read_text())["exitCode"] == report.EXIT_VERIFIED


def test_the_image_has_the_wheel_and_no_clone(containers: Containers, tmp_path: Path) -> None:
    place = in_image(containers, "sh", "-c", "echo /opt/venv/lib/python*/site-packages").strip()
    listed = in_image(containers, "find", f"{place}/kmm_preflight", "-type", "f", "-not", "-name", "*.pyc").splitlines()
    wheel = zipfile.ZipFile(build_wheel(tmp_path)).namelist()
    assert {line.removeprefix(f"{place}/") for line in listed} == {
        name for name in wheel if name.startswith("kmm_preflight/")
    }
    assert in_image(containers, "find", "/", "-xdev", "-name", "Containerfile*", "-o", "-name", "hatch_build.py") == ""


def test_the_image_is_nobody_s_and_has_nothing_left_of_its_making(containers: Containers) -> None:
    (image,) = json.loads(containers.checked("image", "inspect", IMAGE))
    config = image["Config"]
    assert (config["User"], config["WorkingDir"], config["Entrypoint"]) == ("1001", "/", ["kmm-preflight"])
    told = {"PATH", "HOME", "ARTIFACT_DIR", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    assert {one.partition("=")[0] for one in config["Env"]} == told
    places = ("*/.cache/*", "/tmp/*", "/artifacts/*", "/opt/venv/*/pip/*", "/wheel*/*", "/src/*", "/build/*")
    anywhere = " -o ".join(f"-path {shlex.quote(place)}" for place in places)
    assert in_image(containers, "find", "/", "-xdev", *shlex.split(f"( {anywhere} )")) == ""
    assert in_image(containers, "cat", "/etc/pip.conf") == ""


def test_the_packages_of_the_image_are_those_that_the_project_asks_for() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    pinned = {one.name: one for one in map(Requirement, lines)}
    wanted = [
        Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ]
    names = {name.lower(): name for name in pinned}
    for one in wanted:
        pin = pinned[names[one.name]]
        (version,) = (spec.version for spec in pin.specifier if spec.operator == "==")
        assert one.specifier.contains(version), f"{pin} for {one}"
        assert pin.marker == one.marker


def test_the_page_s_podman_run_is_green(tmp_path: Path, containers: Containers) -> None:
    shim = tmp_path / "podman"
    shim.write_text(f'#!/bin/sh\nexec {shlex.join(containers.command())} "$@"\n')
    shim.chmod(0o755)
    path = f"{tmp_path}:{containers.environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", block(PAGE, "podman run")],
        cwd=ROOT,
        env={**containers.environment, "PATH": path, "IMAGE": IMAGE},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == report.EXIT_VERIFIED, done.stdout + done.stderr
    assert VERIFIED in done.stdout.splitlines()


def test_a_job_on_the_cluster_s_own_modules_completes(inside: Inside) -> None:
    inside.cluster.forget()
    pod = inside.waiting("kmm-preflight")
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert_green(inside.node.run(pod), inside.node.volume(pod, "reports"))
    assert ("list", "modules", "", "") in requests_of(inside.cluster, SUBJECT)
    assert inside.concluded("kmm-preflight")[0] == "Complete"
    (command,) = (line for line in block(PAGE, "kubectl logs").splitlines() if line.startswith("kubectl get"))
    assert inside.typed(command).splitlines()[-1].split()[0] == "Complete"


def test_a_job_with_a_refuted_module_fails_at_once_and_says_why(inside: Inside) -> None:
    inside.cluster.apply(*demo_manifests("red"))
    try:
        inside.typed(block(PAGE, "deploy/job.yaml"))
        pod = inside.waiting("kmm-preflight")
        ended = inside.node.run(pod)
    finally:
        inside.kubectl("delete", "module", "--namespace=demo", "hello-pinned")
    assert ended.code == report.EXIT_REFUTED, ended.log
    assert "REFUTED   demo/hello-pinned" in ended.log
    kind, reason, message = inside.concluded("kmm-preflight")
    assert (kind, reason) == ("Failed", "PodFailurePolicy")
    assert f"exit code {report.EXIT_REFUTED} " in message
    assert len(inside.pods("kmm-preflight")) == 1


def test_a_job_that_is_not_told_the_release_says_so(inside: Inside) -> None:
    job = renamed("untold")
    inside.cluster.apply(job)
    ended = inside.node.run(inside.waiting("untold"))
    assert ended.code == report.EXIT_USAGE
    assert "no release to validate" in ended.log
    assert inside.concluded("untold")[:2] == ("Failed", "PodFailurePolicy")


def test_exit_codes_end_a_job_or_have_it_tried_again(inside: Inside) -> None:
    codes = [*FINAL, report.EXIT_UNDECIDED, KILLED]
    for code in codes:
        inside.cluster.apply(renamed(f"code-{code}"))
    for code in codes:
        inside.node.report(inside.waiting(f"code-{code}"), code)
    for code in FINAL:
        assert inside.concluded(f"code-{code}")[:2] == ("Failed", "PodFailurePolicy"), code
        assert len(inside.pods(f"code-{code}")) == 1
    for _ in range(JOB["spec"]["backoffLimit"]):
        for code in (report.EXIT_UNDECIDED, KILLED):
            inside.node.report(inside.waiting(f"code-{code}"), code)
    for code in (report.EXIT_UNDECIDED, KILLED):
        assert inside.concluded(f"code-{code}")[:2] == ("Failed", "BackoffLimitExceeded"), code
        assert len(inside.pods(f"code-{code}")) == 1 + JOB["spec"]["backoffLimit"]


def test_a_drained_node_interrupts_a_run_which_leaves_reports_and_is_no_try(
    inside: Inside, containers: Containers, tmp_path: Path
) -> None:
    job = renamed("drained")
    pod_spec = job["spec"]["template"]["spec"]
    (container,) = pod_spec["containers"]
    container["env"].append({"name": "PREFLIGHT_KERNEL", "value": KERNEL})
    container["args"].append("-kslow")
    node = Node(inside.cluster, containers, tmp_path)
    with FaultyRegistry({}, Fault(MANIFESTS, hang_s=FOREVER_S)) as registry:
        inside.cluster.apply(module("demo", "slow", containerImage=f"{registry.host}/team/kmod:v1"), job)
        try:
            pod = inside.waiting("drained")
            running = node.start(pod)
            running.until(lambda: bool(registry.requests()))
            running.terminate()
            ended = running.ended(pod_spec["terminationGracePeriodSeconds"])
        finally:
            inside.kubectl("delete", "module", "--namespace=demo", "slow")
    assert ended.code == report.EXIT_INTERRUPTED, ended.log
    folder = node.volume(pod, "reports")
    assert {path.name for path in folder.iterdir()} == REPORTS
    assert json.loads((folder / "preflight.json").read_text())["sentence"].startswith("Interrupted before the end")
    node.report(pod, ended.code, DISRUPTED)
    assert inside.waiting("drained")["metadata"]["name"] != pod["metadata"]["name"]
    assert "failed" not in inside.job("drained")["status"]


def test_the_cronjob_s_runs_are_the_job_s_and_its_reports_can_stay(inside: Inside) -> None:
    assert CRONJOB["spec"]["jobTemplate"]["spec"] == JOB["spec"]
    assert CRONJOB["spec"]["concurrencyPolicy"] == "Forbid"
    inside.typed(block(PAGE, "deploy/cronjob.yaml"))
    inside.typed(block(PAGE, "deploy/reports.yaml"))
    inside.typed(block(PAGE, "--from=cronjob"))
    pod = inside.waiting("kmm-preflight-now")
    folder = inside.node.volume(pod, "reports")
    assert folder.name == "claim-kmm-preflight-reports"
    assert_green(inside.node.run(pod), folder)
    assert inside.concluded("kmm-preflight-now")[0] == "Complete"
    reader = json.loads(inside.kubectl("get", "pod", "kmm-preflight-reports", NAMESPACE, "-o", "json"))
    assert inside.node.volume(reader, "reports") == folder
    assert reader["spec"]["containers"][0]["image"] == IMAGE
