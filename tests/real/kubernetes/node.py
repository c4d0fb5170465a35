"""A node that runs the Pods of a cluster one by one: podman in place of the kubelet, which there is none of here."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.real.container import PATIENCE_S, Containers

from .cluster import Cluster

USER = 1000650000
"""As OpenShift's restricted-v2 gives it: of a namespace's range, known to no passwd, with group 0."""

Object = Mapping[str, Any]

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# Whatever else a Pod asks for must be learned first: a field that is passed over would be a test that lies.
_KNOWN = {
    "args", "env", "image", "imagePullPolicy", "name", "resources", "securityContext",
    "terminationMessagePath", "terminationMessagePolicy", "volumeMounts",
}  # fmt: skip
_CONTEXT = {"allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem"}
_POD_CONTEXT = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@dataclass(frozen=True)
class Ended:
    """A container that has ended, and what it printed."""

    code: int
    log: str


class Running:
    """A Pod's container; it is on the network of the host, where the API server is."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, met: Callable[[], bool]) -> None:
        """Wait until it is so; fails once the container has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while not met():
            assert self._process.poll() is None, self.ended().log
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def terminate(self) -> None:
        """SIGTERM to its first process, as a kubelet that ends the Pod sends it."""
        self._process.terminate()

    def ended(self, seconds: float = PATIENCE_S) -> Ended:
        """Wait for its end; TimeoutExpired when it takes longer than these seconds."""
        try:
            log, _ = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        return Ended(self._process.returncode, log)


class Node:
    """Runs Pods of one container. more: further options of podman run, such as a volume that stands for a registry."""

    def __init__(self, cluster: Cluster, containers: Containers, folder: Path, more: Sequence[str] = ()) -> None:
        self._cluster = cluster
        self._containers = containers
        self._folder = folder
        self._more = more

    def run(self, pod: Object) -> Ended:
        """Run the Pod's container to its end, and let the cluster know."""
        ended = self.start(pod).ended()
        self.report(pod, ended.code)
        return ended

    def start(self, pod: Object) -> Running:
        """Start the Pod's container."""
        (container,) = pod["spec"]["containers"]
        assert set(container) <= _KNOWN, set(container) - _KNOWN
        options = [*self._secured(pod["spec"], container), *self._environment(container), *self._mounts(pod, container)]
        every = [*options, *self._more, container["image"], *container.get("args", ())]
        # With an end in time, which podman keeps even when the test is gone.
        run = ("run", "--rm", f"--timeout={PATIENCE_S}", "--pull=never", "--network=host")
        return Running(self._containers.command(*run, *every), self._containers.environment)

    def volume(self, pod: Object, name: str) -> Path:
        """The folder that stands for a volume of the Pod: its own, or that of the claim."""
        (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == name)
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        folder = self._folder / (f"claim-{claim}" if claim else f"{pod['metadata']['uid']}-{name}")
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o777)
        return folder

    def report(self, pod: Object, code: int, *conditions: Object) -> None:
        """Tell the cluster that the Pod's container has ended."""
        (container,) = pod["spec"]["containers"]
        told = {"name": container["name"], "image": container["image"], "imageID": "", "ready": False}
        state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
        status = {
            "phase": "Failed" if code else "Succeeded",
            "conditions": list(conditions),
            "containerStatuses": [{**told, "restartCount": 0, "state": state}],
        }
        about = ["pod", pod["metadata"]["name"], f"--namespace={pod['metadata']['namespace']}"]
        patch = json.dumps({"status": status})
        done = self._cluster.kubectl("patch", *about, "--subresource=status", "--type=merge", f"--patch={patch}")
        assert done.returncode == 0, done.stderr

    def _secured(self, spec: Object, container: Object) -> Iterator[str]:
        assert spec["securityContext"] == _POD_CONTEXT
        context = container["securityContext"]
        assert set(context) == _CONTEXT, context
        yield f"--user={USER}:0"
        # Without the second one podman would still give /tmp, /run and /var/tmp.
        yield from ("--read-only", "--read-only-tmpfs=false") if context["readOnlyRootFilesystem"] else ()
        yield from () if context["allowPrivilegeEscalation"] else ("--security-opt=no-new-privileges",)
        yield from (f"--cap-drop={name.lower()}" for name in context["capabilities"]["drop"])
        yield f"--memory={container['resources']['limits']['memory'].removesuffix('i').lower()}"

    def _environment(self, container: Object) -> Iterator[str]:
        host, _, port = self._cluster.url.removeprefix("https://").partition(":")
        given = {one["name"]: one.get("value", "") for one in container.get("env", ())}
        for name, value in {**given, "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}.items():
            yield f"--env={name}={value}"

    def _mounts(self, pod: Object, container: Object) -> Iterator[str]:
        for mount in container["volumeMounts"]:
            (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == mount["name"])
            if "projected" in volume:
                assert mount["mountPath"] == _ACCOUNT
                folder = self._account(pod)
            else:
                assert {"emptyDir", "persistentVolumeClaim"} & set(volume), volume
                folder = self.volume(pod, mount["name"])
            yield f"--volume={folder}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"

    def _account(self, pod: Object) -> Path:
        """What the kubelet puts at the place of the account: its token, the CA, the namespace."""
        namespace = pod["metadata"]["namespace"]
        kubeconfig = self._cluster.service_account_kubeconfig(namespace, pod["spec"]["serviceAccountName"])
        (user,) = yaml.safe_load(kubeconfig.read_text())["users"]
        folder = self._folder / f"{pod['metadata']['uid']}-account"
        folder.mkdir()
        folder.chmod(0o755)
        files = {"token": user["user"]["token"], "ca.crt": self._cluster.ca.read_text(), "namespace": namespace}
        for name, text in files.items():
            (folder / name).write_text(text)
        return folder
