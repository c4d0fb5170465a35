"""What is asked of a Kubernetes API server; cluster/kubernetes.py answers it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kmm_preflight.errors import AccessDenied, PreflightError
from kmm_preflight.model import Manifest


@dataclass(frozen=True)
class ResourceKind:
    """A resource as the API server addresses it; group "" is the core group."""

    group: str
    version: str
    plural: str
    namespaced: bool

    @property
    def resource(self) -> str:
        """The name as RBAC and error messages spell it: plural.group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


MODULES = ResourceKind("kmm.sigs.x-k8s.io", "v1beta1", "modules", namespaced=True)
CONFIG_MAPS = ResourceKind("", "v1", "configmaps", namespaced=True)
SECRETS = ResourceKind("", "v1", "secrets", namespaced=True)
SERVICE_ACCOUNTS = ResourceKind("", "v1", "serviceaccounts", namespaced=True)
DEPLOYMENTS = ResourceKind("apps", "v1", "deployments", namespaced=True)
CRDS = ResourceKind("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)
DIGEST_MIRRORS = ResourceKind("config.openshift.io", "v1", "imagedigestmirrorsets", namespaced=False)
TAG_MIRRORS = ResourceKind("config.openshift.io", "v1", "imagetagmirrorsets", namespaced=False)
CONTENT_POLICIES = ResourceKind("operator.openshift.io", "v1alpha1", "imagecontentsourcepolicies", namespaced=False)
CLUSTER_IMAGE_POLICIES = ResourceKind("config.openshift.io", "v1", "clusterimagepolicies", namespaced=False)
IMAGE_POLICIES = ResourceKind("config.openshift.io", "v1", "imagepolicies", namespaced=True)
IMAGE_CONFIGS = ResourceKind("config.openshift.io", "v1", "images", namespaced=False)
PROXIES = ResourceKind("config.openshift.io", "v1", "proxies", namespaced=False)
NODES = ResourceKind("", "v1", "nodes", namespaced=False)
POOLS = ResourceKind("machineconfiguration.openshift.io", "v1", "machineconfigpools", namespaced=False)
MACHINE_CONFIGS = ResourceKind("machineconfiguration.openshift.io", "v1", "machineconfigs", namespaced=False)
LAYERED_POOLS = ResourceKind("machineconfiguration.openshift.io", "v1", "machineosconfigs", namespaced=False)
OS_STREAMS = ResourceKind("machineconfiguration.openshift.io", "v1", "osimagestreams", namespaced=False)
OLDER_OS_STREAMS = ResourceKind("machineconfiguration.openshift.io", "v1alpha1", "osimagestreams", namespaced=False)
CLUSTER_VERSIONS = ResourceKind("config.openshift.io", "v1", "clusterversions", namespaced=False)
JOBS = ResourceKind("batch", "v1", "jobs", namespaced=True)
PODS = ResourceKind("", "v1", "pods", namespaced=True)
BUILDS = ResourceKind("build.openshift.io", "v1", "builds", namespaced=True)


class Conflict(PreflightError):
    """Somebody else has written the object since it was read."""


class Forbidden(AccessDenied):
    """The account is known, and lacks the verb on this resource."""


@dataclass(frozen=True)
class Access:
    """How the API server is found. kubeconfig: files, merged as kubectl does; named_by: option or variable, or ""."""

    kubeconfig: tuple[Path, ...]
    named_by: str = ""
    context: str | None = None
    api_seconds: float = 60.0


class ReadApi(Protocol):
    """Objects of an API server.

    Each method raises AccessDenied with verb, resource and account, Unreachable after retries, or Malformed.
    """

    @property
    def server(self) -> str:
        """The API server's URL, for messages."""

    def serves(self, kind: ResourceKind) -> bool:
        """Whether the server has this resource, in this version of its group."""

    def list(
        self, kind: ResourceKind, namespace: str = "", name: str = "", labels: str = ""
    ) -> tuple[Manifest, ...] | None:
        """All objects of a kind, or those of a namespace, a name or a label selector; asked by pages.

        None where the API is not served.
        """

    def get(self, kind: ResourceKind, name: str, namespace: str = "", metadata_only: bool = False) -> Manifest | None:
        """The object, or of it nothing but apiVersion, kind and metadata; None when there is none."""


class Api(ReadApi, Protocol):
    """An API server that can also be changed. Each method raises the errors of ReadApi."""

    def create(self, kind: ResourceKind, manifest: Manifest, namespace: str = "") -> Manifest:
        """The object as the server made it; Malformed when its schema refuses it."""

    def delete(self, kind: ResourceKind, name: str, namespace: str = "", uid: str = "") -> None:
        """Deletes the object, if it is there and has this uid, and what it owns a little later."""

    def log(self, pod: str, namespace: str, most: int, last_lines: int = 0, container: str = "") -> bytes:
        """The first bytes of what a container has printed, or of its last lines; none when it has no log.

        Without a name it is the Pod's only container. Tried again for a few seconds only: whoever follows a log asks
        anyway.
        """

    def execute(
        self, pod: str, namespace: str, command: Sequence[str], most: int, container: str = ""
    ) -> Iterator[bytes]:
        """What a command prints that is run in a container, in pieces; not tried again.

        Malformed when the command fails, BoundExceeded beyond so many bytes.
        """

    def patch(
        self, kind: ResourceKind, name: str, body: Manifest, subresource: str = "", dry_run: bool = False
    ) -> Manifest:
        """The cluster-wide object after a JSON merge patch; Conflict when body names another resourceVersion."""
