"""Modules of a live cluster: the connection, the requests, and a cluster that does not answer."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmm_preflight.cluster.api import MODULES, Access
from kmm_preflight.cluster.api_reader import read_cluster
from kmm_preflight.cluster.kubernetes import PAGE
from kmm_preflight.cluster.login import connect
from kmm_preflight.cluster.manifests import read_manifests
from kmm_preflight.errors import PreflightError, Unreachable, Untrusted, UsageProblem
from tests.clusters import (
    account,
    demo_manifests,
    empty,
    module,
    namespaces,
    one_line,
    openshift,
    pull_secret,
    requests_of,
    serve,
)
from tests.demo import DEMO
from tests.real.authority import Authority
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import MODULES as MODULES_DEFINITION
from tests.real.kubernetes.definitions import PREFLIGHTS, released
from tests.real.kubernetes.kubeconfig import write_kubeconfig
from tests.real.server import LocalServer
from tests.runs import run_preflight

NOWHERE = "https://127.0.0.1:1"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a cluster for all tests of the file."""
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder) as cluster:
        serve(cluster, folder)
        cluster.apply(*namespaces("demo", "storage", "openshift-config"))
        yield cluster


@pytest.fixture
def cluster(served: Cluster) -> Cluster:
    """Return the running cluster without Modules."""
    served.start()
    empty(served)
    served.forget()
    return served


def access(kubeconfig: Path, seconds: float = 60, context: str | None = None) -> Access:
    """Return the access that the option --kubeconfig gives."""
    return Access((kubeconfig,), "--kubeconfig", context, seconds)


def replace_modules_definition(cluster: Cluster) -> None:
    """Delete the definition, with all Modules at once, and apply it again."""
    cluster.kubectl("delete", "crd", "modules.kmm.sigs.x-k8s.io", "--ignore-not-found")
    cluster.apply_crds(MODULES_DEFINITION)


@pytest.mark.parametrize("generation", ["own", "kmm-1.1", "kmm-2.3", "kmm-main"])
def test_modules_of_the_cluster_are_verified_and_nothing_is_written(
    tmp_path: Path, cluster: Cluster, generation: str
) -> None:
    definition = MODULES_DEFINITION if generation == "own" else released(generation) / "modules.yaml"
    try:
        cluster.apply_crds(definition)
        # Until KMM 2.4 a Module without a moduleLoader was refused.
        loads = generation in ("own", "kmm-main")
        manifests = demo_manifests("modules", "red")
        cluster.apply(*(manifest for manifest in manifests if loads or "moduleLoader" in manifest["spec"]))
        cluster.forget()
        workers = "-n2" if generation == "own" else "-n0"
        run = run_preflight(tmp_path, *DEMO, f"--kubeconfig={cluster.kubeconfig('reader')}", workers)
        assert run.returncode == 1, run.output
        assert run.verdicts() == {
            "hello": ("verified",),
            "hello-pinned": ("refuted", "kmod-absent"),
            "ring-buffer": ("verified",),
        }
        assert [module["name"] for module in run.document["listed"]] == ["plugin-only"] * loads
        assert "every kernel read from the release: the cluster has no nodes" in " ".join(run.document["assumed"])
        assert {verb for verb, *_ in requests_of(cluster, "reader")} == {"list", "get"}
    finally:
        cluster.apply_crds(MODULES_DEFINITION)


def test_objects_that_modules_need_are_read_and_each_secret_once(cluster: Cluster) -> None:
    mirror = {"source": "registry.example/kmods", "mirrors": ["mirror.example/kmods"]}
    cluster.apply(
        module("demo", "own", secret="pull"),
        module("demo", "same", secret="pull"),
        module("demo", "lost", secret="gone"),
        module("storage", "by-account"),
        module("storage", "by-account-too"),
        pull_secret("demo", "pull"),
        pull_secret("demo", "nobody-names-it"),
        pull_secret("storage", "first"),
        account("demo", "nobody-names-it"),
        account("storage", "first", "second"),
        pull_secret("openshift-config", "pull-secret"),
        openshift("ImageDigestMirrorSet", "digests", {"imageDigestMirrors": [mirror]}),
        openshift("ImageTagMirrorSet", "tags", {"imageTagMirrors": [mirror]}),
        openshift("ImageContentSourcePolicy", "old", {"repositoryDigestMirrors": [mirror]}),
        openshift("Image", "cluster", {"additionalTrustedCA": {"name": "authorities"}}),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": "openshift-config", "name": "authorities"},
            "data": {"registry.example": "PEM"},
        },
    )
    try:
        cluster.forget()
        inventory = read_cluster(connect(access(cluster.kubeconfig())))
        assert requests_of(cluster) == [
            ("list", "modules", "", ""),
            ("list", "serviceaccounts", "", "default"),
            ("get", "secrets", "openshift-config", "pull-secret"),
            ("get", "secrets", "demo", "gone"),
            ("get", "secrets", "demo", "pull"),
            ("get", "secrets", "storage", "first"),
            ("get", "secrets", "storage", "second"),
            ("list", "imagedigestmirrorsets", "", ""),
            ("list", "imagetagmirrorsets", "", ""),
            ("list", "imagecontentsourcepolicies", "", ""),
            ("list", "clusterimagepolicies", "", ""),
            ("list", "imagepolicies", "", ""),
            ("get", "images", "", "cluster"),
            ("get", "configmaps", "openshift-config", "authorities"),
            ("get", "proxies", "", "cluster"),
        ]
        names = [str(module.name) for module in inventory.modules]
        assert names == ["demo/lost", "demo/own", "demo/same", "storage/by-account", "storage/by-account-too"]
        assert set(inventory.secrets) == {
            ("openshift-config", "pull-secret"),
            ("demo", "pull"),
            ("storage", "first"),
        }
        assert {secret["kind"] for secret in inventory.secrets.values()} == {"Secret"}
        assert list(inventory.service_accounts) == [("storage", "default")]
        assert [mirror["kind"] for mirror in inventory.mirrors] == [
            "ImageDigestMirrorSet",
            "ImageTagMirrorSet",
            "ImageContentSourcePolicy",
        ]
        assert inventory.image_config
        assert inventory.image_config["spec"] == {"additionalTrustedCA": {"name": "authorities"}}
        assert inventory.config_maps[("openshift-config", "authorities")]["data"] == {"registry.example": "PEM"}
        assert (inventory.live, inventory.assumed, inventory.refused) == (True, (), ())
    finally:
        for kind in ("imagedigestmirrorsets", "imagetagmirrorsets", "imagecontentsourcepolicies", "images"):
            cluster.kubectl("delete", kind, "--all")
        cluster.kubectl("delete", "serviceaccount", "default", "-n", "storage")


def test_manifests_give_the_same_inventory(tmp_path: Path) -> None:
    mirrors = [
        openshift("ImageDigestMirrorSet", "digests", {"imageDigestMirrors": []}),
        openshift("ImageTagMirrorSet", "tags", {"imageTagMirrors": []}),
        openshift("ImageContentSourcePolicy", "old", {"repositoryDigestMirrors": []}),
    ]
    config = openshift("Image", "cluster", {"additionalTrustedCA": {"name": "authorities"}})
    another = {"apiVersion": "image.openshift.io/v1", "kind": "Image", "metadata": {"name": "sha256:1"}}
    file = tmp_path / "manifests.json"
    everything = [module("demo", "own"), *reversed(mirrors), another, config, config, account("demo", "pull")]
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": everything}))
    inventory = read_manifests([str(file)], "default", io.StringIO())
    assert list(inventory.mirrors) == mirrors
    assert inventory.image_config == config
    assert inventory.service_accounts == {("demo", "default"): account("demo", "pull")}
    assert (inventory.live, inventory.source) == (False, "the manifests")
    file.write_text(json.dumps({"kind": "List", "items": [config, {**config, "spec": {}}]}))
    with pytest.raises(UsageProblem, match="Image cluster exists twice with different contents"):
        read_manifests([str(file)], "default", io.StringIO())


def test_more_modules_than_a_page_are_few_requests(tmp_path: Path, cluster: Cluster) -> None:
    many = PAGE + 1
    places = [f"many-{number}" for number in range(40)]
    cluster.apply(*namespaces(*places), *(account(place) for place in places))
    try:
        cluster.apply(*(module(places[number % 40], f"m{number}") for number in range(many)))
        cluster.forget()
        kubeconfig = cluster.kubeconfig()
        inventory = read_cluster(connect(access(kubeconfig)))
        assert len(inventory.modules) == many
        assert len(inventory.service_accounts) == 40
        resources = [resource for _, resource, *_ in requests_of(cluster)]
        assert resources.count("modules") == 2
        assert len(resources) == 11
        run = run_preflight(tmp_path, *DEMO, f"--kubeconfig={kubeconfig}", "-n0", "-k", "m500")
        assert run.returncode == 0, run.output
        assert run.document["partial"] == f"partial: 1 of {many} Modules"
        cluster.apply_crds(PREFLIGHTS["list"])
        options = (*DEMO, f"--kubeconfig={kubeconfig}", "-n2", "--preflight=pf", "--create-preflight")
        cluster.forget()
        first = run_preflight(tmp_path, *options)
        assert first.returncode == 0, first.output
        preflight = json.loads(cluster.kubectl("get", "preflightvalidationsocp", "pf", "-o", "json").stdout)
        assert [module["verificationStatus"] for module in preflight["status"]["modules"]] == ["True"] * many
        # In addition to pages of Modules there is at most one patch in half a second, whatever their number.
        assert len(requests_of(cluster)) < 30 + 2 * first.seconds
        cluster.forget()
        second = run_preflight(tmp_path, *options)
        assert f"{many} Modules ({many} Module and kernel pairs), all by an earlier run" in second.document["sentence"]
        assert {verb for verb, *_ in requests_of(cluster)} == {"get", "list"}
    finally:
        replace_modules_definition(cluster)


def test_a_module_that_the_webhook_would_refuse_is_refuted_and_the_others_are_judged(
    tmp_path: Path, cluster: Cluster
) -> None:
    cluster.apply(module("demo", "good"), module("demo", "both", literal="6.1.0-56-amd64"))
    run = run_preflight(tmp_path, *DEMO, f"--kubeconfig={cluster.kubeconfig()}", "-n0")
    assert run.returncode == 1, run.output
    assert run.verdicts() == {"good": ("verified",), "both": ("refuted", "module-invalid")}
    assert "kernelMappings[0]: got both literal and regexp, expected one of them" in run.sentences()["both"]


def test_no_modules_and_no_kmm_have_different_messages(tmp_path: Path, cluster: Cluster) -> None:
    option = f"--kubeconfig={cluster.kubeconfig()}"
    run = run_preflight(tmp_path, *DEMO, option)
    assert run.returncode == 5
    one_line(run, f"no Module loads a kmod (the cluster {cluster.url})")
    cluster.kubectl("delete", "crd", "modules.kmm.sigs.x-k8s.io")
    try:
        run = run_preflight(tmp_path, *DEMO, option)
        assert run.returncode == 5
        one_line(run, "serves no modules.kmm.sigs.x-k8s.io: KMM is not installed there")
        assert run_preflight(tmp_path, *DEMO, option, "--allow-no-modules").returncode == 0
    finally:
        replace_modules_definition(cluster)


def test_an_api_server_that_is_down_is_10_with_reports(tmp_path: Path, cluster: Cluster) -> None:
    kubeconfig = cluster.kubeconfig()
    cluster.stop()
    run = run_preflight(tmp_path, *DEMO, f"--kubeconfig={kubeconfig}", "--api-timeout=1")
    assert run.returncode == 10
    one_line(run, f"API server {cluster.url}", "Connection refused", "run again")
    assert (run.document["exitCode"], run.document["modules"]) == (10, [])
    assert run.document["problem"]["finding"] is None
    assert run.junit.find(".//error") is not None
    assert (tmp_path / "artifacts" / "preflight.html").exists()


def test_a_run_waits_for_an_api_server_that_starts_in_time(tmp_path: Path, cluster: Cluster) -> None:
    cluster.apply(module("demo", "good"))
    kubeconfig = cluster.kubeconfig()
    cluster.stop()
    starter = threading.Timer(2, cluster.start)
    starter.start()
    run = run_preflight(tmp_path, *DEMO, f"--kubeconfig={kubeconfig}", "-n0")
    starter.join()
    assert run.returncode == 0, run.output


def test_a_run_waits_for_an_api_server_that_restarts(cluster: Cluster) -> None:
    reader = cluster.service_account_kubeconfig("demo", "reader")
    everything = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    cluster.apply(
        module("demo", "good"),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "reader"},
            "roleRef": everything,
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "demo"}],
        },
    )
    api = connect(access(reader))
    eventually(lambda: bool(api.list(MODULES)))
    cluster.stop()
    starter = threading.Timer(2, cluster.start)
    starter.start()
    inventory = read_cluster(api)
    starter.join()
    assert [module.name.name for module in inventory.modules] == ["good"]


@pytest.mark.parametrize(
    ("document", "named"),
    [
        pytest.param(None, ("--kubeconfig", "no such file"), id="missing"),
        pytest.param("folder", ("cannot be read (Is a directory)",), id="folder"),
        pytest.param("a: [", ("invalid YAML",), id="no YAML"),
        pytest.param("just text", ("the YAML is not a mapping",), id="no mapping"),
        pytest.param({"contexts": 5, "current-context": "a"}, ("contexts: got number 5, expected a list",), id="type"),
        pytest.param({}, ("it has no current-context", "Pass --context"), id="empty"),
        pytest.param({"current-context": "gone"}, ("current-context gone", "expected one of test"), id="current"),
        pytest.param({"clusters": []}, ("got cluster test, expected one of nothing",), id="no cluster"),
        pytest.param(
            {"clusters": [{"name": "test", "cluster": {"server": NOWHERE, "certificate-authority": "/no/such.pem"}}]},
            ("context test", "/no/such.pem"),
            id="no CA",
        ),
        pytest.param(
            {"users": [{"name": "test", "user": {"tokenFile": "/no/such/token"}}]},
            ("context test", "/no/such/token"),
            id="no token",
        ),
        pytest.param(
            {"users": [{"name": "test", "user": {"exec": {"command": "/no/such/login", "apiVersion": "v1"}}}]},
            ("/no/such/login gave no credentials", "log in again"),
            id="no plugin",
        ),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, document: object, named: tuple[str, ...]) -> None:
    file = tmp_path / "kubeconfig"
    if document == "folder":
        file.mkdir()
    elif document is not None:
        ca = Authority(tmp_path).ca
        whole = yaml.safe_load(write_kubeconfig(tmp_path / "whole", NOWHERE, ca, {"token": "t"}).read_text())
        changed = document if isinstance(document, str) else {**whole, **(document if document else {})}  # type: ignore[dict-item]
        if document == {}:
            del changed["current-context"]  # type: ignore[union-attr]
        file.write_text(changed if isinstance(changed, str) else yaml.safe_dump(changed))
    run = run_preflight(tmp_path, *DEMO, f"--kubeconfig={file}")
    assert run.returncode == 4, run.output
    one_line(run, str(file), *named)


@pytest.mark.parametrize(
    ("options", "env", "named"),
    [
        ((), {}, "no --manifests and no cluster"),
        ((), {"KUBECONFIG": "/no/such/a:/no/such/b"}, "/no/such/a and /no/such/b (KUBECONFIG)"),
        (("--namespace=team",), {}, "--namespace requires --manifests"),
        (("--api-timeout=0",), {}, "--api-timeout 0: expected seconds"),
        ((), {"PREFLIGHT_API_TIMEOUT": "soon"}, "--api-timeout soon: expected seconds"),
        (("--context=",), {}, "--context: the value is empty"),
        ((), {"PREFLIGHT_KUBECONFIG": "/no/such/c"}, "--kubeconfig /no/such/c: no such file"),
    ],
)
def test_options_without_a_cluster(
    tmp_path: Path, options: tuple[str, ...], env: Mapping[str, str], named: str
) -> None:
    run = run_preflight(tmp_path, *DEMO, *options, env=env)
    assert run.returncode == 4, run.output
    one_line(run, named)


def test_a_context_that_does_not_exist(tmp_path: Path) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "k", NOWHERE, Authority(tmp_path).ca, {"token": "t"})
    run = run_preflight(tmp_path, *DEMO, f"--kubeconfig={kubeconfig}", "--context=staging")
    assert run.returncode == 4
    one_line(run, "--context staging: ", str(kubeconfig), "does not have this context, expected one of test")


def test_a_login_that_the_server_refuses(tmp_path: Path, cluster: Cluster) -> None:
    expired = cluster.service_account_kubeconfig("demo", "gone")
    deleted = cluster.kubectl("delete", "serviceaccount", "gone", "-n", "demo")
    assert deleted.returncode == 0
    run = run_preflight(tmp_path, *DEMO, f"--kubeconfig={expired}")
    assert run.returncode == 4, run.output
    one_line(run, "list modules.kmm.sigs.x-k8s.io as system:serviceaccount:demo:gone: got 401", "log in again")
    unknown = write_kubeconfig(tmp_path / "unknown", cluster.url, cluster.ca, {"token": "not-a-token"})
    run = run_preflight(tmp_path, *DEMO, f"--kubeconfig={unknown}")
    assert run.returncode == 4
    assert "not-a-token" not in run.output
    one_line(run, "list modules.kmm.sigs.x-k8s.io as user test of context test", "got 401")


def test_an_account_without_rights(tmp_path: Path, cluster: Cluster) -> None:
    run = run_preflight(tmp_path, *DEMO, f"--kubeconfig={cluster.kubeconfig('somebody', groups=[])}")
    assert run.returncode == 4
    one_line(run, "list modules.kmm.sigs.x-k8s.io as user test", 'User "somebody" cannot list', "deploy/rbac.yaml")
    assert run.document["exitCode"] == 4


def test_a_server_with_another_certificate_is_not_trusted(tmp_path: Path, cluster: Cluster) -> None:
    other = write_kubeconfig(tmp_path / "other", cluster.url, Authority(tmp_path).ca, {"token": "t"})
    run = run_preflight(tmp_path, *DEMO, f"--kubeconfig={other}")
    assert run.returncode == 4
    one_line(run, f"API server {cluster.url}: its certificate is not trusted")
    with pytest.raises(Untrusted):
        connect(access(other)).list(MODULES)


def test_kubeconfigs_are_merged_as_kubectl_does(tmp_path: Path, cluster: Cluster) -> None:
    cluster.apply(module("demo", "good"))
    first, second = (yaml.safe_load(cluster.kubeconfig().read_text()) for _ in range(2))
    second["clusters"][0]["cluster"]["server"] = NOWHERE
    for section in ("clusters", "users", "contexts"):
        second[section].append({**first[section][0], "name": "other"})
    second["contexts"][1]["context"] = {"cluster": "other", "user": "other"}
    (tmp_path / "first").write_text(yaml.safe_dump(first))
    (tmp_path / "second").write_text(yaml.safe_dump({**second, "current-context": "nowhere"}))
    both = {"KUBECONFIG": f"{tmp_path / 'missing'}:{tmp_path / 'first'}:{tmp_path / 'second'}"}
    for env in (both, {**both, "PREFLIGHT_CONTEXT": "other"}):
        run = run_preflight(tmp_path, *DEMO, "-n0", env=env)
        assert run.returncode == 0, run.output
        assert run.verdicts() == {"good": ("verified",)}
    (tmp_path / "home" / ".kube").mkdir()
    (tmp_path / "first").rename(tmp_path / "home" / ".kube" / "config")
    assert run_preflight(tmp_path, *DEMO, "-n0").returncode == 0


def test_tokens_from_files_and_programs(tmp_path: Path, cluster: Cluster) -> None:
    whole = yaml.safe_load(cluster.service_account_kubeconfig("demo", "by-token").read_text())
    token = whole["users"][0]["user"]["token"]
    (tmp_path / "token").write_text(f"{token}\n")
    program = tmp_path / "login"
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    program.chmod(0o755)
    for user in (
        {"tokenFile": "token"},
        {"exec": {"command": str(program), "apiVersion": answer["apiVersion"], "interactiveMode": "Never"}},
    ):
        file = tmp_path / "kubeconfig"
        file.write_text(yaml.safe_dump({**whole, "users": [{"name": "test", "user": user}]}))
        with pytest.raises(PreflightError, match=r"as system:serviceaccount:demo:by-token: got 403"):
            connect(access(file)).list(MODULES)


def test_inside_a_pod_the_pod_s_account_is_used(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = yaml.safe_load(cluster.service_account_kubeconfig("demo", "pod").read_text())
    (tmp_path / "token").write_text(whole["users"][0]["user"]["token"])
    incluster = "kubernetes.config.incluster_config"
    monkeypatch.setattr(f"{incluster}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(f"{incluster}.SERVICE_CERT_FILENAME", str(cluster.ca))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", cluster.url.rpartition(":")[2])
    with pytest.raises(PreflightError, match=r"list modules\S+ as system:serviceaccount:demo:pod: got 403"):
        connect(Access((tmp_path / "no-kubeconfig",))).list(MODULES)


def test_proxies_are_chosen_as_in_kubectl(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    kubeconfig = cluster.kubeconfig()
    assert connect(access(kubeconfig)).list(MODULES) == ()
    monkeypatch.delenv("NO_PROXY")
    assert connect(access(kubeconfig)).list(MODULES) == ()
    whole = yaml.safe_load(kubeconfig.read_text())
    whole["clusters"][0]["cluster"]["server"] = "https://api.example:6443"
    (tmp_path / "far").write_text(yaml.safe_dump(whole))
    with pytest.raises(Unreachable, match="proxy"):
        connect(access(tmp_path / "far", 0.1)).list(MODULES)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    whole["clusters"][0]["cluster"] |= {"server": cluster.url, "proxy-url": "http://127.0.0.1:1"}
    (tmp_path / "own").write_text(yaml.safe_dump(whole))
    with pytest.raises(Unreachable, match="proxy"):
        connect(access(tmp_path / "own", 0.1)).list(MODULES)


class Shaky(BaseHTTPRequestHandler):
    """An API server in trouble. `answers` has the next answers: a status and a document. None closes the connection."""

    answers: list[tuple[int, object] | None]
    paths: list[str]

    def do_GET(self) -> None:
        """Send the next answer."""
        type(self).paths.append(self.path)
        answer = type(self).answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        body = json.dumps(answer[1]).encode()
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def page(*names: str, more: str = "") -> tuple[int, object]:
    """Return a page of Modules."""
    items = [{"metadata": {"name": name}} for name in names]
    head = {"apiVersion": "kmm.sigs.x-k8s.io/v1beta1", "kind": "ModuleList"}
    return 200, {**head, "metadata": {"continue": more}, "items": items}


def refusal(status: int) -> tuple[int, object]:
    """Return a Status object."""
    return status, {"kind": "Status", "message": "not now"}


@pytest.mark.parametrize(
    ("answers", "names", "requests"),
    [
        pytest.param([page("a", more="x"), page("b")], ["a", "b"], 2, id="two pages"),
        pytest.param(
            [page("a", more="x"), refusal(410), page("b", more="y"), page("c")], ["b", "c"], 4, id="expired: read again"
        ),
        pytest.param([refusal(503), refusal(429), None, page("a")], ["a"], 4, id="busy, cut off"),
        pytest.param([None, refusal(403), refusal(401), page("a")], ["a"], 4, id="not ready yet"),
        pytest.param(
            [(200, [])],
            "the answer for /apis/kmm.sigs.x-k8s.io/v1beta1/modules is not a JSON object",
            1,
            id="no object",
        ),
        pytest.param([refusal(403)], "got 403 (not now); grant the verb", 1, id="forbidden"),
        pytest.param([refusal(418)], "got 418 (not now)", 1, id="an unknown status"),
        pytest.param([page("a", more="x"), refusal(410)] * 3, "the list expired 3 times", 6, id="always expired"),
    ],
)
def test_a_server_in_trouble(
    tmp_path: Path, answers: list[tuple[int, object] | None], names: list[str] | str, requests: int
) -> None:
    handler: type[Shaky] = type("Handler", (Shaky,), {"answers": list(answers), "paths": []})
    server = LocalServer(handler)
    server.start()
    try:
        kubeconfig = write_kubeconfig(tmp_path / "k", server.url, Authority(tmp_path).ca, {"token": "t"})
        api = connect(access(kubeconfig))
        if isinstance(names, str):
            with pytest.raises(PreflightError, match=re.escape(names)):
                api.list(MODULES)
        else:
            listed: Any = api.list(MODULES)
            assert [(item["kind"], item["metadata"]["name"]) for item in listed] == [("Module", name) for name in names]
    finally:
        server.stop()
    assert len(handler.paths) == requests
    assert all("limit=500" in path for path in handler.paths)


def eventually(met: Callable[[], bool], within_s: float = 10) -> None:
    """Wait until the condition is true. An error means: not yet."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if met():
                return
        except PreflightError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)
