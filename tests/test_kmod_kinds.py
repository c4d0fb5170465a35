"""Kinds that bring kmods beside Module: what a node loads because of each, and the runs that judge them."""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmm_preflight.cluster.inventory import Inventory
from kmm_preflight.cluster.manifests import read_manifests
from kmm_preflight.errors import PreflightError, UsageProblem
from kmm_preflight.kernel_version import kernel_flavour
from kmm_preflight.model import ModuleName, TargetKernel
from kmm_preflight.nodes.cases import make_cases
from kmm_preflight.nodes.demand_elsewhere import pools_of
from kmm_preflight.nodes.target import Target
from kmm_preflight.planning.boot_time import BootTimeKmod
from kmm_preflight.planning.day1_machine_config import parse_day1_machine_config
from kmm_preflight.planning.managed_cluster_module import ManagedClusterModule
from kmm_preflight.planning.plan import Case, Plan, Unresolved
from kmm_preflight.planning.source import Spoke

from .demo import DEMO, KERNEL
from .fleets import AMD_9, RT_9, config, node, pool
from .runs import run_preflight

Object = dict[str, Any]
IMAGE = "registry.example/kmods/hello"


def boot_module_config(name: str = "boot", image: str = IMAGE, kmod: str = "hello", **spec: Any) -> Object:
    """Return a BootModuleConfig in namespace demo for the pool worker."""
    whole = {
        "kernelModuleImage": image,
        "kernelModuleName": kmod,
        "machineConfigName": f"99-{name}",
        "machineConfigPoolName": "worker",
        **spec,
    }
    return {
        "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
        "kind": "BootModuleConfig",
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {key: value for key, value in whole.items() if value is not None},
    }


def unit(**variables: str) -> str:
    """Return the unit of KMM 2.2 and later with these variables."""
    lines = [f'Environment="{name}={value}"' for name, value in variables.items()]
    return "\n".join(["[Service]", "EnvironmentFile=/etc/mco/proxy.env", *lines, "ExecStart=/usr/local/bin/x", ""])


def day1(
    name: str = "99-day1",
    contents: str = "",
    files: Mapping[str, Object] = {},
    role: str = "worker",
    unit_name: str = "replace-kernel-module.service",
    **more: Any,
) -> Object:
    """Return a MachineConfig with the unit. files has the contents of each path."""
    written = [{"path": path, "contents": body} for path, body in files.items()]
    ignition: Object = {
        "ignition": {"version": "3.2.0"},
        "systemd": {"units": [{"name": unit_name, "contents": contents, "enabled": True, **more}]},
        "storage": {"files": written},
    }
    manifest = config(name, role=role)
    manifest["spec"]["config"] = ignition
    return manifest


def url(text: str, compressed: bool = False) -> Object:
    """Return the contents of a file as a data URL with base64."""
    body = gzip.compress(text.encode()) if compressed else text.encode()
    source = "data:text/plain;base64," + base64.b64encode(body).decode()
    return {"source": source, "compression": "gzip"} if compressed else {"source": source}


NEWER = unit(KERNEL_MODULE="hello", KERNEL_MODULE_IMAGE=IMAGE, WORKER_IMAGE="registry.example/worker:1")
PULL, LOAD = "/usr/local/bin/pull-kernel-module-image.sh", "/usr/local/bin/replace-kernel-module.sh"
OLD_LOAD = f"podman run --privileged --entrypoint modprobe {IMAGE}:1 -d /opt hello\n"
OLD_PULL = f"podman pull --authfile /var/lib/kubelet/config.json {IMAGE}:1\n"
COMPUTED = (
    f'kernel_module_image="{IMAGE}"\ntag=$(uname -r)\nfull="$kernel_module_image:$tag"\n'
    "podman pull --authfile /var/lib/kubelet/config.json registry.example/worker:1\n"
    "podman pull --authfile /var/lib/kubelet/config.json $full\n"
)
PLAIN = {"source": "data:," + OLD_LOAD.replace(" ", "%20")}


def given(*manifests: Object) -> Inventory:
    """Return the inventory of manifests."""
    return read_manifests(["-"], "default", io.StringIO(yaml.safe_dump_all(manifests)))


def case_of(inventory: Inventory, kernel: str) -> Case:
    """Return the case of the only object on a kernel."""
    target = TargetKernel(kernel, "amd64", None, kernel_flavour(kernel), None, "named")
    (source,) = inventory.judged()
    (case,) = make_cases([source], {source.name: (Target(target),)})
    return case


@pytest.mark.parametrize(
    ("manifest", "kernel", "image"),
    [
        (boot_module_config(), AMD_9, f"{IMAGE}:{AMD_9}"),
        (boot_module_config(image="localhost:5000/hello"), AMD_9, f"localhost:5000/hello:{AMD_9}"),
        (day1(contents=NEWER), AMD_9, f"{IMAGE}:{AMD_9}"),
        (day1(contents=NEWER, unit_name="99-day1-replace-kernel-module.service"), AMD_9, f"{IMAGE}:{AMD_9}"),
        (day1(contents=f"Environment=KERNEL_MODULE=hello KERNEL_MODULE_IMAGE={IMAGE}"), AMD_9, f"{IMAGE}:{AMD_9}"),
        (day1(files={LOAD: url(OLD_LOAD), PULL: url(OLD_PULL)}), AMD_9, f"{IMAGE}:1"),
        (day1(files={LOAD: url(OLD_LOAD, True), PULL: url(OLD_PULL, True)}), AMD_9, f"{IMAGE}:1"),
        (day1(files={LOAD: PLAIN, PULL: url(OLD_PULL)}), RT_9, f"{IMAGE}:1"),
        (day1(files={LOAD: url(OLD_LOAD), PULL: url(COMPUTED)}), AMD_9, f"{IMAGE}:{AMD_9}"),
    ],
)  # fmt: skip
def test_the_image_has_the_kernel_as_the_node_prints_it(manifest: Object, kernel: str, image: str) -> None:
    case = case_of(given(manifest), kernel)
    assert isinstance(case, Plan), case
    assert (case.image_name, case.kmod, case.folder) == (image, "hello", f"opt/lib/modules/{kernel}")
    assert case.at_boot
    assert (case.secret, case.build, case.sign) == (None, None, None)


@pytest.mark.parametrize("kind", ["BootModuleConfig", "MachineConfig"])
@pytest.mark.parametrize(
    ("image", "kernel", "finding"),
    [
        (f"{IMAGE}:1.2", AMD_9, "boot-image-tagged"),
        (f"{IMAGE}@sha256:{'0' * 64}", AMD_9, "boot-image-tagged"),
        (f"{IMAGE}:1.2", RT_9, "boot-image-tagged"),
        (IMAGE, RT_9, "boot-tag-impossible"),
        (IMAGE, "5.14.0-570.19.1.el9_6.aarch64+64k", "boot-tag-impossible"),
        (IMAGE, "6.1.0" + "x" * 124, "boot-tag-impossible"),
        ("Registry.example/HELLO", AMD_9, "image-name-invalid"),
    ],
)
def test_an_image_that_no_registry_can_have(kind: str, image: str, kernel: str, finding: str) -> None:
    boot = boot_module_config(image=image)
    older = day1(contents=unit(KERNEL_MODULE="hello", KERNEL_MODULE_IMAGE=image))
    case = case_of(given(boot if kind == "BootModuleConfig" else older), kernel)
    assert isinstance(case, Unresolved)
    assert case.finding.id == finding
    assert case.image_name == f"{image}:{kernel}"


def test_all_fields_of_a_boot_module_config() -> None:
    spec: dict[str, Any] = {
        "inTreeModulesToRemove": ["a", "b"],
        "firmwareFilesPath": "/firmware",
        "workerImage": "registry.example/w:1",
    }
    inventory = given(boot_module_config(**spec))
    (source,) = inventory.other_sources
    assert isinstance(source, BootTimeKmod)
    assert source.worker_image == "registry.example/w:1"
    case = case_of(inventory, AMD_9)
    assert isinstance(case, Plan)
    assert (case.in_tree_modules_to_remove, case.firmware_path) == (("a", "b"), "/firmware")
    assert case.id == f"BootModuleConfig:demo/boot@{AMD_9}"


@pytest.mark.parametrize(
    ("variables", "removed"),
    [
        ({"IN_TREE_MODULE_TO_REMOVE": "ice"}, ("ice",)),
        ({"IN_TREE_MODULES_TO_REMOVE": "irdma ice"}, ("irdma", "ice")),
        ({"IN_TREE_MODULE_TO_REMOVE": ""}, ()),
    ],
)
def test_in_tree_kmods_of_a_machine_config(variables: dict[str, str], removed: tuple[str, ...]) -> None:
    contents = unit(KERNEL_MODULE="hello", KERNEL_MODULE_IMAGE=IMAGE, FIRMWARE_FILES_PATH="/fw", **variables)
    case = case_of(given(day1(contents=contents)), AMD_9)
    assert isinstance(case, Plan)
    assert (case.in_tree_modules_to_remove, case.firmware_path) == (removed, "/fw")
    assert case.id == f"MachineConfig:99-day1@{AMD_9}"


@pytest.mark.parametrize(
    "manifest",
    [
        config("99-worker-ssh", role="worker"),
        day1(contents=NEWER, unit_name="something-else.service"),
        day1(contents=NEWER, enabled=False),
        day1(contents=NEWER, mask=True),
    ],
)
def test_a_machine_config_without_a_unit_that_loads(manifest: Object) -> None:
    assert parse_day1_machine_config(manifest) is None


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (day1(), "names no image"),
        (day1(contents=unit(KERNEL_MODULE_IMAGE=IMAGE)), "names no kmod"),
        (day1(files={PULL: {"source": "https://files.example/pull.sh"}}), "expected a data URL"),
        (day1(files={PULL: {"source": "data:;base64,%%%"}}), "expected base64"),
        (day1(files={PULL: {"source": "data:,x", "compression": "gzip"}, LOAD: url("x")}), "names no image"),
        (day1(files={PULL: url("podman pull $(cat /etc/image)"), LOAD: url(OLD_LOAD)}), "names no image"),
        (day1(files={PULL: url("podman pull $IMAGE"), LOAD: url(OLD_LOAD)}), "compute the image's name"),
        (day1(files={PULL: url("#" * (2 << 20), True), LOAD: url(OLD_LOAD)}), "more than 1 MiB"),
    ],
)
def test_a_machine_config_whose_kmod_is_unknown_is_not_judged(manifest: Object, words: str) -> None:
    with pytest.raises(PreflightError, match=words):
        parse_day1_machine_config(manifest)
    (one,) = given(manifest).not_judged
    assert one.subject == "MachineConfig 99-day1"
    assert words in one.reason


def test_a_rendered_machine_config_counts_only_without_its_source() -> None:
    source, whole = day1(contents=NEWER), day1("rendered-worker-1", contents=NEWER, role="")
    both = given(pool("worker", sources=["99-day1"]), source, whole)
    assert [str(one.name) for one in both.judged()] == ["MachineConfig:99-day1"]
    alone = given(pool("worker", sources=["99-day1"]), whole)
    assert [str(one.name) for one in alone.judged()] == ["MachineConfig:rendered-worker-1"]
    old = day1("rendered-worker-0", contents=NEWER, role="")
    assert given(pool("worker", sources=["99-day1"]), old).judged() == []


def test_the_machine_config_of_a_boot_module_config_is_not_judged_twice() -> None:
    written, other = day1("99-boot", contents=NEWER), day1("99-other", contents=NEWER)
    inventory = given(boot_module_config(), written, other)
    assert [str(one.name) for one in inventory.judged()] == ["MachineConfig:99-other", "BootModuleConfig:demo/boot"]


def test_every_pool_that_takes_the_machine_config() -> None:
    """A custom pool takes the MachineConfigs of role worker too."""
    fleet = [node("a", "worker"), pool("worker"), pool("rt"), pool("master")]
    inventory = given(boot_module_config(), day1(contents=NEWER, role="rt"), *fleet)
    assert inventory.fleet
    placements = {str(one.name): one.placement for one in inventory.other_sources if isinstance(one, BootTimeKmod)}
    taking = {name: [one.name for one in pools_of(place, inventory.fleet)] for name, place in placements.items()}
    assert taking == {"BootModuleConfig:demo/boot": ["rt", "worker"], "MachineConfig:99-day1": ["rt"]}


@pytest.mark.parametrize(
    "missing", ["kernelModuleImage", "kernelModuleName", "machineConfigName", "machineConfigPoolName"]
)
def test_a_boot_module_config_that_the_crd_refuses(missing: str) -> None:
    whole: dict[str, Any] = {missing: None}
    with pytest.raises(UsageProblem, match=f"BootModuleConfig boot: spec.{missing}: missing, expected text"):
        given(boot_module_config(**whole))


def test_a_kind_in_another_version_is_not_judged() -> None:
    (one,) = given({**boot_module_config(), "apiVersion": "kmm.sigs.x-k8s.io/v2"}).not_judged
    assert one.subject == "BootModuleConfig boot"


def managed(name: str = "hello", namespace: str = "spokes", regexp: str = "^.+$", **spec: Any) -> Object:
    """Return a ManagedClusterModule."""
    mapping = {"regexp": regexp, "containerImage": IMAGE + "/${MOD_NAMESPACE}:${KERNEL_FULL_VERSION}"}
    container = {"modprobe": {"moduleName": "hello"}, "kernelMappings": [mapping]}
    module_spec = {"selector": {"gpu": "yes"}, "moduleLoader": {"container": container}}
    return {
        "apiVersion": "hub.kmm.sigs.x-k8s.io/v1beta1",
        "kind": "ManagedClusterModule",
        "metadata": {"name": name},
        "spec": {"moduleSpec": module_spec, "spokeNamespace": namespace, "selector": {"site": "a"}, **spec},
    }


def managed_cluster(name: str, *kernels: str, site: str = "a") -> Object:
    """Return a ManagedCluster whose nodes run these kernels."""
    claims = [{"name": "kernel-versions.kmm.node.kubernetes.io", "value": "\n".join(kernels)}] if kernels else []
    return {
        "apiVersion": "cluster.open-cluster-management.io/v1",
        "kind": "ManagedCluster",
        "metadata": {"name": name, "labels": {"site": site}},
        "status": {"clusterClaims": claims},
    }


def test_a_managed_cluster_module_is_the_module_of_its_spokes() -> None:
    case = case_of(given(managed()), RT_9)
    assert isinstance(case, Plan)
    assert case.module == ModuleName("spokes", "hello", "ManagedClusterModule")
    assert case.image_name == f"{IMAGE}/spokes:{RT_9.replace('+', '_')}"


def test_the_spokes_that_the_selector_matches_with_their_kernels() -> None:
    clusters = managed_cluster("one", AMD_9, RT_9), managed_cluster("two"), managed_cluster("three", AMD_9, site="b")
    (source,) = given(managed(), *clusters).other_sources
    assert isinstance(source, ManagedClusterModule)
    assert source.placement.spokes == (Spoke("one", (AMD_9, RT_9)), Spoke("two"))
    (without,) = given(managed()).other_sources
    assert isinstance(without, ManagedClusterModule)
    assert without.placement.spokes is None


def test_all_kinds_in_one_run(tmp_path: Path) -> None:
    """The objects that bring a kmod of the demo are verified, the others refuted; each has its kind in its name."""
    documents = [
        boot_module_config(),
        boot_module_config("other", kmod="absent"),
        boot_module_config("tagged", image=f"{IMAGE}:1"),
        day1(contents=NEWER),
        managed(moduleSpec={"moduleLoader": {"container": _container(f"{IMAGE}:{KERNEL}")}, "selector": {}}),
    ]
    file = tmp_path / "kinds.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    run = run_preflight(tmp_path, *DEMO, f"--manifests={file}")
    assert run.returncode == 1, run.output
    assert {one["kind"]: one["verdict"] for one in run.document["modules"] if one["name"] != "other"} | {
        one["name"]: one["verdict"] for one in run.document["modules"]
    } == {
        "BootModuleConfig": "refuted",
        "MachineConfig": "verified",
        "ManagedClusterModule": "verified",
        "boot": "verified",
        "other": "refuted",
        "tagged": "refuted",
        "99-day1": "verified",
        "hello": "verified",
    }
    assert f"BootModuleConfig:demo/tagged@{KERNEL}" in run.stdout
    named = {case.get("name") for case in run.junit.iter("testcase")}
    assert any("BootModuleConfig:demo/boot" in str(name) for name in named), named
    only = run_preflight(tmp_path, *DEMO, f"--manifests={file}", "-k", "BootModuleConfig and boot and not other")
    assert only.returncode in (0, 1), only.output


def _container(image: str) -> Object:
    return {"modprobe": {"moduleName": "hello"}, "kernelMappings": [{"regexp": ".", "containerImage": image}]}
