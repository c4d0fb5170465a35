"""Clusters as manifests: nodes, pools, MachineConfigs and streams, and a release with their kernels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kmm_preflight.release.os_image import STREAM_LABEL

from .real.layout import Image, image, index, layer, write_layout

Object = dict[str, Any]

MCO = "machineconfiguration.openshift.io"
ROLE = "node-role.kubernetes.io"
RELEASE = "quay.io/openshift-release-dev/ocp-release:5.0.0-multi"
TODAY = "5.14.0-427.18.1.el9_4.x86_64"
TODAY_ARM = "5.14.0-427.18.1.el9_4.aarch64"
NINE, TEN = "5.14.0-570.19.1.el9_6", "6.12.0-55.9.1.el10_0"
AMD_9, ARM_9, RT_9 = f"{NINE}.x86_64", f"{NINE}.aarch64", f"{NINE}.x86_64+rt"
AMD_10, ARM_10, RT_10 = f"{TEN}.x86_64", f"{TEN}.aarch64", f"{TEN}.x86_64+rt"
OLD_IMAGE, OWN_IMAGE = "quay.io/os@sha256:" + "1" * 64, "quay.io/team/os@sha256:" + "2" * 64

# Fields that the API server requires in a node, and no test reads.
_INFO = dict.fromkeys(("machineID", "systemUUID", "bootID", "osImage", "containerRuntimeVersion", "kubeletVersion",
                       "kubeProxyVersion"), "")  # fmt: skip


def node(name: str, *roles: str, arch: str = "amd64", kernel: str = TODAY, labels: Mapping[str, str] = {},
         **more: Any) -> Object:  # fmt: skip
    """Return a node of these roles. more: taints, config (current and desired), desired, os."""
    system = more.get("os", "linux")
    own_labels = {"kubernetes.io/arch": arch, "kubernetes.io/os": system, **{f"{ROLE}/{role}": "" for role in roles}}
    config = more.get("config", f"rendered-{roles[-1] if roles else 'worker'}-1")
    annotations = {f"{MCO}/currentConfig": config, f"{MCO}/desiredConfig": more.get("desired", config)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**own_labels, **labels}, "annotations": annotations},
        "spec": {"taints": more.get("taints", [])},
        "status": {"nodeInfo": {**_INFO, "architecture": arch, "kernelVersion": kernel, "operatingSystem": system}},
    }


MASTER_TAINT = {"key": f"{ROLE}/master", "effect": "NoSchedule"}


def pool(name: str, paused: bool = False, stream: str = "", sources: Iterable[str] = ()) -> Object:
    """Return a pool whose nodes have the role of its name. Its rendered MachineConfig is rendered-NAME-1."""
    roles = ["worker"] if name in ("worker", "master") else ["worker", name]
    roles = [name] if name == "master" else roles
    configs = {"matchExpressions": [{"key": f"{MCO}/role", "operator": "In", "values": roles}]}
    source = [{"apiVersion": f"{MCO}/v1", "kind": "MachineConfig", "name": source} for source in sources]
    spec: Object = {
        "paused": paused,
        "nodeSelector": {"matchLabels": {f"{ROLE}/{name}": ""}},
        "machineConfigSelector": configs,
        "configuration": {"name": f"rendered-{name}-1", "source": source},
    }
    if stream:
        spec["osImageStream"] = {"name": stream}
    return {"apiVersion": f"{MCO}/v1", "kind": "MachineConfigPool", "metadata": {"name": name}, "spec": spec}


def config(name: str, kernel_type: str = "", image: str = "", role: str = "", generated: bool = False) -> Object:
    """Return a MachineConfig."""
    metadata: Object = {"name": name}
    if role:
        metadata["labels"] = {f"{MCO}/role": role}
    if generated:
        metadata["annotations"] = {f"{MCO}/generated-by-controller-version": "v1"}
    spec = {"kernelType": kernel_type, "osImageURL": image}
    return {"apiVersion": f"{MCO}/v1", "kind": "MachineConfig", "metadata": metadata, "spec": spec}


def rendered(name: str, kernel_type: str = "default") -> Object:
    """Return the rendered MachineConfig of a pool."""
    return config(f"rendered-{name}-1", kernel_type, OLD_IMAGE, generated=True)


def streams(default: str, version: str = "v1") -> Object:
    """Return the OSImageStream."""
    status = {"defaultStream": default, "availableStreams": []}
    metadata = {"name": "cluster"}
    kind = {"apiVersion": f"{MCO}/{version}", "kind": "OSImageStream"}
    return {**kind, "metadata": metadata, "spec": {"defaultStream": default}, "status": status}


def cluster_version(*history: tuple[str, str]) -> Object:
    """Return the ClusterVersion with a history of states and versions, newest first."""
    updates = [{"state": state, "version": version} for state, version in history]
    metadata = {"name": "version"}
    return {"apiVersion": "config.openshift.io/v1", "kind": "ClusterVersion", "metadata": metadata,
            "spec": {"clusterID": "c"}, "status": {"history": updates}}  # fmt: skip


def module(name: str, selector: Mapping[str, str] = {}, **mapping: str) -> Object:
    """Return a Module for the nodes of the selector. No registry has its image."""
    kernel_mapping = {"regexp": ".", "containerImage": "registry.example/none:v1", **mapping}
    container = {"modprobe": {"moduleName": "none"}, "kernelMappings": [kernel_mapping]}
    return {
        "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
        "kind": "Module",
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {"selector": dict(selector), "moduleLoader": {"container": container}},
    }


def show() -> list[Object]:
    """Return a cluster with two streams, amd64 and arm64 nodes, and four pools: rt has rt kernels, edge is paused."""
    return [
        *(node(f"master-{number}", "master", taints=[MASTER_TAINT]) for number in range(3)),
        node("worker-0", "worker"),
        node("worker-1", "worker"),
        node("worker-2", "worker", arch="arm64", kernel=TODAY_ARM),
        node("rt-0", "worker", "rt", kernel=f"{TODAY}+rt"),
        node("rt-1", "worker", "rt", kernel=f"{TODAY}+rt"),
        node("edge-0", "worker", "edge", arch="arm64", kernel=TODAY_ARM),
        node("win-0", "worker", os="windows", kernel="10.0.20348"),
        pool("master"),
        pool("worker"),
        pool("rt"),
        pool("edge", paused=True, stream="rhel-10"),
        rendered("master"),
        rendered("worker"),
        rendered("rt", "realtime"),
        rendered("edge"),
        streams("rhel-9"),
        cluster_version(("Completed", "4.22.1"), ("Completed", "4.12.3")),
    ]


def toolkit(kernel: str, rt: str, stream: str, arch: str, rhel: str = "9.6", folders: Iterable[str] = ()) -> Image:
    """Return a driver toolkit."""
    named = {"KERNEL_VERSION": kernel, "RT_KERNEL_VERSION": rt, "RHEL_VERSION": rhel}
    members = [("etc/driver-toolkit-release.json", json.dumps(named).encode())]
    members += [(f"usr/src/kernels/{folder}/Makefile", b"") for folder in folders]
    return image([layer(members)], arch, {STREAM_LABEL: stream})


def release_images(version: str = "5.0.0") -> dict[str, Image]:
    """Return a release for two architectures, with the driver toolkits of two streams."""
    tags = [
        {"name": name, "from": {"kind": "DockerImage", "name": f"quay.io/dev/{name}:v1"}}
        for name in ("driver-toolkit", "driver-toolkit-10")
    ]
    body = json.dumps({"kind": "ImageStream", "metadata": {"name": version}, "spec": {"tags": tags}}).encode()
    releases = [image([layer([("release-manifests/image-references", body)])], arch) for arch in ("amd64", "arm64")]
    nine = [toolkit(AMD_9, RT_9, "rhel-9", "amd64"), toolkit(ARM_9, "", "rhel-9", "arm64")]
    ten = [toolkit(AMD_10, RT_10, "rhel-10", "amd64", "10.0"), toolkit(ARM_10, "", "rhel-10", "arm64", "10.0")]
    return {
        RELEASE: index(releases),
        "quay.io/dev/driver-toolkit:v1": index(nine),
        "quay.io/dev/driver-toolkit-10:v1": index(ten),
    }


def release_options(folder: Path, images: Mapping[str, Image] | None = None) -> tuple[str, str]:
    """Write a layout with the release. Return the options of a run on the layout."""
    layout = write_layout(folder / "images", images or release_images())
    return f"--release-image={RELEASE}", f"--image-layout={layout}"


def layered(name: str, containerfile: str, version: str = "v1") -> Object:
    """Return the MachineOSConfig of a pool that the cluster builds."""
    files = [{"containerfileArch": "NoArch", "content": containerfile}]
    spec: Object = {"machineConfigPool": {"name": name}}
    spec |= {"containerFile": files} if version == "v1" else {"buildInputs": {"containerFile": files}}
    return {"apiVersion": f"{MCO}/{version}", "kind": "MachineOSConfig", "metadata": {"name": name}, "spec": spec}


def node_pool(name: str, stream: str = "", arch: str = "amd64", configs: Iterable[str] = (),
              labels: Mapping[str, str] = {}, **more: str) -> Object:  # fmt: skip
    """Return a NodePool. more: namespace, paused, release."""
    spec: Object = {
        "arch": arch,
        "config": [{"name": name} for name in configs],
        "nodeLabels": dict(labels),
        "release": {"image": more.get("release", "")},
    }
    spec |= {"osImageStream": {"name": stream}} if stream else {}
    spec |= {"pausedUntil": more["paused"]} if "paused" in more else {}
    metadata = {"name": name, "namespace": more.get("namespace", "clusters")}
    return {"apiVersion": "hypershift.openshift.io/v1beta1", "kind": "NodePool", "metadata": metadata, "spec": spec}


def config_map(name: str, *configs: Object) -> Object:
    """Return a ConfigMap with the MachineConfigs of a NodePool."""
    text = "\n---\n".join(json.dumps(machine_config) for machine_config in configs)
    metadata = {"name": name, "namespace": "clusters"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"config": text}}


def node_modules(node_name: str, *modules: tuple[str, str, str], kernel: str = TODAY, **config: Any) -> Object:
    """Return the NodeModulesConfig of a node: namespace, name and image of each Module. config: more of each config."""
    base = {"modprobe": {"moduleName": "none", "dirName": "/opt"}, "insecurePull": False, "kernelVersion": kernel}
    entries = [
        {
            "namespace": namespace,
            "name": name,
            "serviceAccountName": "",
            "config": {**base, "containerImage": image, **config},
        }
        for namespace, name, image in modules
    ]
    return {
        "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
        "kind": "NodeModulesConfig",
        "metadata": {"name": node_name},
        "spec": {"modules": entries},
    }
