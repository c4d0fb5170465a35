"""A node that runs the Pods of a cluster in earnest: kubelet and containerd, with scheduler and controller manager."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tests.real.requirement import need_tool

from .apart import PLACE, Apart, cgroup, need_apart
from .binaries import node_programs
from .cluster import CONTROLLERS_USER, MASTERS, NODE, NODE_USER, SCHEDULER_USER, Cluster
from .program import Program
from .runtime import SOCKET, start_runtime, trust_registry, write_runtime

if TYPE_CHECKING:
    from tests.real.registry import Registry

PATIENCE_S = 180
POLL_S = 0.1
_LAST_CHARACTERS = 3000


@contextmanager
def cluster_with_node(folder: Path, *registries: Registry) -> Iterator[RealNode]:
    """A cluster of a test's own with its node, which knows the registries; its `cluster` is the cluster."""
    # What the machine lacks is told before a cluster is started for nothing.
    need_node()
    with Cluster(folder) as cluster, RealNode(cluster, folder) as node:
        for registry in registries:
            node.trust(registry)
        yield node


def need_node() -> Path:
    """The folder with a node's programs; skips the running test where no node can be."""
    need_apart()
    for tool in ("runc", "busybox", "mount"):
        need_tool(tool, "apt-get install runc busybox-static mount")
    return node_programs()


class RealNode:
    """Runs inside a `with`, on a running cluster, as its node `localhost`.

    The cluster has all controllers meanwhile: Jobs make Pods, Namespaces get their ServiceAccounts and end, owners take
    with them what they own. Logs of Pods and exec answer. Pods are apart from the machine but for its network, so
    127.0.0.1 is the machine, and two cannot listen on one port. There are no Services: what asks the API server from a
    Pod must be told its address in the environment (api_environment).
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self._programs = need_node()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(dir=folder.resolve(), prefix="node-"))
        self._machine: Apart | None = None
        self._controllers: list[Program] = []

    @property
    def pids(self) -> list[int]:
        """The processes that run now, but for those of the node itself, of which it is the one that ends last."""
        return [part.pid for part in self._parts()]

    @property
    def api_environment(self) -> dict[str, str]:
        """Where the API server is, for a container's environment, where it goes before what the kubelet puts there."""
        host, _, port = self.cluster.url.removeprefix("https://").partition(":")
        return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}

    def trust(self, registry: Registry) -> None:
        """Let the node pull images from a registry, under the name that it has on the machine."""
        trust_registry(self.folder, registry)

    def job_ended(self, namespace: str, name: str, seconds: float = PATIENCE_S) -> str:
        """Wait for the end of a Job, which may be made only later: Complete or Failed."""
        ends: list[str] = []

        def ended() -> bool:
            job = self.cluster.read(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
            conditions = {one["type"]: one["status"] for one in job.get("status", {}).get("conditions", ())}
            ends[:] = [end for end in ("Complete", "Failed") if conditions.get(end) == "True"]
            return bool(ends)

        self._until(ended, f"the Job {namespace}/{name} has not ended", seconds)
        return ends[0]

    def pod_of_job(self, namespace: str, name: str) -> Mapping[str, Any]:
        """The one Pod that a Job has made."""
        listed = self.cluster.read(f"/api/v1/namespaces/{namespace}/pods?labelSelector=job-name%3D{name}")
        (pod,) = listed["items"]
        return dict(pod)

    def pod_phase(self, namespace: str, name: str, phase: str, seconds: float = PATIENCE_S) -> None:
        """Wait until the Pod is in this phase, such as Running."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"

        def reached() -> bool:
            pod = self.cluster.read(path)
            return bool(pod) and pod["status"].get("phase") == phase

        self._until(reached, f"the Pod {namespace}/{name} is not {phase}", seconds)

    def __enter__(self) -> Self:
        try:
            self._controllers = [self._start_controllers(), self._start_scheduler()]
            write_runtime(self.folder, need_tool("runc", "apt-get install runc"))
            # /run is hidden from the node, and the file often a link into it.
            shutil.copyfile("/etc/resolv.conf", self.folder / "resolv.conf")
            (self.folder / "kubelet.json").write_text(json.dumps(self._kubelet_configuration()))
            script = f"{start_runtime(self._programs)}{shlex.join(self._kubelet())}\n"
            self._machine = Apart(self.folder, script, self.folder / "kubelet.log")
            self._until(self._ready, "the node is not ready", PATIENCE_S)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._remove()

    def _parts(self) -> list[Program | Apart]:
        return [*([self._machine] if self._machine else []), *self._controllers]

    def _remove(self) -> None:
        for part in self._parts():
            part.end()
        self._machine, self._controllers = None, []
        shutil.rmtree(self.folder)

    def _start_controllers(self) -> Program:
        plugins = self.folder / "volume-plugins"
        options = [
            f"--root-ca-file={self.cluster.ca}",
            f"--service-account-private-key-file={self.cluster.tokens_key}",
            # Both programs that have this option make its folder.
            f"--flex-volume-plugin-dir={plugins}",
        ]
        return self._control("kube-controller-manager", CONTROLLERS_USER, options)

    def _start_scheduler(self) -> Program:
        return self._control("kube-scheduler", SCHEDULER_USER, [])

    def _control(self, name: str, user: str, options: Sequence[str]) -> Program:
        """Start a part of the control plane, alone of its kind and without a port of its own."""
        kubeconfig = self.cluster.kubeconfig(user, MASTERS)
        usual = [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
        command = [str(self._programs / name), *usual, *options]
        return Program(command, self.folder, self.folder / f"{name}.log")

    def _kubelet(self) -> list[str]:
        return [
            str(self._programs / "kubelet"),
            "--config=kubelet.json",
            f"--kubeconfig={self.cluster.kubeconfig(NODE_USER, ['system:nodes'])}",
            f"--hostname-override={NODE}",
            f"--root-dir={PLACE / 'kubelet'}",
            f"--cert-dir={PLACE / 'kubelet-certificates'}",
        ]

    def _kubelet_configuration(self) -> Mapping[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": _free_port(),
            "healthzPort": 0,
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.cluster.clients_ca)},
            },
            "authorization": {"mode": "Webhook"},
            # The machine may have cgroups of either version, and no systemd. All Pods are below one cgroup of ours.
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup(self.folder),
            "cgroupsPerQOS": True,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            # A disk or memory that others have filled is no reason to evict a test.
            "evictionHard": {
                "memory.available": "10Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
            "imageGCHighThresholdPercent": 100,
            # These would be chains in the firewall of the machine.
            "makeIPTablesUtilChains": False,
            "resolvConf": str(PLACE / "resolv.conf"),
            "volumePluginDir": str(PLACE / "volume-plugins"),
            "serializeImagePulls": False,
            # A log that is taken away in the middle of a test is one that nobody can look at.
            "containerLogMaxSize": "200Mi",
        }

    def _ready(self) -> bool:
        """Whether Pods are taken: the node says so, and nothing keeps them off."""
        node = self.cluster.read(f"/api/v1/nodes/{NODE}")
        conditions = {one["type"]: one["status"] for one in node.get("status", {}).get("conditions", ())}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    def _until(self, met: Callable[[], bool], complaint: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not met():
            ended = [part for part in self._parts() if part.ended]
            if ended or time.monotonic() > deadline:
                raise TimeoutError("\n".join([f"{complaint} after {seconds} s:", *self._logs()]))
            time.sleep(POLL_S)

    def _logs(self) -> list[str]:
        logs = sorted(self.folder.glob("*.log"))
        return [f"{log.name}:\n{log.read_text(errors='replace')[-_LAST_CHARACTERS:]}" for log in logs]


def _free_port() -> int:
    """A port of loopback that for a minute only those get who ask for it by its number."""
    # A connection that was closed at its end keeps it, but not from a server with SO_REUSEADDR, as those of Go are.
    with socket.socket() as listening, socket.socket() as client:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        client.connect(listening.getsockname())
        accepted, _ = listening.accept()
        accepted.close()
        return int(listening.getsockname()[1])
