"""A Kubernetes API server as a protocol: resources, requests and errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kmm_preflight.errors import AccessDenied, PreflightError
from kmm_preflight.model import Manifest


@dataclass(frozen=True)
class ResourceKind:
    """A resource of the Kubernetes API."""

    group: str
    """The API group. The core group has the empty name."""
    version: str
    """The version of the group."""
    plural: str
    """The name of the resource in URLs."""
    namespaced: bool
    """True if its objects are in namespaces."""

    @property
    def resource(self) -> str:
        """The name in RBAC rules and error messages: plural.group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


MODULES = ResourceKind("kmm.sigs.x-k8s.io", "v1beta1", "modules", namespaced=True)
CONFIG_MAPS = ResourceKind("", "v1", "configmaps", namespaced=True)
NODE_MODULES = ResourceKind("kmm.sigs.x-k8s.io", "v1beta1", "nodemodulesconfigs", namespaced=False)
SECRETS = ResourceKind("", "v1", "secrets", namespaced=True)
SERVICE_ACCOUNTS = ResourceKind("", "v1", "serviceaccounts", namespaced=True)
DEPLOYMENTS = ResourceKind("apps", "v1", "deployments", namespaced=True)
CRDS = ResourceKind("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)
DIGEST_MIRRORS = ResourceKind("config.openshift.io", "v1", "imagedigestmirrorsets", namespaced=False)
TAG_MIRRORS = ResourceKind("config.openshift.io", "v1", "imagetagmirrorsets", namespaced=False)
CONTENT_POLICIES = ResourceKind("operator.openshift.io", "v1alpha1", "imagecontentsourcepolicies", namespaced=False)
CLUSTER_IMAGE_POLICIES = ResourceKind("config.openshift.io", "v1", "clusterimagepolicies", namespaced=False)
IMAGE_POLICIES = ResourceKind("config.openshift.io", "v1", "imagepolicies", namespaced=True)
OLDER_CLUSTER_IMAGE_POLICIES = ResourceKind("config.openshift.io", "v1alpha1", "clusterimagepolicies", namespaced=False)
OLDER_IMAGE_POLICIES = ResourceKind("config.openshift.io", "v1alpha1", "imagepolicies", namespaced=True)
IMAGE_CONFIGS = ResourceKind("config.openshift.io", "v1", "images", namespaced=False)
PROXIES = ResourceKind("config.openshift.io", "v1", "proxies", namespaced=False)
NODES = ResourceKind("", "v1", "nodes", namespaced=False)
POOLS = ResourceKind("machineconfiguration.openshift.io", "v1", "machineconfigpools", namespaced=False)
MACHINE_CONFIGS = ResourceKind("machineconfiguration.openshift.io", "v1", "machineconfigs", namespaced=False)
LAYERED_POOLS = ResourceKind("machineconfiguration.openshift.io", "v1", "machineosconfigs", namespaced=False)
OS_STREAMS = ResourceKind("machineconfiguration.openshift.io", "v1", "osimagestreams", namespaced=False)
OLDER_OS_STREAMS = ResourceKind("machineconfiguration.openshift.io", "v1alpha1", "osimagestreams", namespaced=False)
CLUSTER_VERSIONS = ResourceKind("config.openshift.io", "v1", "clusterversions", namespaced=False)
MANAGED_CLUSTERS = ResourceKind("cluster.open-cluster-management.io", "v1", "managedclusters", namespaced=False)
JOBS = ResourceKind("batch", "v1", "jobs", namespaced=True)
PODS = ResourceKind("", "v1", "pods", namespaced=True)
BUILDS = ResourceKind("build.openshift.io", "v1", "builds", namespaced=True)


class Conflict(PreflightError):
    """Another client has changed the object since it was read, or has created an object of its name."""


class Forbidden(AccessDenied):
    """The account is known, but may not use the verb on this resource."""


@dataclass(frozen=True)
class Access:
    """Options of the connection to an API server."""

    kubeconfig: tuple[Path, ...]
    """Kubeconfig files, which are merged as in kubectl."""
    named_by: str | None = None
    """The option or variable that names the files. None for the default file."""
    context: str | None = None
    """The context of the kubeconfig, or None for its current context."""
    api_seconds: float = 60.0
    """The time in which a request must be answered, with all retries."""


class ReadApi(Protocol):
    """Objects of an API server.

    Each method raises AccessDenied with verb, resource and account, Unreachable after retries, or Malformed.
    """

    @property
    def server(self) -> str:
        """The API server's URL, for messages."""

    def serves(self, kind: ResourceKind) -> bool:
        """True if the server has this resource in this version."""

    def list(
        self, kind: ResourceKind, namespace: str | None = None, name: str | None = None, labels: str | None = None
    ) -> tuple[Manifest, ...] | None:
        """Return all objects of a kind, or those of a namespace, a name or a label selector. Read page by page.

        Return None if the server does not have the resource.
        """

    def get(
        self, kind: ResourceKind, name: str, namespace: str | None = None, metadata_only: bool = False
    ) -> Manifest | None:
        """Return the object, or None if it does not exist.

        With metadata_only, return apiVersion, kind and metadata of the object.
        """


class Api(ReadApi, Protocol):
    """An API server that can also be changed. Each method raises the errors of ReadApi."""

    def create(self, kind: ResourceKind, manifest: Manifest, namespace: str | None = None) -> Manifest:
        """Create an object. Return it as the server stored it. Raise Malformed if the schema refuses it."""

    def delete(self, kind: ResourceKind, name: str, namespace: str | None = None, uid: str | None = None) -> None:
        """Delete the object if it exists and has this uid. The server deletes its dependents later."""

    def log(
        self, pod: str, namespace: str, most: int, last_lines: int | None = None, container: str | None = None
    ) -> bytes:
        """Return the first bytes of a container's log, or of its last lines. Without a log, return no bytes.

        Without a name, read the Pod's only container. Retry for a few seconds only: callers poll logs.
        """

    def execute(
        self, pod: str, namespace: str, command: Sequence[str], most: int, container: str | None = None
    ) -> Iterator[bytes]:
        """Run a command in a container. Yield pieces of its standard output. Do not retry.

        Raise Malformed if the command fails, BoundExceeded after more bytes than most.
        """

    def patch(
        self, kind: ResourceKind, name: str, body: Manifest, subresource: str | None = None, dry_run: bool = False
    ) -> Manifest:
        """Apply a JSON merge patch to a cluster-wide object and return the object.

        Raise Conflict if the body has an old resourceVersion.
        """
