"""A Module's manifest becomes a value, or is refused with the name of the wrong field."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kmm_preflight.errors import Malformed
from kmm_preflight.model import Flavour, ModuleName, RegistryTLS, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.container import Container, KernelMapping
from kmm_preflight.planning.module import Module, is_namespace, parse_module
from kmm_preflight.planning.plan import Build, Plan, Sign

CONTAINER = "spec.moduleLoader.container"
MAPPING = f"{CONTAINER}.kernelMappings[0]"
MODPROBE = f"{CONTAINER}.modprobe"

LEAST: dict[str, Any] = {
    "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
    "kind": "Module",
    "metadata": {"name": "m", "namespace": "ns"},
    "spec": {
        "selector": {"node-role.kubernetes.io/worker": ""},
        "moduleLoader": {
            "container": {
                "kernelMappings": [{"regexp": "^.+$", "containerImage": "r/i:t"}],
                "modprobe": {"moduleName": "kmod"},
            }
        },
    },
}
WORKERS = (("node-role.kubernetes.io/worker", ""),)
KERNEL = TargetKernel("5.14.0+rt", "amd64", None, Flavour.RT, None, "")
_GONE = object()


def _manifest(changes: dict[str, object]) -> dict[str, Any]:
    """Return the smallest Module, changed at paths such as spec.moduleLoader.container.kernelMappings[0].literal."""
    manifest = copy.deepcopy(LEAST)
    for path, value in changes.items():
        here: Any = manifest
        *parents, last = path.replace("[0]", ".0").split(".")
        for part in parents:
            here = here[0] if part == "0" else here.setdefault(part, {})
        if value is _GONE:
            del here[last]
        else:
            here[0 if last == "0" else last] = value
    return manifest


def test_the_smallest_module() -> None:
    mapping = KernelMapping(regexp="^.+$", container_image="r/i:t")
    container = Container((mapping,), module_name="kmod")
    assert parse_module(LEAST, "unused") == Module(ModuleName("ns", "m"), container, selector=WORKERS)


def test_the_whole_module() -> None:
    tls = {"insecure": True, "insecureSkipTLSVerify": True}
    build = {
        "dockerfileConfigMap": {"name": "d"},
        "buildArgs": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}],
        "secrets": [{"name": "s"}],
        "selector": {"k": "v"},
        "baseImageRegistryTLS": tls,
        "kanikoParams": {"tag": "t"},
    }
    sign = {
        "unsignedImage": "u",
        "keySecret": {"name": "k"},
        "certSecret": {"name": "c"},
        "filesToSign": ["/a.ko"],
        "unsignedImageRegistryTLS": {"insecureSkipTLSVerify": True},
    }
    sections = {"containerImage": "r/i", "registryTLS": tls, "build": build, "sign": sign}
    container = {
        **sections,
        "inTreeModulesToRemove": ["a", "b"],
        "imagePullPolicy": "Always",
        "version": "1",
        "kernelMappings": [
            {"literal": "5.14.0", "inTreeModulesToRemove": []},
            {"regexp": "^5", **sections, "registryTLS": {}, "inTreeModulesToRemove": ["c"]},
        ],
        "modprobe": {
            "moduleName": "kmod",
            "dirName": "/usr",
            "firmwarePath": "/firmware",
            "parameters": ["p=1"],
            "args": {"load": ["-v"]},
            "modulesLoadingOrder": ["kmod", "dep"],
        },
    }
    both = RegistryTLS(insecure=True, insecure_skip_tls_verify=True)
    parsed_build = Build("d", (("A", "1"), ("B", "")), ("s",), (("k", "v"),), both)
    parsed_sign = Sign("u", "k", "c", ("/a.ko",), RegistryTLS(insecure_skip_tls_verify=True))
    manifest = _manifest(
        {
            CONTAINER: container,
            "spec.imageRepoSecret": {"name": "pull"},
            "metadata.deletionTimestamp": "2026-01-01T00:00:00Z",
        }
    )
    assert parse_module(manifest, "") == Module(
        ModuleName("ns", "m"),
        Container(
            (
                KernelMapping("5.14.0", in_tree_modules_to_remove=()),
                KernelMapping(None, "^5", "r/i", RegistryTLS(), parsed_build, parsed_sign, None, ("c",)),
            ),
            "r/i", both, parsed_build, parsed_sign, None, ("a", "b"), "kmod", "/usr", ("kmod", "dep"), "/firmware",
            ("-v",), ("p=1",), "Always",
        ),
        deleting=True,
        secret="pull",
        selector=WORKERS,
        version="1",
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"spec.moduleLoader": _GONE}, id="no moduleLoader"),
        pytest.param({"spec.moduleLoader": None}, id="moduleLoader null"),
        pytest.param({"spec.moduleLoader": _GONE, "spec.devicePlugin": {"container": 5}}, id="device plugin only"),
    ],
)
def test_without_a_loader(changes: dict[str, object]) -> None:
    assert parse_module(_manifest(changes), "") == Module(ModuleName("ns", "m"), None, selector=WORKERS)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"spec.selector": {}}, id="empty selector"),
        pytest.param({"spec.imageRepoSecret": None}, id="null is absent"),
        pytest.param({"spec.unknown": {"x": 1}}, id="unknown field"),
        pytest.param({f"{MAPPING}.containerImage": "", f"{CONTAINER}.containerImage": "r/i"}, id="image inherited"),
        pytest.param({MODPROBE: {"rawArgs": {"load": ["a"], "unload": ["b"]}}}, id="rawArgs"),
        pytest.param({f"{MODPROBE}.rawArgs": {}}, id="empty rawArgs beside moduleName"),
        pytest.param({f"{MODPROBE}.modulesLoadingOrder": ["kmod", "b", "c"]}, id="loading order"),
        pytest.param({f"{MODPROBE}.dirName": ""}, id="empty dirName is the default"),
        pytest.param({f"{MODPROBE}.dirName": "/a..b"}, id="dots in a name"),
        pytest.param({"metadata.name": "a.b-c." + "d" * 200}, id="long name"),
        pytest.param({f"{MAPPING}.regexp": r"^.+\fc37\.x86_64$"}, id="regexp that never matches"),
        pytest.param({f"{MAPPING}.inTreeModuleToRemove": "", f"{MAPPING}.inTreeModulesToRemove": ["a"]}, id="in-tree"),
    ],
)
def test_accepted(changes: dict[str, object]) -> None:
    parse_module(_manifest(changes), "")


@pytest.mark.parametrize(
    ("directory", "folder"),
    [
        ("", "opt"), ("opt", "opt"), ("/opt/x/../", "opt"), ("/opt//x/", "opt/x"), ("//opt", "opt"), ("./a/./b", "a/b"),
        ("/..", ""), ("../../etc", "etc"), ("/a/../../b/", "b"), ("/", ""), (".", ""), ("/a..b", "a..b"),
    ],
)  # fmt: skip
def test_any_folder_is_accepted(directory: str, folder: str) -> None:
    """CRD and webhook have no rule for dirName. KMM joins it with Go's path.Join."""
    container = parse_module(_manifest({f"{MODPROBE}.dirName": directory}), "").container
    assert container
    plan = Plan(ModuleName("ns", "m"), KERNEL, Reference.parse("r/i:t"), directory=container.directory)
    assert plan.folder == f"{folder}/lib/modules/5.14.0+rt".lstrip("/")


def test_a_manifest_without_a_namespace_gets_that_of_the_run() -> None:
    manifest = _manifest({"metadata.namespace": _GONE})
    assert parse_module(manifest, "default").name == ModuleName("default", "m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"apiVersion": "kmm.sigs.x-k8s.io/v1alpha1"},
            "apiVersion: got text 'kmm.sigs.x-k8s.io/v1alpha1', expected kmm.sigs.x-k8s.io/v1beta1, the only version",
            id="v1alpha1",
        ),
        pytest.param(
            {"apiVersion": "kmm.sigs.k8s.io/v1beta1"}, "apiVersion: got text 'kmm.sigs.k8s.io/v1beta1'", id="old group"
        ),
        pytest.param({"apiVersion": _GONE}, "apiVersion: missing", id="no apiVersion"),
        pytest.param({"apiVersion": 1}, "apiVersion: got number 1, expected text", id="apiVersion a number"),
        pytest.param({"metadata": _GONE}, "metadata.name: missing", id="no metadata"),
        pytest.param({"metadata": "x"}, "metadata: got text 'x', expected a mapping", id="metadata a text"),
        pytest.param({"metadata.name": _GONE}, "metadata.name: missing", id="no name"),
        pytest.param({"metadata.name": ""}, "metadata.name: got text ''", id="empty name"),
        pytest.param({"metadata.name": "My_Module"}, "metadata.name: got text 'My_Module'", id="bad name"),
        pytest.param({"metadata.name": "a" * 254}, "metadata.name: got text", id="name of 254"),
        pytest.param({"metadata.name": "{{ .Values.x }}"}, "metadata.name: got text '{{ .Values.x }}'", id="template"),
        pytest.param({"metadata.name": 5}, "metadata.name: got number 5, expected text (quote it)", id="name a number"),
        pytest.param({"metadata.namespace": "a.b"}, "metadata.namespace: got text 'a.b'", id="bad namespace"),
        pytest.param({"metadata.namespace": "../x"}, "metadata.namespace: got text '../x'", id="namespace a path"),
        pytest.param({"metadata.namespace": "a" * 64}, "metadata.namespace: got text", id="namespace of 64"),
        pytest.param({"spec": None}, "spec: missing, expected the Module's spec", id="spec null"),
        pytest.param({"spec": []}, "spec: got a list of 0, expected a mapping", id="spec a list"),
        pytest.param({"spec.selector": _GONE}, "spec.selector: missing, expected a node selector", id="selector"),
        pytest.param(
            {"spec.selector": ["a"]}, "spec.selector: got a list of 1, expected a mapping", id="selector list"
        ),
        pytest.param({"spec.selector": {"a": True}}, "spec.selector.a: got true, expected text", id="selector true"),
        pytest.param({"spec.selector": {1: "a"}}, "spec.selector: got a mapping, expected a mapping", id="number key"),
        pytest.param({"spec.imageRepoSecret": "s"}, "spec.imageRepoSecret: got text 's'", id="secret as in the docs"),
        pytest.param({"spec.moduleLoader": {}}, f"{CONTAINER}: missing", id="loader without container"),
        pytest.param({"spec.moduleLoader": False}, "spec.moduleLoader: got false, expected a mapping", id="loader"),
        pytest.param({f"{CONTAINER}.kernelMappings": _GONE}, f"{CONTAINER}.kernelMappings: missing", id="mappings"),
        pytest.param(
            {f"{CONTAINER}.kernelMappings": []},
            f"{CONTAINER}.kernelMappings: got a list of 0, expected at least one kernel mapping",
            id="kernelMappings empty",
        ),
        pytest.param(
            {f"{CONTAINER}.kernelMappings": {}},
            f"{CONTAINER}.kernelMappings: got a mapping, expected a list",
            id="kernelMappings a mapping",
        ),
        pytest.param({MAPPING: "x"}, f"{MAPPING}: got text 'x', expected a mapping", id="mapping a text"),
        pytest.param({MAPPING: None}, f"{MAPPING}: got neither literal nor regexp", id="mapping null"),
        pytest.param({f"{MAPPING}.literal": 5.14}, f"{MAPPING}.literal: got number 5.14, expected text", id="5.14"),
        pytest.param({f"{MAPPING}.literal": "5.14.0"}, f"{MAPPING}: got both literal and regexp", id="both"),
        pytest.param({f"{MAPPING}.regexp": _GONE}, f"{MAPPING}: got neither literal nor regexp", id="neither"),
        pytest.param({f"{MAPPING}.regexp": "*-x"}, f"{MAPPING}.regexp: regexp '*-x': no argument", id="bad regexp"),
        pytest.param({f"{MAPPING}.regexp": "(?=x)"}, f"{MAPPING}.regexp: regexp '(?=x)'", id="lookahead"),
        pytest.param({f"{MAPPING}.regexp": 5}, f"{MAPPING}.regexp: got number 5", id="regexp a number"),
        pytest.param(
            {f"{MAPPING}.containerImage": _GONE},
            f"{MAPPING}.containerImage: missing, expected an image here or in moduleLoader.container",
            id="no image anywhere",
        ),
        pytest.param(
            {f"{MAPPING}.registryTLS": {"insecure": "true"}},
            f"{MAPPING}.registryTLS.insecure: got text 'true', expected true or false",
            id="insecure a text",
        ),
        pytest.param(
            {f"{MAPPING}.inTreeModuleToRemove": "a", f"{MAPPING}.inTreeModulesToRemove": ["b"]},
            f"{MAPPING}.inTreeModuleToRemove: got text 'a', expected either this or {MAPPING}.inTreeModulesToRemove",
            id="in-tree twice",
        ),
        pytest.param(
            {f"{CONTAINER}.inTreeModuleToRemove": "a", f"{MAPPING}.inTreeModulesToRemove": ["b"]},
            f"{CONTAINER}.inTreeModuleToRemove: got text 'a', expected either this or {MAPPING}.inTreeModulesToRemove",
            id="in-tree here and there",
        ),
        pytest.param(
            {f"{MAPPING}.inTreeModuleToRemove": "a", f"{CONTAINER}.inTreeModulesToRemove": []},
            f"{MAPPING}.inTreeModuleToRemove: got text 'a'",
            id="in-tree there and here",
        ),
        pytest.param(
            {f"{MAPPING}.build": {}}, f"{MAPPING}.build.dockerfileConfigMap: missing", id="build without Dockerfile"
        ),
        pytest.param(
            {f"{CONTAINER}.build": {"dockerfileConfigMap": "d"}},
            f"{CONTAINER}.build.dockerfileConfigMap: got text 'd', expected a mapping",
            id="ConfigMap a text",
        ),
        pytest.param(
            {f"{CONTAINER}.build": {"dockerfileConfigMap": {"name": "d"}, "buildArgs": [{"name": "A"}]}},
            f"{CONTAINER}.build.buildArgs[0].value: missing, expected the argument's value",
            id="argument without a value",
        ),
        pytest.param(
            {f"{CONTAINER}.build": {"dockerfileConfigMap": {"name": "d"}, "buildArgs": [{"value": "A"}]}},
            f"{CONTAINER}.build.buildArgs[0].name: missing",
            id="argument without a name",
        ),
        pytest.param(
            {f"{CONTAINER}.build": {"dockerfileConfigMap": {"name": "d"}, "buildArgs": [{"name": "A", "value": 1}]}},
            f"{CONTAINER}.build.buildArgs[0].value: got number 1, expected text (quote it)",
            id="argument a number",
        ),
        pytest.param(
            {f"{CONTAINER}.build": {"dockerfileConfigMap": {"name": "d"}, "buildArgs": {"A": "1"}}},
            f"{CONTAINER}.build.buildArgs: got a mapping, expected a list",
            id="arguments a mapping",
        ),
        pytest.param(
            {f"{MAPPING}.sign": {"certSecret": {"name": "c"}}},
            f"{MAPPING}.sign.keySecret: missing, expected the Secret that holds the key",
            id="sign without keySecret",
        ),
        pytest.param(
            {f"{CONTAINER}.sign": {"keySecret": {"name": "k"}}},
            f"{CONTAINER}.sign.certSecret: missing",
            id="sign without certSecret",
        ),
        pytest.param(
            {f"{MAPPING}.sign": {"filesToSign": "/a.ko"}},
            f"{MAPPING}.sign.filesToSign: got text '/a.ko', expected a list",
            id="filesToSign a text",
        ),
        pytest.param(
            {f"{MAPPING}.sign": {"filesToSign": [None]}},
            f"{MAPPING}.sign.filesToSign[0]: missing",
            id="filesToSign with null",
        ),
        pytest.param({MODPROBE: _GONE}, f"{MODPROBE}: missing, expected what modprobe loads", id="no modprobe"),
        pytest.param({MODPROBE: {}}, f"{MODPROBE}.moduleName: missing, expected a name, or rawArgs", id="empty"),
        pytest.param(
            {f"{MODPROBE}.rawArgs": {"load": ["a"], "unload": ["b"]}},
            f"{MODPROBE}.rawArgs: got a mapping, expected either moduleName or rawArgs",
            id="moduleName and rawArgs",
        ),
        pytest.param(
            {MODPROBE: {"rawArgs": {"load": ["a"]}}}, f"{MODPROBE}.moduleName: missing", id="only rawArgs.load"
        ),
        pytest.param(
            {MODPROBE: {"rawArgs": {"unload": ["a"]}}}, f"{MODPROBE}.moduleName: missing", id="only rawArgs.unload"
        ),
        pytest.param(
            {MODPROBE: {"rawArgs": {"load": [], "unload": ["b"]}}},
            f"{MODPROBE}.rawArgs.load: got a list of 0, expected at least one argument",
            id="rawArgs.load empty",
        ),
        pytest.param(
            {f"{MODPROBE}.args": {"unload": []}}, f"{MODPROBE}.args.unload: got a list of 0", id="args.unload empty"
        ),
        pytest.param({f"{MODPROBE}.args": ["-v"]}, f"{MODPROBE}.args: got a list of 1", id="args a list"),
        pytest.param(
            {f"{MODPROBE}.parameters": [1]}, f"{MODPROBE}.parameters[0]: got number 1", id="parameter a number"
        ),
        pytest.param({f"{MODPROBE}.moduleName": "a/b"}, f"{MODPROBE}.moduleName: got text 'a/b'", id="name a path"),
        pytest.param({f"{MODPROBE}.moduleName": " a"}, f"{MODPROBE}.moduleName: got text ' a'", id="name with a space"),
        pytest.param(
            {f"{MODPROBE}.modulesLoadingOrder": []}, f"{MODPROBE}.modulesLoadingOrder: got a list of 0", id="order of 0"
        ),
        pytest.param(
            {f"{MODPROBE}.modulesLoadingOrder": ["kmod"]},
            f"{MODPROBE}.modulesLoadingOrder: got a list of 1, expected two or more different names",
            id="order of 1",
        ),
        pytest.param(
            {f"{MODPROBE}.modulesLoadingOrder": ["b", "kmod"]},
            f"{MODPROBE}.modulesLoadingOrder: got a list of 2",
            id="order begins with another",
        ),
        pytest.param(
            {f"{MODPROBE}.modulesLoadingOrder": ["kmod", "b", "b"]},
            f"{MODPROBE}.modulesLoadingOrder: got a list of 3",
            id="order with a name twice",
        ),
        pytest.param(
            {MODPROBE: {"rawArgs": {"load": ["a"], "unload": ["b"]}, "modulesLoadingOrder": ["a", "b"]}},
            f"{MODPROBE}.modulesLoadingOrder: got a list of 2",
            id="order without moduleName",
        ),
    ],
)
def test_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_module(_manifest(changes), "default")
    assert caught.value.message.startswith(message)
    assert "expected" in caught.value.message or "regexp" in caught.value.message


@pytest.mark.parametrize(
    ("text", "can"), [("default", True), ("a-1", True), ("", False), ("a.b", False), ("A", False), ("-a", False)]
)
def test_is_namespace(text: str, can: bool) -> None:
    assert is_namespace(text) is can
