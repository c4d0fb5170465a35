"""OpenShift's controller of Builds, as far as their phases and Pods go: what becomes of each Build is said before."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3

from .cluster import Cluster

BUILDS = Path(__file__).parent / "crds" / "builds.yaml"
"""The definition of Build that a cluster without OpenShift needs."""

ACCOUNT = "builder"
"""OpenShift makes it in every Namespace; here the controller does."""

PACE_S = 0.3
PATIENCE_S = 180

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Act:
    """What becomes of a Build next: what its builder does, then its phase and other status, and its Pod's status."""

    phase: str
    status: Object = field(default_factory=dict)
    pod: Object = field(default_factory=dict)
    do: Callable[[Object], None] | None = None


PENDING = Act("Pending", pod={"phase": "Pending"})
RUNNING = Act(
    "Running",
    pod={
        "phase": "Running",
        "containerStatuses": [
            {
                "name": "docker-build",
                "image": "builder",
                "imageID": "",
                "ready": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}},
            }
        ],
    },
)
COMPLETE = Act("Complete", pod={"phase": "Succeeded"})
WELL = (PENDING, RUNNING, COMPLETE)


class BuildController:
    """Runs inside a `with`. acts says what becomes of a Build; after the last act it stays as it is.

    acts may be changed at any time, and is asked before each act. A Pod is made by the first act that has a status for
    it, and goes with its Build.
    """

    def __init__(self, cluster: Cluster, acts: Callable[[Object], Sequence[Act]] = lambda _: WELL) -> None:
        self.acts = acts
        self._cluster = cluster
        self._kubeconfig = cluster.kubeconfig("build-controller")
        self._done: dict[str, int] = {}
        self._pods: dict[str, tuple[str, str]] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="build-controller")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        while not self._ending.wait(PACE_S):
            try:
                found = self._cluster.read("/apis/build.openshift.io/v1/builds").get("items", ())
            except (urllib3.exceptions.HTTPError, AssertionError):
                continue  # the test has stopped the API server, or it has only just begun
            for build in found:
                self._next(build)
            self._collect({build["metadata"]["uid"] for build in found})

    def _next(self, build: Object) -> None:
        uid = build["metadata"]["uid"]
        left = self.acts(build)[self._done.get(uid, 0) :]
        if not left:
            return
        act = left[0]
        self._done[uid] = self._done.get(uid, 0) + 1
        if act.do:
            act.do(build)
        if act.pod:
            self._set_pod(build, act.pod)
        status = {"phase": act.phase, **act.status}
        self._patch("builds.build.openshift.io", build, build["metadata"]["name"], {"status": status})

    def _set_pod(self, build: Object, status: Object) -> None:
        metadata, name = build["metadata"], f"{build['metadata']['name']}-build"
        if metadata["uid"] not in self._pods:
            owner = {"apiVersion": "build.openshift.io/v1", "kind": "Build", "controller": True}
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": metadata["namespace"],
                    "labels": {**metadata.get("labels", {}), "openshift.io/build.name": metadata["name"]},
                    "ownerReferences": [{**owner, "name": metadata["name"], "uid": metadata["uid"]}],
                },
                "spec": {
                    "serviceAccountName": ACCOUNT,
                    "automountServiceAccountToken": False,
                    "containers": [{"name": "docker-build", "image": "builder"}],
                },
            }
            self._cluster.apply(
                {
                    "apiVersion": "v1",
                    "kind": "ServiceAccount",
                    "metadata": {"name": ACCOUNT, "namespace": metadata["namespace"]},
                }
            )
            self._kubectl("create", "-f", "-", input=json.dumps(pod))
            self._pods[metadata["uid"]] = (metadata["namespace"], name)
            told = {"metadata": {"annotations": {"openshift.io/build.pod-name": name}}}
            self._patch("builds.build.openshift.io", build, metadata["name"], told)
        self._patch("pods", build, name, {"status": status}, "--subresource=status")

    def _collect(self, uids: set[str]) -> None:
        """Delete the Pods of Builds that are gone."""
        for uid in set(self._pods) - uids:
            namespace, name = self._pods.pop(uid)
            self._kubectl("delete", "pod", name, f"--namespace={namespace}", "--now", "--wait=false")

    def _patch(self, resource: str, build: Object, name: str, patch: Object, *more: str) -> None:
        about = [resource, name, f"--namespace={build['metadata']['namespace']}"]
        self._kubectl("patch", *about, "--type=merge", f"--patch={json.dumps(patch)}", *more)

    def _kubectl(self, *args: str, input: str | None = None) -> None:
        done = self._cluster.kubectl(*args, input=input, kubeconfig=self._kubeconfig)
        # What is refused to be changed was deleted in the meantime, or the API server was stopped.
        gone = ("NotFound", "AlreadyExists", "refused", "being deleted")
        assert not done.returncode or any(word in done.stderr for word in gone), done.stderr
