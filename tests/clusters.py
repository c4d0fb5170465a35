"""What clusters of tests hold: Modules, what serves them, and short definitions of OpenShift's kinds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import MODULES
from tests.runs import ROOT, Run

Object = Mapping[str, Any]

# Group, version, kind, plural.
_OPENSHIFT = (
    ("config.openshift.io", "v1", "ImageDigestMirrorSet", "imagedigestmirrorsets"),
    ("config.openshift.io", "v1", "ImageTagMirrorSet", "imagetagmirrorsets"),
    ("config.openshift.io", "v1", "Image", "images"),
    ("config.openshift.io", "v1", "Proxy", "proxies"),
    ("operator.openshift.io", "v1alpha1", "ImageContentSourcePolicy", "imagecontentsourcepolicies"),
)
_MACHINES = (
    ("machineconfiguration.openshift.io", "v1", "MachineConfigPool", "machineconfigpools"),
    ("machineconfiguration.openshift.io", "v1", "MachineConfig", "machineconfigs"),
    ("machineconfiguration.openshift.io", "v1", "MachineOSConfig", "machineosconfigs"),
    ("machineconfiguration.openshift.io", "v1", "OSImageStream", "osimagestreams"),
    ("config.openshift.io", "v1", "ClusterVersion", "clusterversions"),
)


def serve(cluster: Cluster, folder: Path) -> None:
    """Let the cluster serve Modules and OpenShift's kinds, by short definitions of our own."""
    cluster.apply_crds(MODULES, _definitions(folder, _OPENSHIFT))


def serve_machines(cluster: Cluster, folder: Path, *released: Path) -> None:
    """Let the cluster serve what tells of its nodes' kernels: released definitions, and short ones of the others."""
    short = [kind for kind in _MACHINES if f"{kind[3]}.yaml" not in {file.name for file in released}]
    cluster.apply_crds(*released, _definitions(folder, short))


def _definitions(folder: Path, kinds: Iterable[tuple[str, str, str, str]]) -> Path:
    file = folder / "openshift.yaml"
    file.write_text("---\n".join(json.dumps(_definition(*kind)) + "\n" for kind in kinds))
    return file


def _definition(group: str, version: str, kind: str, plural: str) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "names": names, "scope": "Cluster", "versions": [served]},
    }


def namespaces(*names: str) -> list[Object]:
    """Namespace manifests."""
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]


def module(namespace: str, name: str, secret: str = "", **mapping: object) -> Object:
    """A Module that is good on the demo's images, unless its mapping says otherwise."""
    (document,) = yaml.safe_load_all((ROOT / "demo/modules/hello.yaml").read_text())
    document["metadata"] = {"namespace": namespace, "name": name}
    document["spec"]["moduleLoader"]["container"]["kernelMappings"][0] |= mapping
    if secret:
        document["spec"]["imageRepoSecret"] = {"name": secret}
    return dict(document)


def pull_secret(namespace: str, name: str) -> Object:
    """A Secret without logins."""
    metadata = {"namespace": namespace, "name": name}
    kind = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson"}
    return {**kind, "metadata": metadata, "stringData": {".dockerconfigjson": '{"auths": {}}'}}


def account(namespace: str, *secrets: str) -> Object:
    """The ServiceAccount default, which a cluster with controllers makes by itself."""
    metadata = {"namespace": namespace, "name": "default"}
    pulls = [{"name": secret} for secret in secrets]
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "imagePullSecrets": pulls}


def openshift(kind: str, name: str, spec: Object) -> Object:
    """An object of one of OpenShift's kinds."""
    (api,) = (f"{group}/{version}" for group, version, known, _ in _OPENSHIFT if known == kind)
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}


def demo_manifests(*folders: str) -> list[Object]:
    """The manifests of the demo."""
    files = (file for folder in folders for file in sorted((ROOT / "demo" / folder).glob("*.yaml")))
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def empty(cluster: Cluster) -> None:
    """Delete all Modules."""
    done = cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "--all", "--all-namespaces")
    assert done.returncode == 0, done.stderr


def one_line(run: Run, *named: str) -> str:
    """The only line of a run that could not begin; it names these."""
    lines = [line for line in run.output.splitlines() if line.strip()]
    assert len(lines) == 1, run.output
    assert [name for name in named if name not in lines[0]] == [], lines[0]
    return lines[0]


def asked(cluster: Cluster, user: str | None = None) -> list[tuple[str, str, str, str]]:
    """Verb, resource, namespace and name of all requests, of one user where one is given."""
    events: Iterable[Any] = cluster.requests()
    return [
        (event.verb, event.resource, event.namespace, event.name)
        for event in events
        if user is None or event.user == user
    ]
