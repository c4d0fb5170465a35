"""Whole runs with builds in a cluster: Jobs on a real node, and OpenShift's Builds on a real API server."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmm_preflight.cluster.api import BUILDS, JOBS, PODS, Api, ResourceKind
from kmm_preflight.errors import PreflightError
from tests.clusters import account, namespaces, serve
from tests.real.builder_image import push_builder_image
from tests.real.kmod import compile_kmod, headers
from tests.real.kubernetes.build_controller import BUILDS as DEFINITION
from tests.real.kubernetes.build_controller import COMPLETE, PENDING, RUNNING, Act, BuildController
from tests.real.kubernetes.cluster import NODE, Cluster
from tests.real.kubernetes.definitions import released
from tests.real.kubernetes.real_node import cluster_with_node, need_node
from tests.real.layout import Member, image, layer
from tests.real.push import push
from tests.real.registry import Registry
from tests.real.requirement import need_tool
from tests.runs import PYTEST, ROOT, Run, run_preflight
from tests.test_build import NOTE, copied_out, finding, module_of, openssl_verifies, outcomes
from tests.test_build_job import as_client
from tests.test_real_kubernetes import eventually
from tests.workbench import KMOD, NAMESPACE, SIGN, KeyPair, Workbench, build_module, key_pair, signing_secrets

RESOURCE = "preflightvalidationsocp"
PREFLIGHTS = ResourceKind("kmm.sigs.x-k8s.io", "v1beta2", RESOURCE, namespaced=False)
ROLES: list[dict[str, Any]] = [
    one for name in ("rbac", "rbac-builds") for one in yaml.safe_load_all((ROOT / f"deploy/{name}.yaml").read_text())
]
LOGIN = {"imageRepoSecret": "login"}
COMPILER = "implicit declaration of function"
WAIT_S = 240

Manifests = list[dict[str, Any]]


class Site:
    """Cluster and registry with a login, and the options of a run on both. Key and password are secret."""

    def __init__(self, cluster: Cluster, bench: Workbench, folder: Path, *options: str) -> None:
        self.cluster, self.bench = cluster, bench
        self.pair = key_pair()
        serve(cluster, folder)
        cluster.apply(*namespaces("openshift-config", "kmm-preflight", NAMESPACE), *ROLES, account(NAMESPACE))
        logins = bench.registry.authfile(folder / "auth.json").read_text()
        metadata = {"name": "login", "namespace": NAMESPACE}
        login = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/dockerconfigjson"}
        cluster.apply({**login, "stringData": {".dockerconfigjson": logins}}, *signing_secrets(self.pair))
        self.api = as_client(cluster.kubeconfig())
        self.kubeconfig = cluster.service_account_kubeconfig("kmm-preflight", "kmm-preflight")
        toolkit = f"--driver-toolkit={bench.toolkits[bench.new]}"
        given = (f"--kernel={bench.new}", toolkit, f"--registry-ca={bench.registry.ca}", "--build-timeout=150")
        self.options = (f"--kubeconfig={self.kubeconfig}", *given, *options)

    def run(self, tmp_path: Path, *options: str) -> Run:
        """Run the suite as the account of deploy/."""
        return run_preflight(tmp_path, *self.options, *options, timeout=WAIT_S)

    def apply(self, *modules: Manifests) -> None:
        """Replace all Modules of the cluster by these."""
        self.cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "--all", "--all-namespaces")
        self.cluster.apply(*(manifest for manifests in modules for manifest in manifests))

    def create_preflight(self, **spec: object) -> None:
        """Create the PreflightValidationOCP pf again, without a status."""
        self.cluster.kubectl("delete", RESOURCE, "pf", "--ignore-not-found")
        kind = {"apiVersion": "kmm.sigs.x-k8s.io/v1beta2", "kind": "PreflightValidationOCP"}
        self.cluster.apply({**kind, "metadata": {"name": "pf"}, "spec": spec})

    def copied(self, name: str, step: str = "true", **more: Any) -> Manifests:
        """Return a Module with a short build."""
        base = self.bench.push_kmods(compile_kmod(self.bench.new), "good")
        return build_module(name, self.bench.new_image(name), self.bench.copy_dockerfile(base, step), **LOGIN, **more)

    def entry(self, name: str) -> Mapping[str, Any]:
        """Return the entry of a Module in the status of pf."""
        (entry,) = [entry for entry in entries(self.api) if entry["name"] == name]
        return entry

    def objects(self, kind: ResourceKind) -> list[str]:
        """Return the names of all objects in the Modules' namespace."""
        return [manifest["metadata"]["name"] for manifest in listed(self.api, kind)]

    def secrets(self) -> tuple[str, ...]:
        """Return texts that must never be shown: password, login, a line of the key, and the encoded key."""
        registry, key = self.bench.registry, self.pair.key
        login = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
        return (registry.password, login, key.decode().splitlines()[1], base64.b64encode(key).decode())


def listed(api: Api, kind: ResourceKind) -> list[Any]:
    """Return all objects in the Modules' namespace. A kind that is not served has none."""
    return list(api.list(kind, NAMESPACE) or ())


def entries(api: Api) -> list[dict[str, Any]]:
    """Return the entries in the status of pf."""
    manifest: Any = api.get(PREFLIGHTS, "pf")
    return list(manifest.get("status", {}).get("modules", ())) if manifest else []


class Watch:
    """Thread that reads the cluster again and again.

    It keeps the stages of each Module in pf, the uids of Jobs and Builds, the maximal number of builds at a time, and
    the text of every manifest and log.
    """

    def __init__(self, site: Site) -> None:
        self.stages: dict[str, list[str]] = {}
        self.uids: dict[str, set[str]] = {}
        self.most = 0
        self._texts: set[str] = set()
        self._api = as_client(site.cluster.kubeconfig())
        self._kinds = [kind for kind in (JOBS, BUILDS) if self._api.serves(kind)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking)

    @property
    def text(self) -> str:
        """Return all manifests and logs."""
        return "\n".join(self._texts)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _keep_looking(self) -> None:
        while not self._ended.wait(0.1):
            self._look()

    def _look(self) -> None:
        for entry in entries(self._api):
            stages = self.stages.setdefault(entry["name"], [])
            stages += [entry["verificationStage"]] if entry["verificationStage"] not in stages[-1:] else []
        running = 0
        for kind in self._kinds:
            for manifest in listed(self._api, kind):
                self.uids.setdefault(manifest["metadata"]["name"], set()).add(manifest["metadata"]["uid"])
                self._texts.add(json.dumps(manifest))
                running += kind is BUILDS and manifest.get("status", {}).get("phase") not in ("Complete", "Failed")
        for pod in listed(self._api, PODS):
            builds = BUILDS not in self._kinds and "deletionTimestamp" not in pod["metadata"]
            running += builds and pod["status"].get("phase") in ("Pending", "Running")
            self._texts |= {json.dumps(pod), self._log(pod)}
        self.most = max(self.most, running)

    def _log(self, pod: Any) -> str:
        if pod["status"].get("phase") == "Pending":
            return ""
        try:
            return self._api.log(pod["metadata"]["name"], NAMESPACE, 1 << 20).decode()
        except PreflightError:
            return ""  # a Pod that the test made up, or that is being deleted


class BackgroundRun:
    """Run in the background, in its own process group. It is killed at the end of the `with` block."""

    def __init__(self, tmp_path: Path, site: Site, *options: str) -> None:
        (tmp_path / "tmp").mkdir(parents=True)
        folders = [f"--artifact-dir={tmp_path / 'artifacts'}", f"--cache-dir={tmp_path / 'cache'}"]
        command = [*PYTEST, "-p", "no:cacheprovider", *site.options, *folders, "-n0", *options]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
        self._output = tmp_path / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
            )

    def __enter__(self) -> BackgroundRun:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(180)

    def output(self) -> str:
        """Return the output so far."""
        return self._output.read_text()


def push_signer(bench: Workbench) -> str:
    """Push an image with sign-file and its libraries, which is smaller than a driver toolkit. Return its name."""
    tool = headers(bench.new) / "scripts/sign-file"
    printed = subprocess.run(["ldd", tool], capture_output=True, text=True, check=True).stdout
    files = {path: Path(path) for path in re.findall(r"(/\S+) \(0x", printed)}
    files |= {"/bin/sh": Path(need_tool("busybox", "apt-get install busybox-static")), "/usr/local/bin/sign-file": tool}
    members = [Member(name.removeprefix("/"), path.read_bytes(), mode=0o755) for name, path in files.items()]
    push(bench.registry, "base/signer", "1", image([layer(members)], history=True))
    return f"{bench.registry.host}/base/signer:1"


def wait_for_builds(site: Site, *names: str) -> None:
    """Wait until the builds of these Modules run in Pods."""

    def all_run() -> bool:
        pods = [pod["metadata"]["name"] for pod in listed(site.api, PODS) if pod["status"].get("phase") == "Running"]
        return all(any(pod.startswith(f"{name}-build-") for pod in pods) for name in names)

    eventually(all_run, WAIT_S)


def check_hidden(site: Site, watch: Watch, run: Run, artifacts: Path) -> None:
    """Check that neither the cluster nor the run has shown key or password."""
    written = [path.read_text(errors="replace") for path in artifacts.rglob("*") if path.is_file()]
    for secret in site.secrets():
        assert secret not in watch.text
        assert secret not in run.output
        assert not any(secret in text for text in written)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, login_registry: Registry) -> Workbench:
    """Return a registry with a login that has all images."""
    return Workbench(login_registry, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, plain_registry: Registry, bench: Workbench) -> Iterator[Site]:
    """Return a cluster with the CRDs of KMM 2.3 and a node that runs Jobs."""
    need_node()
    folder = tmp_path_factory.mktemp("jobs")
    with cluster_with_node(folder, plain_registry, bench.registry) as node:
        node.cluster.apply_crds(released("kmm-2.3") / f"{RESOURCE}.yaml")
        # Builds of a Module run on the nodes of its selector.
        node.cluster.kubectl("label", "node", NODE, "node-role.kubernetes.io/worker=")
        builder = f"--builder-image={push_builder_image(plain_registry)}"
        site = Site(node.cluster, bench, folder, "--builder=job", builder)
        yield site
        # A Pod may take a while to end.
        eventually(lambda: site.objects(PODS) == [])


@pytest.fixture
def jobs(node: Site) -> Iterator[Site]:
    """Return the cluster with Jobs. Check at the end that no Job is left."""
    yield node
    assert node.objects(JOBS) == []


def test_jobs_build_and_sign_up_to_the_limit_and_the_status_shows_each_stage(jobs: Site, tmp_path: Path) -> None:
    signer = f"--signer-image={push_signer(jobs.bench)}"
    plain = [f"plain-{number}" for number in range(2)]
    jobs.create_preflight(releaseImage="registry.example/release:1")
    jobs.apply(jobs.copied("signed", "sleep 1", sign=SIGN), *(jobs.copied(name, "sleep 1") for name in plain))
    with Watch(jobs) as watch:
        run = jobs.run(tmp_path, "--preflight=pf", "--push-built-image", "--max-builds=2", signer, "-n2")
    assert run.returncode == 0, run.output
    assert outcomes(run, "signed") == ("falls through", "verified", "verified")
    assert watch.stages["signed"] == ["Image", "Build", "Sign", "Done"]
    for name in plain:
        assert outcomes(run, name) == ("falls through", "verified", "not needed")
        assert watch.stages[name] == ["Image", "Build", "Done"]
    assert {jobs.entry(name)["verificationStatus"] for name in watch.stages} == {"True"}
    assert (len(watch.uids), watch.most) == (4, 2)
    assert run.document["builder"] == "job (as --builder says)"
    assert "STEP 1/" in watch.text
    check_hidden(jobs, watch, run, tmp_path / "artifacts")
    jobs.bench.registry.authfile(tmp_path / "auth.json")
    (kmod,) = copied_out(jobs.bench, "made/signed", tmp_path).values()
    assert openssl_verifies(kmod, jobs.pair.cert, tmp_path)
    with Watch(jobs) as watch:
        again = jobs.run(tmp_path, "--preflight=pf", "--revalidate", "-n0")
    assert again.returncode == 0, again.output
    for name in ("signed", *plain):
        assert outcomes(again, name) == ("verified", "not needed", "not needed")
        assert module_of(again, name)["image"]["digest"] == module_of(run, name)["image"]["digest"]
    assert watch.uids == {}


@pytest.fixture(scope="module")
def unpushed(node: Site, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """Return a run without pushes, of good and bad builds, and its folder."""
    folder = tmp_path_factory.mktemp("unpushed")
    source = '#include <linux/module.h>\nint init_module(void) { return no_such_call(); }\nMODULE_LICENSE("GPL");\n'
    broken = build_module("broken", node.bench.new_image("broken"), node.bench.compile_dockerfile(source), **LOGIN)
    node.apply(node.copied("kept"), node.copied("both", sign=SIGN), broken)
    return node.run(folder, "-n0"), folder


@pytest.mark.usefixtures("jobs")
def test_a_result_without_a_push_is_fetched_and_not_signed(unpushed: tuple[Run, Path], bench: Workbench) -> None:
    run, folder = unpushed
    assert run.returncode == 1, run.output
    assert outcomes(run, "kept") == ("falls through", "verified", "not needed")
    assert module_of(run, "kept")["image"]["stored"] is False
    assert outcomes(run, "both") == ("falls through", "verified", "failed")
    assert finding(run, "both", "sign-input-absent")["sentence"] == NOTE
    bench.registry.authfile(folder / "auth.json")
    assert copied_out(bench, "made/kept", folder) == {}


@pytest.mark.usefixtures("jobs")
def test_a_compile_error_is_reported_with_the_compiler_s_line(unpushed: tuple[Run, Path]) -> None:
    run, folder = unpushed
    assert outcomes(run, "broken") == ("falls through", "failed", "not needed")
    failed = finding(run, "broken", "build-failed")
    assert f"Job {NAMESPACE}/broken-build-" in failed["sentence"]
    assert any(COMPILER in line for line in failed["lines"])
    log = module_of(run, "broken")["stages"][1]["log"]
    for name in ("preflight.html", "junit_preflight.xml", log):
        assert COMPILER in (folder / "artifacts" / name).read_text()


def test_a_run_that_gets_sigterm_leaves_nothing(jobs: Site, tmp_path: Path) -> None:
    jobs.apply(jobs.copied("ended", "sleep 600"))
    with BackgroundRun(tmp_path, jobs) as background:
        wait_for_builds(jobs, "ended")
        background.process.send_signal(signal.SIGTERM)
        assert background.process.wait(180) == 2, background.output()
    assert jobs.objects(JOBS) == []
    assert list((tmp_path / "tmp").glob("kmm-preflight-*")) == []


def test_jobs_of_a_killed_run_are_used_again_or_replaced(jobs: Site, tmp_path: Path) -> None:
    """Wait first for a build that hangs. At its deadline, the results of the other builds were fetched already.

    The deadline begins when the killed run creates the Jobs. After it, no Job would be left to use again.
    """
    deadline = "--build-timeout=75"
    hangs, same = jobs.copied("hangs", "sleep 600"), jobs.copied("same", "sleep 6")
    jobs.apply(hangs, same, jobs.copied("other", "sleep 600"))
    with BackgroundRun(tmp_path / "killed", jobs, deadline):
        wait_for_builds(jobs, "hangs", "same", "other")
    left = {job["metadata"]["name"]: job["metadata"]["uid"] for job in listed(jobs.api, JOBS)}
    assert len(left) == 3
    jobs.apply(hangs, same, jobs.copied("other"))
    with Watch(jobs) as watch:
        run = jobs.run(tmp_path, deadline, "-n0")
    assert run.returncode == 1, run.output
    assert run.verdicts() == {
        "hangs": ("refuted", "image-not-found", "build-timeout"),
        "other": ("verified", "image-not-found"),
        "same": ("verified", "image-not-found"),
    }
    replaced = {name.partition("-")[0]: len(uids - {left[name]}) for name, uids in watch.uids.items()}
    assert replaced == {"hangs": 0, "same": 0, "other": 1}


def test_cleanup_names_the_deleted_jobs_of_a_killed_run(jobs: Site, tmp_path: Path) -> None:
    jobs.apply(jobs.copied("gone", "sleep 600"))
    with BackgroundRun(tmp_path / "killed", jobs):
        wait_for_builds(jobs, "gone")
    (name,) = jobs.objects(JOBS)
    run = run_preflight(tmp_path, "--cleanup", f"--kubeconfig={jobs.kubeconfig}")
    assert run.returncode == 0, run.output
    assert run.stdout.splitlines() == [
        f"removed jobs.batch {NAMESPACE}/{name}",
        "1 removed; nothing is left of earlier runs.",
    ]


class OpenShift(Site):
    """OpenShift cluster whose Builds push their result. kernels maps Modules to another kernel than the newest."""

    def __init__(self, cluster: Cluster, bench: Workbench, folder: Path) -> None:
        super().__init__(cluster, bench, folder)
        self.kernels: dict[str, str] = {}
        self.slow = 0

    def play(self, build: Mapping[str, Any]) -> Sequence[Act]:
        """Return the phases of a Build. It pushes the image before it ends."""
        assert build
        return (PENDING, *[RUNNING] * self.slow, replace(COMPLETE, do=self._push_result))

    def _push_result(self, build: Mapping[str, Any]) -> None:
        """Push the result of a Build that has an output. The result of a signing is signed."""
        if not build["spec"]["output"]:
            return
        name = build["metadata"]["labels"]["kmm.node.kubernetes.io/module.name"]
        kernel = self.kernels.get(name, self.bench.new)
        kmod = compile_kmod(kernel)
        if build["metadata"]["labels"]["kmm.openshift.io/build.type"] == "sign":
            kmod = signed(kmod, kernel, self.pair)
        registry, result = self.bench.registry, image([layer([Member(f"opt/lib/modules/{kernel}/{KMOD}.ko", kmod)])])
        repository, _, tag = build["spec"]["output"]["to"]["name"].removeprefix(f"{registry.host}/").rpartition(":")
        push(registry, repository, tag, result)


def signed(kmod: bytes, kernel: str, pair: KeyPair) -> bytes:
    """Sign the kmod with the kernel's own sign-file."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"key": pair.key, "cert": pair.cert, "kmod": kmod}
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        tool = headers(kernel) / "scripts/sign-file"
        subprocess.run([tool, "sha256", *(Path(folder, name) for name in files)], check=True)
        return Path(folder, "kmod").read_bytes()


@pytest.fixture(scope="module")
def openshift(tmp_path_factory: pytest.TempPathFactory, bench: Workbench) -> Iterator[OpenShift]:
    """Return one cluster for all tests."""
    folder = tmp_path_factory.mktemp("builds")
    with Cluster(folder) as cluster:
        cluster.apply_crds(DEFINITION, released("kmm-2.3") / f"{RESOURCE}.yaml")
        site = OpenShift(cluster, bench, folder)
        with BuildController(cluster, site.play):
            yield site


@pytest.fixture
def builds(openshift: OpenShift) -> Iterator[OpenShift]:
    """Return the cluster with OpenShift's Builds. Check at the end that nothing is left."""
    openshift.kernels, openshift.slow = {}, 0
    yield openshift
    assert openshift.objects(BUILDS) == []
    eventually(lambda: openshift.objects(PODS) == [])


def test_results_that_openshift_pushed_are_verified_and_the_limit_holds(builds: OpenShift, tmp_path: Path) -> None:
    builds.slow = 1
    builds.kernels = {"os-other": builds.bench.old}
    builds.create_preflight(releaseImage="registry.example/release:1", pushBuiltImage=True)
    builds.apply(builds.copied("os-plain"), builds.copied("os-signed", sign=SIGN), builds.copied("os-other"))
    with Watch(builds) as watch:
        run = builds.run(tmp_path, "--preflight=pf", "--max-builds=2", "-n0")
    assert run.returncode == 1, run.output
    assert outcomes(run, "os-plain") == ("falls through", "verified", "not needed")
    assert outcomes(run, "os-signed") == ("falls through", "verified", "verified")
    assert outcomes(run, "os-other") == ("falls through", "failed", "not needed")
    assert run.verdicts()["os-other"] == ("refuted", "image-not-found", "kmod-absent", "pushed-before-proof")
    assert module_of(run, "os-plain")["image"]["stored"] is True
    assert watch.stages == {
        "os-plain": ["Image", "Build", "Done"],
        "os-signed": ["Image", "Build", "Sign", "Done"],
        "os-other": ["Image", "Build", "Requeued"],
    }
    assert (len(watch.uids), watch.most) == (4, 2)
    ends = {name: builds.entry(name)["verificationStatus"] for name in watch.stages}
    assert ends == {"os-plain": "True", "os-signed": "True", "os-other": "False"}
    assert run.document["builder"] == "openshift (auto: the cluster serves builds.build.openshift.io)"
    assert f"builder: {run.document['builder']}" in run.stdout
    assert run.document["builder"] in (tmp_path / "artifacts/preflight.html").read_text()
    check_hidden(builds, watch, run, tmp_path / "artifacts")


def test_a_result_that_openshift_does_not_push_is_undecided(builds: OpenShift, tmp_path: Path) -> None:
    builds.apply(builds.copied("unproved"), builds.copied("unsigned", sign=SIGN))
    run = builds.run(tmp_path, "--builder=openshift", "-n0")
    assert run.returncode == 1, run.output
    assert outcomes(run, "unproved") == ("falls through", "undecided", "not needed")
    assert run.verdicts()["unproved"] == ("undecided", "image-not-found", "build-unproved")
    assert outcomes(run, "unsigned") == ("falls through", "verified", "failed")
    assert finding(run, "unsigned", "sign-input-absent")["sentence"] == NOTE
    assert run.document["builder"] == "openshift (as --builder says)"
