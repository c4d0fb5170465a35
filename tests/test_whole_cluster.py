"""A whole cluster on a real API server: cases, verdicts and listed objects equal a table that was made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import account, namespaces, serve_machines
from tests.demo import GOOD_IMAGE, demo_images
from tests.fleets import MASTER_TAINT, cluster_version, node, pool, rendered, streams
from tests.real.drivers import small_kmods
from tests.real.kernels import upgrade_kernels
from tests.real.kmod import headers, run_checked
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import released
from tests.real.layout import Image, Member, folder, image, layer, write_layout
from tests.real.requirement import need_tool
from tests.runs import Run, run_preflight

pytestmark = pytest.mark.slow

Object = dict[str, Any]
RELEASE, TOOLKIT = "quay.io/openshift-release-dev/ocp-release:4.20.1-x86_64", "quay.io/dev/driver-toolkit:v1"
TODAY = "6.1.0-1-amd64"
COREOS = "Red Hat Enterprise Linux CoreOS 418.94.202501010101-0"
VERSION = "kmm.node.kubernetes.io/version-module.demo.ordered"
FILES = ("Module.symvers", ".config")


@pytest.fixture(scope="module")
def kernels() -> tuple[str, str]:
    """Return the standard kernel and the rt kernel of the release."""
    releases = upgrade_kernels()
    plain = next(name for name in reversed(releases) if name.startswith("6.1.") and name.count("-") == 2)
    return plain, next(name for name in releases if "-rt-" in name)


def toolkit(plain: str, rt: str) -> Image:
    """Return the driver toolkit of both kernels."""
    files = [
        Member(f"usr/src/kernels/{kernel}/{name}", (headers(kernel) / name).read_bytes())
        for kernel in (plain, rt)
        for name in FILES
    ]
    named = json.dumps({"KERNEL_VERSION": plain, "RT_KERNEL_VERSION": rt, "RHEL_VERSION": "9.6"}).encode()
    return image(
        [layer([folder("usr"), *files]), layer([("etc/driver-toolkit-release.json", named)])],
        labels={"io.openshift.os.streamclass": "rhel-9"},
    )


def release() -> Image:
    """Return the release image."""
    tags = [{"name": "driver-toolkit", "from": {"kind": "DockerImage", "name": TOOLKIT}}]
    body = {"kind": "ImageStream", "metadata": {"name": "4.20.1"}, "spec": {"tags": tags}}
    return image([layer([("release-manifests/image-references", json.dumps(body).encode())])])


def kmod_image(scratch: Path, kmods: Mapping[str, Mapping[str, bytes]]) -> Image:
    """Return an image with a shell and these kmods by kernel and file name, as depmod leaves them."""
    shell = next(blob for blob in demo_images()[GOOD_IMAGE].blobs if "layer" in blob.media_type)
    depmod = need_tool("depmod", "apt-get install kmod")
    for kernel, files in kmods.items():
        for name, content in files.items():
            path = scratch / "opt/lib/modules" / kernel / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        run_checked([depmod, "-b", str(scratch / "opt"), kernel], scratch)
    paths = sorted(path for path in (scratch / "opt").rglob("*") if path.is_file())
    return image([shell, layer([(str(path.relative_to(scratch)), path.read_bytes()) for path in paths])])


def images(tmp_path: Path, plain: str, rt: str) -> dict[str, Image]:
    """Return all images of the cluster by name."""
    own, of_rt = small_kmods(plain), small_kmods(rt)
    both = {plain: {"m.ko": own["pf_plain"]}, rt: {"m.ko": of_rt["pf_plain"]}}

    def made(name: str, kmods: Mapping[str, Mapping[str, bytes]]) -> Image:
        return kmod_image(tmp_path / "made" / name, kmods)

    return {
        RELEASE: release(),
        TOOLKIT: toolkit(plain, rt),
        "r.example/both:1": made("both", both),
        "r.example/plain:1": made("plain", {plain: {"m.ko": own["pf_plain"]}}),
        "r.example/old:1": made("old", {TODAY: {"m.ko": own["pf_plain"]}}),
        f"r.example/boot:{plain}": made("boot", {plain: {"m.ko": own["pf_plain"]}}),
    }


def worker(name: str, *roles: str, **more: Any) -> Object:
    """Return a node with CoreOS that runs today's kernel."""
    made = node(name, "worker", *roles, kernel=TODAY, labels=more.pop("labels", {}), **more)
    made["status"]["nodeInfo"]["osImage"] = more.get("system", COREOS)
    return made


def nodes() -> list[Object]:
    """Return 12 nodes in 4 of 5 pools: the pool rt is scaled to zero."""
    masters = [node(f"master-{number}", "master", kernel=TODAY, taints=[MASTER_TAINT]) for number in range(3)]
    for master in masters:
        master["status"]["nodeInfo"]["osImage"] = COREOS
    return [
        *masters,
        worker("worker-0", labels={"team": "a", VERSION: "2"}),
        worker("worker-1", labels={"team": "a", VERSION: "1"}),
        worker("worker-2", labels={"team": "a"}),
        worker("worker-3", labels={"feature.node.kubernetes.io/kernel-version.full": TODAY}),
        worker("gpu-0", "gpu"),
        worker("gpu-1", "gpu"),
        worker("edge-0", "edge"),
        worker("edge-1", "edge"),
        worker("rhel-0", labels={"site": "rhel"}, system="Red Hat Enterprise Linux 9.4 (Plow)"),
    ]


def pools() -> list[Object]:
    """Return five pools with their rendered MachineConfigs."""
    enforced = rendered("gpu")
    enforced["spec"]["kernelArguments"] = ["module.sig_enforce=1"]
    names = ("master", "worker", "gpu", "edge", "rt")
    made = [pool(name, paused=name == "edge") for name in names]
    return [*made, enforced, rendered("rt", "realtime"), *(rendered(name) for name in ("master", "worker", "edge"))]


def module(name: str, selector: Mapping[str, str], image_name: str = "r.example/plain:1", **container: Any) -> Object:
    """Return a Module of namespace demo that loads the kmod m."""
    whole = {"modprobe": {"moduleName": "m"}, "kernelMappings": [{"regexp": ".", "containerImage": image_name}]}
    spec = {"selector": dict(selector), "moduleLoader": {"container": {**whole, **container}}}
    metadata = {"name": name, "namespace": "demo"}
    return {"apiVersion": "kmm.sigs.x-k8s.io/v1beta1", "kind": "Module", "metadata": metadata, "spec": spec}


def role(name: str) -> dict[str, str]:
    """Return the label of a role."""
    return {f"node-role.kubernetes.io/{name}": ""}


def modules() -> list[Object]:
    """Return nine Modules."""
    return [
        module("every-worker", role("worker"), "r.example/both:1"),
        module("no-rt-kmod", role("worker")),
        module("on-rt", role("rt"), "r.example/both:1"),
        module("on-gpu", role("gpu"), "r.example/both:1"),
        module("on-edge", role("edge"), "r.example/both:1"),
        module("ordered", {"team": "a"}, version="2"),
        module("on-rhel", {"site": "rhel"}),
        module("by-kernel", {"feature.node.kubernetes.io/kernel-version.full": TODAY}),
        module("nowhere", {"site": "moon"}),
    ]


def others() -> list[Object]:
    """Return two BootModuleConfigs, a ManagedClusterModule, and the NodeModulesConfig of the node that is behind."""
    boot = {"kernelModuleImage": "r.example/boot", "kernelModuleName": "m", "machineConfigPoolName": "gpu"}
    container = module("x", {}, "r.example/both:1")["spec"]["moduleLoader"]["container"]
    kept = {
        "name": "ordered",
        "namespace": "demo",
        "version": "1",
        "config": {
            "containerImage": "r.example/plain:1",
            "kernelVersion": TODAY,
            "imagePullPolicy": "Always",
            "insecurePull": False,
            "modprobe": {"moduleName": "m", "dirName": "/opt"},
        },
    }
    return [
        {
            "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
            "kind": "BootModuleConfig",
            "metadata": {"name": name, "namespace": "demo"},
            "spec": {**boot, "machineConfigName": f"99-{name}", **more},
        }
        for name, more in (("boot-gpu", {}), ("boot-edge", {"machineConfigPoolName": "edge", "kernelModuleName": "no"}))
    ] + [
        {
            "apiVersion": "hub.kmm.sigs.x-k8s.io/v1beta1",
            "kind": "ManagedClusterModule",
            "metadata": {"name": "spokes"},
            "spec": {
                "spokeNamespace": "demo",
                "selector": {"site": "a"},
                "moduleSpec": {"selector": {}, "moduleLoader": {"container": container}},
            },
        },
        {
            "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
            "kind": "NodeModulesConfig",
            "metadata": {"name": "worker-1"},
            "spec": {"modules": [kept]},
        },
    ]


def everything() -> list[Object]:
    """Return all objects of the cluster."""
    fleet = [*nodes(), *pools(), streams("rhel-9"), cluster_version(("Completed", "4.18.3"))]
    return [*fleet, *modules(), *others()]


# Case: verdict, and the finding that decides. Written by hand from the objects above.
TABLE = {
    "by-kernel plain": ("refuted", "selector-lost"),  # after the upgrade no node has today's kernel in its labels
    "every-worker plain": ("refuted", "boot-signature"),  # pool gpu enforces signatures
    "every-worker rt": ("verified", None),  # the pool rt comes later
    "every-worker unknown": ("undecided", "node-not-coreos"),  # node rhel-0
    "no-rt-kmod plain": ("refuted", "boot-signature"),
    "no-rt-kmod rt": ("refuted", "kmod-absent"),
    "no-rt-kmod unknown": ("undecided", "node-not-coreos"),
    "nowhere plain": ("refuted", "boot-signature"),  # any pool of workers may get such a node, pool gpu too
    "nowhere rt": ("refuted", "kmod-absent"),
    "on-edge plain": ("verified", None),
    "on-gpu plain": ("refuted", "boot-signature"),
    "on-rhel unknown": ("undecided", "node-not-coreos"),
    "on-rt rt": ("verified", None),
    "ordered plain": ("verified", None),  # node worker-0; worker-2 has no label
    "ordered plain version 1": ("verified", None),  # node worker-1 keeps its image
    "BootModuleConfig:boot-edge plain": ("refuted", "kmod-absent"),
    "BootModuleConfig:boot-gpu plain": ("refuted", "boot-signature"),
    "ManagedClusterModule:spokes plain": ("verified", None),
    "ManagedClusterModule:spokes rt": ("verified", None),
}
NOVELTY = {
    "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
    "kind": "InitramfsModule",
    "metadata": {"name": "early", "namespace": "demo"},
}


def found(run: Run) -> dict[str, tuple[str, str | None]]:
    """Return the verdict and the deciding finding of each case."""
    return {_case(entry): (entry["verdict"], _deciding(entry)) for entry in run.document["modules"]}


def _case(entry: Mapping[str, Any]) -> str:
    kind = "" if entry["kind"] == "Module" else f"{entry['kind']}:"
    kernel = "rt" if "-rt-" in entry["kernel"] else "unknown" if entry["kernel"].startswith("unknown") else "plain"
    version = f" version {entry['version']}" if entry.get("version") else ""
    return f"{kind}{entry['name']} {kernel}{version}"


def _deciding(entry: Mapping[str, Any]) -> str | None:
    return next((one["id"] for one in entry["findings"] if one["severity"] in ("refutes", "undecided")), None)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, kernels: tuple[str, str]) -> tuple[str, ...]:
    """Return the options of all runs but for the source of the objects."""
    folder = tmp_path_factory.mktemp("images")
    layout = write_layout(folder / "layout", images(folder, *kernels))
    return f"--release-image={RELEASE}", f"--image-layout={layout}", "--proof=kernel"


def test_the_cluster_as_manifests(tmp_path: Path, options: tuple[str, ...]) -> None:
    file = tmp_path / "cluster.json"
    file.write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": [*everything(), NOVELTY]}))
    run = run_preflight(tmp_path, *options, f"--manifests={file}")
    assert found(run) == TABLE, run.output
    assert run.returncode == 1
    assert [item["subject"] for item in run.document["notJudged"]] == ["InitramfsModule early"]
    assert run.document["sentence"] == (
        "7 of 12 Modules will not load (9 of 19 Module and kernel pairs); "
        "undecided: 3 of 12 Modules (3 of 19 Module and kernel pairs); 1 object, document or file not judged."
    )


def test_the_cluster_on_an_api_server(tmp_path: Path, options: tuple[str, ...]) -> None:
    with Cluster(tmp_path / "kubernetes") as cluster:
        cluster.apply_crds(released("kmm-main"), released("kmm-hub"))
        serve_machines(cluster, tmp_path)
        cluster.apply(*namespaces("demo", "openshift-config"), account("demo"), *everything())
        run = run_preflight(tmp_path, *options, f"--kubeconfig={cluster.kubeconfig()}")
    assert found(run) == TABLE, run.output
    assert run.returncode == 1
    assert run.document["notJudged"] == []
