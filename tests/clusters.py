"""Objects of the tests' clusters: Modules, objects that they need, and short definitions of OpenShift's kinds."""

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
    ("config.openshift.io", "v1", "ClusterImagePolicy", "clusterimagepolicies"),
    ("config.openshift.io", "v1", "ImagePolicy", "imagepolicies"),
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
    ("kmm.sigs.x-k8s.io", "v1beta1", "NodeModulesConfig", "nodemodulesconfigs"),
)


def serve(cluster: Cluster, folder: Path) -> None:
    """Add Modules and OpenShift's kinds to the cluster, by our own short definitions."""
    cluster.apply_crds(MODULES, _definitions(folder, _OPENSHIFT))


def serve_machines(cluster: Cluster, folder: Path, *released: Path) -> None:
    """Add the kinds that decide kernels of nodes: by released definitions, else by our own short definitions."""
    short = [kind for kind in _MACHINES if f"{kind[3]}.yaml" not in {file.name for file in released}]
    cluster.apply_crds(*released, _definitions(folder, short))


def _definitions(folder: Path, kinds: Iterable[tuple[str, str, str, str]]) -> Path:
    file = folder / "openshift.yaml"
    file.write_text("---\n".join(json.dumps(_definition(*kind)) + "\n" for kind in kinds))
    return file


def _definition(group: str, version: str, kind: str, plural: str) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    scope = "Namespaced" if kind == "ImagePolicy" else "Cluster"
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "names": names, "scope": scope, "versions": [served]},
    }


def namespaces(*names: str) -> list[Object]:
    """Return Namespaces."""
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]


def module(namespace: str, name: str, secret: str = "", **mapping: object) -> Object:
    """Return a Module that is good on the demo's images. mapping changes its kernel mapping."""
    (document,) = yaml.safe_load_all((ROOT / "demo/modules/hello.yaml").read_text())
    document["metadata"] = {"namespace": namespace, "name": name}
    document["spec"]["moduleLoader"]["container"]["kernelMappings"][0] |= mapping
    if secret:
        document["spec"]["imageRepoSecret"] = {"name": secret}
    return dict(document)


def pull_secret(namespace: str, name: str) -> Object:
    """Return a Secret without logins."""
    metadata = {"namespace": namespace, "name": name}
    kind = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson"}
    return {**kind, "metadata": metadata, "stringData": {".dockerconfigjson": '{"auths": {}}'}}


def account(namespace: str, *secrets: str) -> Object:
    """Return the ServiceAccount default. A cluster with controllers creates it in each namespace."""
    metadata = {"namespace": namespace, "name": "default"}
    pulls = [{"name": secret} for secret in secrets]
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "imagePullSecrets": pulls}


def openshift(kind: str, name: str, spec: Object) -> Object:
    """Return an object of a kind of OpenShift."""
    (api,) = (f"{group}/{version}" for group, version, known, _ in _OPENSHIFT if known == kind)
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}


def demo_manifests(*folders: str) -> list[Object]:
    """Return the manifests of the demo."""
    files = (file for folder in folders for file in sorted((ROOT / "demo" / folder).glob("*.yaml")))
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def empty(cluster: Cluster) -> None:
    """Delete all Modules."""
    done = cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "--all", "--all-namespaces")
    assert done.returncode == 0, done.stderr


def one_line(run: Run, *named: str) -> str:
    """Return the only line of a run that could not start. Check that it has these texts."""
    lines = [line for line in run.output.splitlines() if line.strip()]
    assert len(lines) == 1, run.output
    assert [name for name in named if name not in lines[0]] == [], lines[0]
    return lines[0]


def requests_of(cluster: Cluster, user: str | None = None) -> list[tuple[str, str, str, str]]:
    """Return verb, resource, namespace and name of all requests for objects, or of one user's requests.

    Requests for the list of served resources are left out.
    """
    events: Iterable[Any] = cluster.requests()
    return [
        (event.verb, event.resource, event.namespace, event.name)
        for event in events
        if event.resource and (user is None or event.user == user)
    ]
