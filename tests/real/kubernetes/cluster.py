"""A cluster as clients see it: a real API server and its etcd on loopback, without nodes and controllers of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import urllib3
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from tests.real.authority import Authority

from .audit import AuditEvent, policy, read_events
from .binaries import assets
from .clients import ClientAuthority, key_pem
from .kubeconfig import write_kubeconfig
from .port import Port
from .program import Program

PATIENCE_S = 180
KUBECTL_S = 180
POLL_S = 0.03
MASTERS = ("system:masters",)
"""The group that may do everything."""

NODE = "localhost"
"""The only node that a cluster may have, under a name at which the API server reaches its kubelet."""
NODE_USER, CONTROLLERS_USER, SCHEDULER_USER = _PARTS = (
    f"system:node:{NODE}",
    "system:kube-controller-manager",
    "system:kube-scheduler",
)

_HARNESS = "harness"
_MARKER = "/version"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Cluster:
    """Runs inside a `with`, with all its files in a folder that is gone afterwards.

    There is no controller manager: a deleted Namespace stays Terminating, nothing is collected with its owner, and no
    Namespace gets its ServiceAccounts by itself; real_node.py has one, and what runs Pods. What Cluster asks by itself
    (apply, apply_crds, remove_crds, service_account_kubeconfig, read), and what a node and controllers ask, is not
    among requests(); what kubectl asks is.
    """

    def __init__(self, folder: Path) -> None:
        self._assets = assets()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(dir=folder.resolve(), prefix="cluster-"))
        self._log = self._folder / "audit.log"
        self._log.touch()
        self._forgotten = 0
        self._etcd: Program | None = None
        self._apiserver: Program | None = None
        self._port = Port()
        self._server = Authority(self._folder)
        self._clients = ClientAuthority(self._folder)
        self.ca = self._server.ca
        self.clients_ca = self._clients.ca
        self.tokens_key = self._folder / "tokens.key"
        self._admin = self.kubeconfig()
        self._harness = self.kubeconfig(_HARNESS)
        certificate = self._folder / "harness.pem"
        certificate.write_bytes(b"".join(self._clients.issue(_HARNESS, MASTERS)))
        # The certificates' files have their keys too.
        self._to_kubelet = self._folder / "kubelet-client.pem"
        self._to_kubelet.write_bytes(b"".join(self._clients.issue("kube-apiserver", MASTERS)))
        self._http = urllib3.PoolManager(
            ca_certs=str(self.ca), cert_file=str(certificate), retries=False, timeout=PATIENCE_S
        )

    @property
    def url(self) -> str:
        """https://127.0.0.1:PORT."""
        return f"https://127.0.0.1:{self._port.number}"

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [program.pid for program in (self._apiserver, self._etcd) if program]

    def kubeconfig(self, user: str = "admin", groups: Iterable[str] = MASTERS) -> Path:
        """Write a kubeconfig with a client certificate; with groups=() the user can do what RBAC allows him by name."""
        certificate, key = self._clients.issue(user, groups)
        return self._write_kubeconfig(user, {"client-certificate-data": certificate, "client-key-data": key})

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Write a kubeconfig with a token of an hour; makes the Namespace and the ServiceAccount where they are not."""
        account = {"metadata": {"name": name, "namespace": namespace}}
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {"apiVersion": "v1", "kind": "ServiceAccount", **account},
        )
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        granted = self._http.request("POST", self.url + path, json=asked)
        assert granted.status == HTTPStatus.CREATED, granted.data
        return self._write_kubeconfig(f"{namespace}-{name}", {"token": granted.json()["status"]["token"]})

    def kubectl(
        self, *args: str, input: str | None = None, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, as admin where no kubeconfig is given; a refusal is in the return code."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._folder),
            "KUBECONFIG": str(kubeconfig or self._admin),
        }
        return subprocess.run(
            [str(self._assets / "kubectl"), *args],
            input=input,
            capture_output=True,
            text=True,
            timeout=KUBECTL_S,
            env=environment,
        )

    def apply(self, *objects: Mapping[str, object]) -> None:
        """Create or change the objects, in this order; a status in them is passed over where it is a subresource."""
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self._harness_kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=listed)

    def apply_crds(self, *paths: Path) -> None:
        """Apply the definitions in the files and folders, and wait until each of their versions is served.

        Of a definition that is there in another generation call remove_crds() before: else that one may still answer.
        """
        files = [file for path in paths for file in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])]
        crds = [crd for file in files for crd in yaml.safe_load_all(file.read_text())]
        self.apply(*crds)
        self._forget_discovered()
        for crd in crds:
            name = crd["metadata"]["name"]
            self._until(partial(self._served, name), f"the definition {name} is not served")

    def remove_crds(self) -> None:
        """Delete all definitions with their objects, and wait until they are gone."""
        self._harness_kubectl("delete", "customresourcedefinitions", "--all")
        self._forget_discovered()

    def read(self, path: str) -> Mapping[str, Any]:
        """What the API server has at a path such as /api/v1/nodes/localhost; empty where there is nothing."""
        found = self._http.request("GET", self.url + path)
        assert found.status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND), found.data
        return dict(found.json()) if found.status == HTTPStatus.OK else {}

    def requests(self) -> list[AuditEvent]:
        """All that clients asked since the start or the last forget(), oldest first, refused requests included."""
        self._settle()
        events = read_events(self._log.read_bytes()[self._forgotten :].decode())
        return [event for event in events if event.user != _HARNESS]

    def forget(self) -> None:
        """Start counting anew."""
        self._settle()
        self._forgotten = self._log.stat().st_size

    def stop(self) -> None:
        """Stop the API server alone: open connections are cut, new ones refused."""
        # Not by SIGTERM: it would wait half a minute for a client that watches.
        apiserver, self._apiserver = self._apiserver, None
        if apiserver:
            apiserver.end()

    def start(self) -> None:
        """Start the API server again, on the same port with the same objects, and wait until it is ready."""
        if self._apiserver:
            return
        self._apiserver = Program(self._apiserver_command(), self._folder, self._folder / "kube-apiserver.log")
        try:
            self._until(self._ready, "kube-apiserver is not ready")
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        try:
            self.tokens_key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
            (self._folder / "audit.yaml").write_text(json.dumps(policy(_HARNESS, _MARKER, _PARTS)))
            self._etcd = Program(self._etcd_command(), self._folder, self._folder / "etcd.log")
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._remove()

    def _write_kubeconfig(self, name: str, user: Mapping[str, str | bytes]) -> Path:
        path = self._folder / f"kubeconfig-{secrets.token_hex(4)}-{quote(name, safe='')}"
        return write_kubeconfig(path, self.url, self.ca, user)

    def _harness_kubectl(self, *args: str, input: str | None = None) -> None:
        done = self.kubectl(*args, input=input, kubeconfig=self._harness)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(args)} ended {done.returncode}:\n{done.stderr}")

    def _forget_discovered(self) -> None:
        """Remove kubectl's memory, which would name versions that are gone for hours."""
        shutil.rmtree(self._folder / ".kube", ignore_errors=True)

    def _remove(self) -> None:
        for program in (self._apiserver, self._etcd):
            if program:
                program.end()
        self._apiserver = self._etcd = None
        self._http.clear()
        self._port.free()
        shutil.rmtree(self._folder)

    def _etcd_command(self) -> list[str]:
        # Sockets in our folder, which is etcd's and the API server's working directory: no port, and nobody else's.
        peer = "unix://etcd-peer:0"
        return [
            str(self._assets / "etcd"),
            "--name=etcd",
            "--data-dir=etcd",
            "--unsafe-no-fsync",
            "--log-level=warn",
            "--listen-client-urls=unix://etcd-client:0",
            "--advertise-client-urls=unix://etcd-client:0",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=etcd={peer}",
        ]

    def _apiserver_command(self) -> list[str]:
        return [
            str(self._assets / "kube-apiserver"),
            "--etcd-servers=unix://etcd-client:0",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port.number}",
            "--permit-port-sharing",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            f"--tls-cert-file={self._server.server_cert}",
            f"--tls-private-key-file={self._server.server_key}",
            f"--client-ca-file={self._clients.ca}",
            f"--service-account-key-file={self.tokens_key}",
            f"--service-account-signing-key-file={self.tokens_key}",
            "--service-account-issuer=https://kubernetes.default",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=Hostname",
            f"--kubelet-client-certificate={self._to_kubelet}",
            f"--kubelet-client-key={self._to_kubelet}",
            "--audit-policy-file=audit.yaml",
            f"--audit-log-path={self._log}",
        ]

    def _ready(self) -> bool:
        """Whether it answers and has made the Namespace default, which comes last."""
        for program in (self._apiserver, self._etcd):
            if program and program.ended:
                raise RuntimeError(f"a program of the cluster ended by itself:\n{program.log()}")
        try:
            paths = ("/readyz", "/api/v1/namespaces/default")
            return all(self._http.request("GET", self.url + path).status == HTTPStatus.OK for path in paths)
        except urllib3.exceptions.HTTPError:
            return False

    def _served(self, crd: str) -> bool:
        """Whether the definition is established, each of its versions answers, and kubectl can learn of them."""
        found = self._http.request("GET", f"{self.url}{_CRDS}/{crd}").json()
        conditions = {one["type"]: one["status"] for one in found.get("status", {}).get("conditions") or []}
        return conditions.get("Established") == "True" and all(
            self._version_served(found["spec"], version["name"])
            for version in found["spec"]["versions"]
            if version["served"]
        )

    def _version_served(self, spec: Mapping[str, Any], version: str) -> bool:
        path = f"/apis/{spec['group']}/{version}"
        listed = self._http.request("GET", f"{self.url}{path}/{spec['names']['plural']}?limit=1")
        # Where the kind is not yet in this document kubectl judges an object by an older one, instead of the server.
        described = self._http.request("GET", f"{self.url}/openapi/v3{path}")
        if not listed.status == described.status == HTTPStatus.OK:
            return False
        kind = {"group": spec["group"], "version": version, "kind": spec["names"]["kind"]}
        schemas = described.json()["components"]["schemas"].values()
        return any(kind in schema.get("x-kubernetes-group-version-kind", []) for schema in schemas)

    def _until(self, met: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not met():
            if time.monotonic() > deadline:
                logs = [program.log() for program in (self._apiserver, self._etcd) if program]
                raise TimeoutError("\n".join([f"{complaint} after {PATIENCE_S} s:", *logs]))
            time.sleep(POLL_S)

    def _settle(self) -> None:
        """Wait until the log has all that was answered: a line may follow its answer a little later."""
        if self._apiserver is None:
            return
        marker = secrets.token_hex(8)
        self._http.request("GET", f"{self.url}{_MARKER}?everything-before={marker}")
        before = b""

        def settled() -> bool:
            nonlocal before
            last, before = before, self._log.read_bytes()
            return marker.encode() in last and before == last

        self._until(settled, f"{self._log} has not settled")
