"""Builds as Jobs: the objects, and Pods on a real node that push, fail, hang and are deleted."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmm_preflight.build.access import registries_conf
from kmm_preflight.build.builder import BuildRequest, BuildResult, MountedSecret
from kmm_preflight.build.job import JobBuilder
from kmm_preflight.build.job_manifest import TEXT_BYTES, JobSettings, job_of, merged
from kmm_preflight.build.leftovers import clean_up
from kmm_preflight.build.objects import object_name
from kmm_preflight.cluster.api import JOBS, Access, Api, Forbidden, ResourceKind
from kmm_preflight.cluster.login import connect
from kmm_preflight.errors import BoundExceeded, Malformed, NotFound, Undecidable
from kmm_preflight.model import Flavour, ModuleName, RegistryTLS, Stage, TargetKernel
from kmm_preflight.oci.mirrors import MirrorRule, Mirrors
from kmm_preflight.oci.reference import Reference
from kmm_preflight.oci.registries import Registries
from kmm_preflight.planning.plan import Plan
from tests.clusters import namespaces
from tests.real.build import busybox
from tests.real.builder_image import push_builder_image
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import PREFLIGHTS
from tests.real.kubernetes.real_node import RealNode, cluster_with_node, need_node
from tests.real.layout import Member, image, layer, symlink
from tests.real.push import push
from tests.real.registry import Registry
from tests.real.skopeo import access, skopeo
from tests.runs import ROOT
from tests.test_real_kubernetes import eventually, told

PASSWORD = "correct horse battery"
TOOLS = ("sh", "cat", "sleep", "sha256sum", "printf", "mkdir", "ls", "kill", "cp")
KERNEL = TargetKernel("5.14.0-570.el9.x86_64+rt", "amd64", "rhel9", Flavour.RT, None, "")
INSECURE = RegistryTLS(insecure=True)
SUBJECT = "system:serviceaccount:kmm-preflight:kmm-preflight"
ROLES: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy" / "rbac-builds.yaml").read_text()))
ACCOUNTS = next(
    document for document in yaml.safe_load_all((ROOT / "deploy" / "rbac.yaml").read_text()) if "rules" in document
)
COMPILING = """\
FROM {base}
RUN echo '  CC [M] /build/probe.o' && echo "probe.c:7:3: error: too few arguments to function 'probe'" >&2 && exit 2
"""


class JobSite:
    """Node with registries and a builder."""

    def __init__(self, node: RealNode, folder: Path, plain: Registry, login: Registry) -> None:
        self.node = node
        self.cluster = node.cluster
        self.folder = folder
        self.plain, self.login = plain, login
        shell = [Member("bin/busybox", busybox(), mode=0o755), *(symlink(f"bin/{tool}", "busybox") for tool in TOOLS)]
        base = image([layer(shell)], history=True)
        for registry in (plain, login):
            push(registry, "base", "1", base)
        assert login.ca
        self.authorities = login.ca.read_text()
        self.builder_image = push_builder_image(plain)
        self.api = as_client(self.cluster.kubeconfig())

    @property
    def base(self) -> str:
        """Return the name of an image with a shell, in the registry without a login."""
        return f"{self.plain.host}/base:1"

    def settings(self, **more: Any) -> JobSettings:
        """Return settings with the builder image."""
        return JobSettings(**{"image": self.builder_image, "folder": self.folder / "archives", **more})

    def builder(self, **more: Any) -> JobBuilder:
        """Return a builder with the admin's account."""
        return JobBuilder(self.api, self.settings(**more))

    def request(self, name: str, steps: str = "", **more: Any) -> BuildRequest:
        """Return a request for a build on the base image. By default it has no push and no Secret."""
        plan = Plan(ModuleName("demo", name), KERNEL, Reference.parse(f"{self.plain.host}/made/{name}:1"), "probe")
        text = f"FROM {self.base}\n{steps}"
        fields = {"plan": plan, "dockerfile": text, "image": plan.image_name, "push": False, "timeout": 60}
        plain = {"pull_tls": INSECURE, "push_tls": INSECURE}
        return BuildRequest(id=f"{name}-build-0123456789", stage=Stage.BUILD, **{**fields, **plain, **more})

    def result(self, request: BuildRequest, **more: Any) -> tuple[BuildResult, list[str]]:
        """Run a build, and return its result and the steps that were shown."""
        words: list[str] = []
        builder = self.builder(**more)
        builder.start(request)
        return builder.result(request, words.append), words

    def job(self, request: BuildRequest) -> dict[str, Any]:
        """Return the Job of a request."""
        return dict(self.cluster.read(f"/apis/batch/v1/namespaces/demo/jobs/{object_name(request.id)}"))

    def pods(self, request: BuildRequest) -> list[dict[str, Any]]:
        """Return all Pods of a request."""
        selector = f"app.kubernetes.io%2Finstance%3D{object_name(request.id)}"
        return list(self.cluster.read(f"/api/v1/namespaces/demo/pods?labelSelector={selector}")["items"])

    def running(self, request: BuildRequest) -> str:
        """Wait until the request's Pod runs, and return its name."""
        eventually(lambda: [pod["status"].get("phase") for pod in self.pods(request)] == ["Running"])
        (pod,) = self.pods(request)
        return str(pod["metadata"]["name"])


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, plain_registry: Registry, login_registry: Registry
) -> Iterator[JobSite]:
    """Return one node for all tests of the file."""
    need_node()
    folder = tmp_path_factory.mktemp("jobs")
    with cluster_with_node(folder, plain_registry, login_registry) as node:
        node.cluster.apply_crds(PREFLIGHTS["list"])
        node.cluster.apply(*namespaces("demo"))
        site = JobSite(node, folder, plain_registry, login_registry)
        eventually(lambda: bool(site.cluster.read("/api/v1/namespaces/demo/serviceaccounts/default")))
        yield site
        assert clean_up(site.api, (JOBS,), datetime.now(UTC)) == ()
        clean_up(site.api, (JOBS,), datetime.now(UTC), everything=True)


def as_client(kubeconfig: Path, seconds: float = 60) -> Api:
    """Connect to the API server of a kubeconfig."""
    return connect(Access((kubeconfig,), "--kubeconfig", None, seconds))


def failure(result: BuildResult) -> tuple[str, str]:
    """Return id and sentence of the finding."""
    assert result.finding, result.log
    return result.finding.id, result.finding.sentence


def contents(result: BuildResult) -> dict[str, bytes]:
    """Return all files of the image in an archive, by path."""
    assert result.image, (result.finding, result.log)
    transport, _, path = result.image.partition(":")
    assert transport == "oci-archive"
    contents: dict[str, bytes] = {}
    with tarfile.open(path) as archive:

        def blob(digest: str) -> bytes:
            file = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert file
            return file.read()

        index = archive.extractfile("index.json")
        assert index
        (manifest,) = json.load(index)["manifests"]
        for entry in json.loads(blob(manifest["digest"]))["layers"]:
            with tarfile.open(fileobj=io.BytesIO(blob(entry["digest"]))) as files:
                for member in files:
                    file = files.extractfile(member) if member.isfile() else None
                    contents[member.name] = file.read() if file else b""
    return contents


def secret(name: str, kind: str, data: Mapping[str, str]) -> dict[str, Any]:
    """Return a Secret of the Module's namespace."""
    metadata = {"name": name, "namespace": "demo"}
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "stringData": dict(data)}


def test_the_job_requests_no_privilege_and_has_no_secret(tmp_path: Path) -> None:
    plan = Plan(
        ModuleName("demo", "probe"), KERNEL, Reference.parse("registry.example/kmods/probe:1"), "probe", secret="pull"
    )
    request = BuildRequest(
        id="probe-build-0123456789",
        stage=Stage.BUILD,
        plan=plan,
        dockerfile="FROM base\nRUN echo $(KERNEL) $$\n",
        image=plan.image_name,
        push=True,
        timeout=59.5,
        arguments=(("KERNEL_VERSION", KERNEL.version), ("FLAGS", "$(HOME)")),
        secrets=(MountedSecret("key", "signing-key", {"key": PASSWORD.encode()}),),
        pull_tls=INSECURE,
        selector=(("kmm", "yes"),),
    )
    patch = {"spec": {"tolerations": [{"key": "kmm"}], "containers": [{"name": "build", "resources": {"limits": {}}}]}}
    job = job_of(request, JobSettings("builder:1", tmp_path, patch=patch, authorities="PEM"), ("pull",))
    labels = {
        "app.kubernetes.io/managed-by": "kmm-preflight",
        "app.kubernetes.io/component": "build",
        "app.kubernetes.io/instance": "probe-build-0123456789",
        "kmm.node.kubernetes.io/module.name": "probe",
        "kmm.node.kubernetes.io/target-kernel": "5.14.0-570.el9.x86_64_rt",
    }
    metadata: Any = job["metadata"]
    assert metadata["labels"] == labels
    assert (metadata["name"], metadata["namespace"]) == ("probe-build-0123456789", "demo")
    spec: Any = job["spec"]
    template = spec.pop("template")
    assert spec == {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "activeDeadlineSeconds": 60,
        "ttlSecondsAfterFinished": 600,
    }
    assert template["metadata"]["labels"] == labels
    pod = template["spec"]
    (container,) = pod.pop("containers")
    assert pod == {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 15,
        "nodeSelector": {"kubernetes.io/arch": "amd64", "kmm": "yes"},
        "tolerations": [{"key": "kmm"}],
        "volumes": [
            {"name": "storage", "emptyDir": {}},
            {"name": "work", "emptyDir": {}},
            {"name": "login-0", "secret": {"secretName": "pull", "optional": True, "defaultMode": 0o400}},
            {"name": "secret-0", "secret": {"secretName": "signing-key", "optional": False, "defaultMode": 0o400}},
        ],
    }
    assert container["command"][:2] == ["/bin/sh", "-c"]
    assert container["args"] == [
        f"--build-arg=KERNEL_VERSION={KERNEL.version}",
        "--build-arg=FLAGS=$$(HOME)",
        "--volume=/secrets/0:/run/secrets/key:ro",
    ]
    assert container["env"] == [
        {"name": "IMAGE", "value": plan.image_name},
        {"name": "PULL_TLS", "value": "--tls-verify=false"},
        {"name": "PUSH_TLS", "value": ""},
        {"name": "DOCKERFILE_0", "value": "FROM base\nRUN echo $$(KERNEL) $$$$\n"},
        {"name": "REGISTRY_CA_0", "value": "PEM"},
        {"name": "REGISTRIES_0", "value": registries_conf((plan.image_name,), RegistryTLS(), Registries())},
    ]
    assert container["securityContext"] == {
        "runAsUser": 0,
        "runAsNonRoot": False,
        "capabilities": {
            "drop": ["ALL"],
            "add": ["SYS_CHROOT", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "SETFCAP"],
        },
    }
    assert (container["image"], container["resources"]) == ("builder:1", {"limits": {}})
    assert "readinessProbe" not in container
    assert PASSWORD not in json.dumps(job)
    with pytest.raises(BoundExceeded, match=f"at most {TEXT_BYTES} are allowed"):
        job_of(replace(request, dockerfile="#" * (TEXT_BYTES + 1)), JobSettings("builder:1", tmp_path), ())


@pytest.mark.parametrize(
    ("base", "patch", "result"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"a": 1, "b": 2}, {"a": None, "c": None}, {"b": 2}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({"a": 1}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
        (
            {"a": [{"name": "x", "v": 1}, {"name": "y"}]},
            {"a": [{"name": "x", "w": 2}, {"name": "z"}]},
            {"a": [{"name": "x", "v": 1, "w": 2}, {"name": "y"}, {"name": "z"}]},
        ),
        ({"a": [{"name": "x"}]}, {"a": [{"key": "t"}]}, {"a": [{"key": "t"}]}),
        ({}, {"a": [{"name": "x", "v": None}]}, {"a": [{"name": "x"}]}),
    ],
)
def test_a_patch_is_merged_into_a_template(
    base: dict[str, object], patch: dict[str, object], result: dict[str, object]
) -> None:
    assert merged(base, patch) == result


def test_a_job_builds_and_pushes_to_a_private_registry(site: JobSite) -> None:
    logins = site.login.authfile(site.folder / "auth.json").read_text()
    site.cluster.apply(
        secret("pull", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": logins}),
        secret("token", "Opaque", {"key": PASSWORD}),
    )
    steps = (
        f"FROM {site.login.host}/base:1\nARG KERNEL_VERSION\n"
        'RUN sleep 3 && cat /run/secrets/token/key && echo "$KERNEL_VERSION" > /version\n'
    )
    request = site.request("private", push=True, pull_tls=RegistryTLS(), push_tls=RegistryTLS(), dockerfile=steps)
    request = replace(
        request,
        plan=replace(request.plan, secret="pull"),
        image=f"{site.login.host}/made/private:1",
        arguments=(("KERNEL_VERSION", KERNEL.version),),
        secrets=(MountedSecret("token", "token", {"key": PASSWORD.encode()}),),
    )
    builder = site.builder(authorities=site.authorities)
    builder.start(request)
    assert PASSWORD not in json.dumps(site.job(request))
    assert site.login.password not in json.dumps([site.job(request), *site.pods(request)])
    words: list[str] = []
    result = builder.result(request, words.append)
    assert (result.finding, result.image, result.pushed) == (None, request.image, True), result.log
    assert any(step.startswith("Running: STEP 3/3: RUN sleep 3 ") for step in words), words
    inspected = json.loads(_inspect(site, request.image))
    assert f"pushed {request.image} as {inspected['Digest']}" in result.log
    assert "***" in result.log
    assert PASSWORD not in result.log + str(words)
    assert site.login.password not in result.log
    assert builder.publish(request, result) is result
    assert not site.job(request)
    eventually(lambda: not site.pods(request))


def _inspect(site: JobSite, reference: str) -> str:
    options = access(site.login, site.login.authfile(site.folder / "inspect.json"))
    done = skopeo("inspect", *options, f"docker://{reference}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_formats_of_pull_secrets_are_used(site: JobSite) -> None:
    logins = json.loads(site.login.authfile(site.folder / "auth.json").read_text())
    nothing = json.dumps({"auths": {"registry.example": {"auth": "YTpi"}}})
    site.cluster.apply(
        secret("first", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": nothing}),
        secret("second", "kubernetes.io/dockercfg", {".dockercfg": json.dumps(logins["auths"])}),
        _account("first", "gone", "second"),
    )
    try:
        request = site.request("account", dockerfile=f"FROM {site.login.host}/base:1\nRUN cp /bin/sh /copy\n")
        result, _ = site.result(request, authorities=site.authorities)
    finally:
        site.cluster.apply(_account())
    assert "copy" in contents(result)


def _account(*secrets: str) -> dict[str, Any]:
    named = [{"name": name} for name in secrets]
    metadata = {"name": "default", "namespace": "demo"}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "imagePullSecrets": named}


def test_a_result_without_a_push_is_fetched_from_the_pod(site: JobSite) -> None:
    # Text that Kubernetes or a shell would replace, and more than one variable can hold.
    filling = "".join(f"# {'ä$' * 50} {number}\n" for number in range(1500))
    steps = f"{filling}RUN printf '%s' '$(IMAGE) $$ ${{HOME}} \\ä' > /text && printf x >> /text\n"
    request = site.request("handed", steps)
    assert len(request.dockerfile.encode()) > 200_000
    result, words = site.result(request)
    files = contents(result)
    assert files["text"].decode() == "$(IMAGE) $$ ${HOME} \\äx"
    assert result.pushed is False
    assert result.image == f"oci-archive:{site.folder}/archives/{request.id}.tar"
    assert "SAVE the image" in result.log
    assert words
    assert not site.job(request)
    assert list((site.folder / "archives").glob("*.partial")) == []


def test_a_job_uses_mirrors_and_registries_on_loopback_like_the_suite(site: JobSite) -> None:
    rule = MirrorRule("registry.example", (site.plain.host,), by_digest=False)
    name = "registry.example/base:1"
    request = site.request("mirrored", dockerfile=f"FROM {name}\nRUN cp /bin/sh /copy\n", pull_tls=RegistryTLS())
    result, _ = site.result(replace(request, images=(name,)), registries=Registries(Mirrors((rule,))))
    assert "copy" in contents(result)


def test_a_failed_step_is_reported_with_its_lines(site: JobSite) -> None:
    request = site.request("compiles", dockerfile=COMPILING.format(base=site.base))
    result, _ = site.result(request)
    id, sentence = failure(result)
    assert (id, result.image) == ("build-failed", None)
    assert "Job demo/compiles-build-0123456789: buildah ended with exit code 2" in sentence
    assert result.finding
    assert "probe.c:7:3: error: too few arguments to function 'probe'" in result.finding.lines
    assert not site.job(request)


def test_a_very_long_log_keeps_its_end(site: JobSite) -> None:
    line = f"{'x' * 80} $i {PASSWORD}"
    steps = f"RUN i=0; while [ $i -lt 90000 ]; do echo {line}; i=$((i+1)); done; echo error: the last; exit 2\n"
    request = site.request("prints", steps, secrets=(MountedSecret("t", "token", {"key": PASSWORD.encode()}),))
    site.cluster.apply(secret("token", "Opaque", {"key": PASSWORD}))
    result, _ = site.result(request)
    assert failure(result)[0] == "build-failed"
    assert result.finding
    assert "error: the last" in result.finding.lines
    assert "STEP 1/2" in result.log
    assert "\n[…]\n" in result.log
    assert 6 << 20 < len(result.log.encode()) < 9 << 20
    assert not {word for word in PASSWORD.split() if word in result.log}


def test_a_refused_push_is_reported(site: JobSite) -> None:
    request = site.request("refused", push=True, image=f"{site.login.host}/made/refused:1")
    result, _ = site.result(request)
    id, sentence = failure(result)
    assert id == "build-failed"
    assert f"the push to {request.image} ended with exit code" in sentence
    assert "unauthorized" in result.log or "authentication required" in result.log


def test_a_build_that_hangs_is_stopped_at_its_deadline(site: JobSite) -> None:
    request = site.request("hangs", "RUN echo waiting for nothing && sleep 600\n", timeout=10)
    result, words = site.result(request)
    id, sentence = failure(result)
    assert id == "build-timeout"
    assert "within 10 s" in sentence
    assert "waiting for nothing" in result.log
    assert any("STEP 2/2" in step for step in words), words
    assert not site.job(request)
    eventually(lambda: not site.pods(request))


def test_a_pod_that_does_not_run_leaves_the_build_undecided(site: JobSite) -> None:
    """Run all cases at once, since each waits for its deadline."""
    ended: dict[str, tuple[BuildResult, list[str]]] = {}

    def run(name: str, image: str, **more: Any) -> None:
        request = site.request(name, timeout=20, **more)
        ended[name] = site.result(request, image=image)

    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "absent": (f"{site.plain.host}/no/such:1", {}),
        "invalid": ("Not An Image", {}),
        "shellless": (f"{site.plain.host}/base:1", {}),
        "secretless": (site.builder_image, {"secrets": (MountedSecret("gone", "gone", {}),)}),
        "nowhere": (site.builder_image, {"selector": (("no", "such-node"),)}),
    }
    threads = [threading.Thread(target=run, args=(name, image), kwargs=more) for name, (image, more) in cases.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sentences = {name: failure(result) for name, (result, _) in ended.items()}
    assert {id for id, _ in sentences.values()} == {"builder-failed"}, sentences
    # A busy kubelet may not know yet that the image does not exist.
    assert any(word in sentences["absent"][1] for word in ("ImagePull", "ContainerCreating"))
    assert "ContainerCreating" in sentences["secretless"][1]
    assert "InvalidImageName" in sentences["invalid"][1]
    assert "before the build; does the image have buildah?" in sentences["shellless"][1]
    assert "buildah: not found" in ended["shellless"][0].log
    assert "Unschedulable: 0/1 nodes are available" in sentences["nowhere"][1]
    assert any("Unschedulable" in step for step in ended["nowhere"][1])
    assert any("ImagePull" in step for step in ended["absent"][1])
    assert site.api.list(JOBS, "demo") == ()


def test_a_deleted_pod_leaves_the_build_undecided(site: JobSite) -> None:
    request = site.request("taken", "RUN sleep 600\n")
    builder = site.builder()
    builder.start(request)
    pod = site.running(request)
    told(site.cluster, "delete", "pod", pod, "--namespace=demo", "--wait=false")
    id, sentence = failure(builder.result(request, print))
    assert id == "builder-failed"
    assert "its Pod" in sentence


def test_the_same_job_is_used_again_and_another_replaces_it(site: JobSite) -> None:
    request = site.request("adopted", "RUN sleep 4 && cp /bin/sh /first\n")
    builder = site.builder()
    builder.start(request)
    uid = site.job(request)["metadata"]["uid"]
    first = site.running(request)
    site.builder().start(request)
    assert (site.job(request)["metadata"]["uid"], len(site.pods(request))) == (uid, 1)
    other = replace(request, dockerfile=f"FROM {site.base}\nRUN cp /bin/sh /second\n")
    builder.start(other)
    # The second Job was created after the end of the first Pod.
    running = [pod for pod in site.pods(request) if pod["status"].get("phase") not in ("Succeeded", "Failed")]
    assert first not in {pod["metadata"]["name"] for pod in running}
    assert site.job(request)["metadata"]["uid"] != uid
    files = contents(builder.result(other, print))
    assert "second" in files
    assert "first" not in files


def test_a_job_is_deleted_with_its_owner(site: JobSite) -> None:
    metadata = {"name": "next"}
    spec = {"releaseImage": "registry.example/release:1"}
    kind = {"apiVersion": "kmm.sigs.x-k8s.io/v1beta2", "kind": "PreflightValidationOCP"}
    site.cluster.apply({**kind, "metadata": metadata, "spec": spec})
    preflights = ResourceKind("kmm.sigs.x-k8s.io", "v1beta2", "preflightvalidationsocp", namespaced=False)
    request = site.request("owned", "RUN sleep 600\n")
    site.builder(owners={KERNEL.version: site.api.get(preflights, "next")}).start(request)
    site.running(request)
    told(site.cluster, "delete", "preflightvalidationsocp", "next")
    eventually(lambda: not site.job(request) and not site.pods(request))


def test_the_output_of_a_command_is_limited_and_its_exit_code_is_known(site: JobSite) -> None:
    request = site.request("asked", "RUN sleep 600\n")
    site.builder().start(request)
    pod = site.running(request)

    def output(*command: str, most: int = 1 << 20, name: str = pod) -> bytes:
        return b"".join(site.api.execute(name, "demo", command, most))

    every = bytes(range(256)) * 1024
    written = "".join(f"\\{byte:03o}" for byte in range(256))
    assert output("sh", "-c", f"for i in $(seq 1024); do printf '{written}'; done") == every
    assert output("true") == b""
    with pytest.raises(Malformed, match=r"exit code 3 .*no such thing"):
        output("sh", "-c", "echo no such thing >&2; exit 3")
    with pytest.raises(BoundExceeded, match="more than 1000 bytes"):
        output("cat", "/dev/zero", most=1000)
    with pytest.raises(NotFound, match="get pods/exec as"):
        output("true", name="no-such-pod")
    assert site.api.log("no-such-pod", "demo", 100) == b""
    site.cluster.stop()
    try:
        with pytest.raises(Undecidable):
            output("true")
    finally:
        site.cluster.start()
    assert clean_up(site.api, (JOBS,), datetime.now(UTC), [request.id]) == (f"jobs.batch demo/{request.id}",)


def test_the_role_has_exactly_the_needed_verbs(site: JobSite) -> None:
    cluster = site.cluster
    kubeconfig = cluster.service_account_kubeconfig("kmm-preflight", "kmm-preflight")
    accounts = [rule for rule in ACCOUNTS["rules"] if rule["resources"] == ["serviceaccounts"]]
    ours = [rule for rule in ROLES[0]["rules"] if rule["apiGroups"] != ["build.openshift.io"]]
    cluster.apply({**ROLES[0], "rules": [*ours, *accounts]}, *ROLES[1:])
    granted = {(verb, resource) for rule in ours for verb in rule["verbs"] for resource in rule["resources"]}
    eventually(lambda: _may(cluster, kubeconfig, "create", "pods/exec"))
    cluster.forget()
    account = as_client(kubeconfig)
    builder = JobBuilder(account, site.settings())
    request = site.request("account", "RUN sleep 2\n")
    builder.start(request)
    contents(builder.result(request, print))
    assert clean_up(account, (JOBS,), datetime.now(UTC), [request.id]) == ()
    used = _used(cluster) - {("list", "serviceaccounts")}
    # The API server allows exec by one of two verbs.
    assert granted - used == {("create", "pods/exec"), ("get", "pods")}
    assert used <= granted

    less = [{**rule, "verbs": ["get"]} if rule["resources"] == ["pods/exec"] else rule for rule in ours]
    cluster.apply({**ROLES[0], "rules": [*less, *accounts]})
    eventually(lambda: not _may(cluster, kubeconfig, "create", "pods/exec"))
    builder.start(request)
    with pytest.raises(Forbidden, match=r"pods/exec as .*deploy/rbac-builds\.yaml"):
        builder.result(request, print)
    assert clean_up(site.api, (JOBS,), datetime.now(UTC), [request.id]) == (f"jobs.batch demo/{request.id}",)


def _may(cluster: Cluster, kubeconfig: Path, verb: str, resource: str) -> bool:
    resource, _, part = resource.partition("/")
    question = ("auth", "can-i", verb, resource, f"--subresource={part}", "--namespace=demo")
    return cluster.kubectl(*question, kubeconfig=kubeconfig).returncode == 0


def _used(cluster: Cluster) -> set[tuple[str, str]]:
    events = [event for event in cluster.requests() if event.user == SUBJECT and event.resource]
    assert 403 not in {event.code for event in events}
    return {
        (event.verb, f"{event.resource}/{event.subresource}" if event.subresource else event.resource)
        for event in events
        if event.resource != "selfsubjectaccessreviews"
    }
