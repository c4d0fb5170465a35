"""Whole runs with builders in a cluster: Jobs on a real node, and OpenShift's Builds on a real API server."""

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
    """A cluster with a registry that asks for a login, and what a run on both is told; key and password are secret."""

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
        """A run to its end, as the account that deploy/ makes."""
        return run_preflight(tmp_path, *self.options, *options, timeout=WAIT_S)

    def apply(self, *modules: Manifests) -> None:
        """Let the cluster have these Modules, and no others."""
        self.cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "--all", "--all-namespaces")
        self.cluster.apply(*(one for manifests in modules for one in manifests))

    def answer(self, **spec: object) -> None:
        """Let it have the PreflightValidationOCP pf, without a status."""
        self.cluster.kubectl("delete", RESOURCE, "pf", "--ignore-not-found")
        kind = {"apiVersion": "kmm.sigs.x-k8s.io/v1beta2", "kind": "PreflightValidationOCP"}
        self.cluster.apply({**kind, "metadata": {"name": "pf"}, "spec": spec})

    def copied(self, name: str, step: str = "true", **more: Any) -> Manifests:
        """A Module with a build section of a moment."""
        base = self.bench.push_kmods(compile_kmod(self.bench.new), "good")
        return build_module(name, self.bench.new_image(name), self.bench.copy_dockerfile(base, step), **LOGIN, **more)

    def entry(self, name: str) -> Mapping[str, Any]:
        """What pf says of a Module."""
        (one,) = [one for one in entries(self.api) if one["name"] == name]
        return one

    def objects(self, kind: ResourceKind) -> list[str]:
        """The names of all objects in the Modules' namespace."""
        return [one["metadata"]["name"] for one in listed(self.api, kind)]

    def secrets(self) -> tuple[str, ...]:
        """What may be seen nowhere: the password, plain and in a login, and the key, by a line of it and encoded."""
        registry, key = self.bench.registry, self.pair.key
        login = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
        return (registry.password, login, key.decode().splitlines()[1], base64.b64encode(key).decode())


def listed(api: Api, kind: ResourceKind) -> list[Any]:
    """All objects in the Modules' namespace; none where the cluster does not know the kind."""
    return list(api.list(kind, NAMESPACE) or ())


def entries(api: Api) -> list[dict[str, Any]]:
    """The entries in the status of pf."""
    manifest: Any = api.get(PREFLIGHTS, "pf")
    return list(manifest.get("status", {}).get("modules", ())) if manifest else []


class Watch:
    """What a cluster shows while something goes on, looked at again and again from another thread.

    stages are those of pf by Module, in the order in which they came; most is how many Builds, or Pods of Jobs, went on
    at a time; uids are those of Jobs and Builds by name; text is every manifest and log.
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
        """Everything that was shown."""
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
            came = self.stages.setdefault(entry["name"], [])
            came += [entry["verificationStage"]] if entry["verificationStage"] not in came[-1:] else []
        going = 0
        for kind in self._kinds:
            for one in listed(self._api, kind):
                self.uids.setdefault(one["metadata"]["name"], set()).add(one["metadata"]["uid"])
                self._texts.add(json.dumps(one))
                going += kind is BUILDS and one.get("status", {}).get("phase") not in ("Complete", "Failed")
        for pod in listed(self._api, PODS):
            builds = BUILDS not in self._kinds and "deletionTimestamp" not in pod["metadata"]
            going += builds and pod["status"].get("phase") in ("Pending", "Running")
            self._texts |= {json.dumps(pod), self._log(pod)}
        self.most = max(self.most, going)

    def _log(self, pod: Any) -> str:
        if pod["status"].get("phase") == "Pending":
            return ""
        try:
            return self._api.log(pod["metadata"]["name"], NAMESPACE, 1 << 20).decode()
        except PreflightError:
            return ""  # of a Pod that another has made up, or that is going at this moment


class Going:
    """A run that goes on in the background, with everything that belongs to it in a process group of its own.

    When the `with` ends it is killed where it still runs, with nothing that it could do about it.
    """

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

    def __enter__(self) -> Going:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(180)

    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text()


def push_signer(bench: Workbench) -> str:
    """An image with sign-file and what it stands on, which a node has sooner than a driver toolkit."""
    tool = headers(bench.new) / "scripts/sign-file"
    printed = subprocess.run(["ldd", tool], capture_output=True, text=True, check=True).stdout
    files = {path: Path(path) for path in re.findall(r"(/\S+) \(0x", printed)}
    files |= {"/bin/sh": Path(need_tool("busybox", "apt-get install busybox-static")), "/usr/local/bin/sign-file": tool}
    members = [Member(name.removeprefix("/"), path.read_bytes(), mode=0o755) for name, path in files.items()]
    push(bench.registry, "base/signer", "1", image([layer(members)], history=True))
    return f"{bench.registry.host}/base/signer:1"


def building(site: Site, *names: str) -> None:
    """Wait until the builds of these Modules run in Pods."""

    def met() -> bool:
        pods = [one["metadata"]["name"] for one in listed(site.api, PODS) if one["status"].get("phase") == "Running"]
        return all(any(pod.startswith(f"{name}-build-") for pod in pods) for name in names)

    eventually(met, WAIT_S)


def hidden(site: Site, watch: Watch, run: Run, artifacts: Path) -> None:
    """Key and password are neither in what the cluster showed nor in what the run left."""
    written = [path.read_text(errors="replace") for path in artifacts.rglob("*") if path.is_file()]
    for secret in site.secrets():
        assert secret not in watch.text
        assert secret not in run.output
        assert not any(secret in text for text in written)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, login_registry: Registry) -> Workbench:
    """All images are where one must log in."""
    return Workbench(login_registry, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, plain_registry: Registry, bench: Workbench) -> Iterator[Site]:
    """A cluster as KMM 2.3 finds it, with a node on which Jobs run."""
    need_node()
    folder = tmp_path_factory.mktemp("jobs")
    with cluster_with_node(folder, plain_registry, bench.registry) as node:
        node.cluster.apply_crds(released("kmm-2.3") / f"{RESOURCE}.yaml")
        # A Module's builds go to the nodes that its selector names.
        node.cluster.kubectl("label", "node", NODE, "node-role.kubernetes.io/worker=")
        builder = f"--builder-image={push_builder_image(plain_registry)}"
        site = Site(node.cluster, bench, folder, "--builder=job", builder)
        yield site
        # Whoever is told to end may take a while.
        eventually(lambda: site.objects(PODS) == [])


@pytest.fixture
def jobs(node: Site) -> Iterator[Site]:
    """The same for a test, of which nothing is left in the end."""
    yield node
    assert node.objects(JOBS) == []


def test_jobs_build_and_sign_within_the_bound_and_every_stage_is_told(jobs: Site, tmp_path: Path) -> None:
    signer = f"--signer-image={push_signer(jobs.bench)}"
    plain = [f"plain-{number}" for number in range(2)]
    jobs.answer(releaseImage="registry.example/release:1")
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
    hidden(jobs, watch, run, tmp_path / "artifacts")
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
    """A run that pushes nothing, of Modules whose builds end well and badly, and its folder."""
    folder = tmp_path_factory.mktemp("unpushed")
    source = '#include <linux/module.h>\nint init_module(void) { return no_such_call(); }\nMODULE_LICENSE("GPL");\n'
    broken = build_module("broken", node.bench.new_image("broken"), node.bench.compile_dockerfile(source), **LOGIN)
    node.apply(node.copied("kept"), node.copied("both", sign=SIGN), broken)
    return node.run(folder, "-n0"), folder


@pytest.mark.usefixtures("jobs")
def test_without_a_push_the_result_is_handed_back_and_not_signed(unpushed: tuple[Run, Path], bench: Workbench) -> None:
    run, folder = unpushed
    assert run.returncode == 1, run.output
    assert outcomes(run, "kept") == ("falls through", "verified", "not needed")
    assert module_of(run, "kept")["image"]["stored"] is False
    assert outcomes(run, "both") == ("falls through", "verified", "failed")
    assert finding(run, "both", "sign-input-absent")["sentence"] == NOTE
    bench.registry.authfile(folder / "auth.json")
    assert copied_out(bench, "made/kept", folder) == {}


@pytest.mark.usefixtures("jobs")
def test_what_does_not_compile_is_told_with_the_compilers_line(unpushed: tuple[Run, Path]) -> None:
    run, folder = unpushed
    assert outcomes(run, "broken") == ("falls through", "failed", "not needed")
    failed = finding(run, "broken", "build-failed")
    assert f"Job {NAMESPACE}/broken-build-" in failed["sentence"]
    assert any(COMPILER in line for line in failed["lines"])
    log = module_of(run, "broken")["stages"][1]["log"]
    for name in ("preflight.html", "junit_preflight.xml", log):
        assert COMPILER in (folder / "artifacts" / name).read_text()


def test_a_run_that_is_told_to_end_leaves_nothing(jobs: Site, tmp_path: Path) -> None:
    jobs.apply(jobs.copied("ended", "sleep 600"))
    with Going(tmp_path, jobs) as going:
        building(jobs, "ended")
        going.process.send_signal(signal.SIGTERM)
        assert going.process.wait(180) == 2, going.output()
    assert jobs.objects(JOBS) == []
    assert list((tmp_path / "tmp").glob("kmm-preflight-*")) == []


def test_what_a_killed_run_left_is_adopted_or_replaced(jobs: Site, tmp_path: Path) -> None:
    """What hangs is the first that is waited for: at its deadline the others' results must have been taken.

    The deadline counts from when the killed run made the Jobs: past it, nothing would be left to adopt.
    """
    deadline = "--build-timeout=75"
    hangs, same = jobs.copied("hangs", "sleep 600"), jobs.copied("same", "sleep 6")
    jobs.apply(hangs, same, jobs.copied("other", "sleep 600"))
    with Going(tmp_path / "killed", jobs, deadline):
        building(jobs, "hangs", "same", "other")
    left = {one["metadata"]["name"]: one["metadata"]["uid"] for one in listed(jobs.api, JOBS)}
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


def test_cleanup_names_what_a_killed_run_left(jobs: Site, tmp_path: Path) -> None:
    jobs.apply(jobs.copied("gone", "sleep 600"))
    with Going(tmp_path / "killed", jobs):
        building(jobs, "gone")
    (name,) = jobs.objects(JOBS)
    run = run_preflight(tmp_path, "--cleanup", f"--kubeconfig={jobs.kubeconfig}")
    assert run.returncode == 0, run.output
    assert run.stdout.splitlines() == [
        f"removed jobs.batch {NAMESPACE}/{name}",
        "1 removed; nothing is left of earlier runs.",
    ]


class OpenShift(Site):
    """A cluster of OpenShift, whose Builds take a while and push what they are asked for.

    kernels has those of Modules whose kmod is for another kernel than the newest one.
    """

    def __init__(self, cluster: Cluster, bench: Workbench, folder: Path) -> None:
        super().__init__(cluster, bench, folder)
        self.kernels: dict[str, str] = {}
        self.slow = 0

    def play(self, build: Mapping[str, Any]) -> Sequence[Act]:
        """What becomes of any Build: the image is there before it ends."""
        assert build
        return (PENDING, *[RUNNING] * self.slow, replace(COMPLETE, do=self._make))

    def _make(self, build: Mapping[str, Any]) -> None:
        """Push the result of a Build where it says so: unsigned, or signed for a sign."""
        if not build["spec"]["output"]:
            return
        name = build["metadata"]["labels"]["kmm.node.kubernetes.io/module.name"]
        kernel = self.kernels.get(name, self.bench.new)
        kmod = compile_kmod(kernel)
        if build["metadata"]["labels"]["kmm.openshift.io/build.type"] == "sign":
            kmod = signed(kmod, kernel, self.pair)
        registry, made = self.bench.registry, image([layer([Member(f"opt/lib/modules/{kernel}/{KMOD}.ko", kmod)])])
        repository, _, tag = build["spec"]["output"]["to"]["name"].removeprefix(f"{registry.host}/").rpartition(":")
        push(registry, repository, tag, made)


def signed(kmod: bytes, kernel: str, pair: KeyPair) -> bytes:
    """The kmod as the kernel's own sign-file leaves it."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"key": pair.key, "cert": pair.cert, "kmod": kmod}
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        tool = headers(kernel) / "scripts/sign-file"
        subprocess.run([tool, "sha256", *(Path(folder, name) for name in files)], check=True)
        return Path(folder, "kmod").read_bytes()


@pytest.fixture(scope="module")
def openshift(tmp_path_factory: pytest.TempPathFactory, bench: Workbench) -> Iterator[OpenShift]:
    """One cluster for all tests."""
    folder = tmp_path_factory.mktemp("builds")
    with Cluster(folder) as cluster:
        cluster.apply_crds(DEFINITION, released("kmm-2.3") / f"{RESOURCE}.yaml")
        site = OpenShift(cluster, bench, folder)
        with BuildController(cluster, site.play):
            yield site


@pytest.fixture
def builds(openshift: OpenShift) -> Iterator[OpenShift]:
    """The same for a test, of which nothing is left in the end."""
    openshift.kernels, openshift.slow = {}, 0
    yield openshift
    assert openshift.objects(BUILDS) == []
    eventually(lambda: openshift.objects(PODS) == [])


def test_what_openshift_has_pushed_is_proved_and_the_bound_holds(builds: OpenShift, tmp_path: Path) -> None:
    builds.slow = 1
    builds.kernels = {"os-other": builds.bench.old}
    builds.answer(releaseImage="registry.example/release:1", pushBuiltImage=True)
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
    hidden(builds, watch, run, tmp_path / "artifacts")


def test_what_openshift_does_not_push_is_not_proved(builds: OpenShift, tmp_path: Path) -> None:
    builds.apply(builds.copied("unproved"), builds.copied("unsigned", sign=SIGN))
    run = builds.run(tmp_path, "--builder=openshift", "-n0")
    assert run.returncode == 1, run.output
    assert outcomes(run, "unproved") == ("falls through", "undecided", "not needed")
    assert run.verdicts()["unproved"] == ("undecided", "image-not-found", "build-unproved")
    assert outcomes(run, "unsigned") == ("falls through", "verified", "failed")
    assert finding(run, "unsigned", "sign-input-absent")["sentence"] == NOTE
    assert run.document["builder"] == "openshift (as --builder says)"
