"""PreflightValidationOCP over several runs on a real API server: created, updated, recalled, judged again, removed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kmm_preflight.status.dialects import Dialect
from kmm_preflight.status.record import ANNOTATION
from tests.clusters import module, namespaces, serve
from tests.demo import KERNEL, LAYOUT, RELEASE
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import PREFLIGHTS, released
from tests.runs import Run, run_preflight

GOOD, OLD = "registry.example/kmods/hello:${KERNEL_FULL_VERSION}", "registry.example/kmods/hello:6.1.0-47-amd64"
OLD_KERNEL = "6.1.0-47-amd64"
RESOURCE = "preflightvalidationsocp"
DIALECTS = {"seed": Dialect.MAP, "1.1": Dialect.MAP, "list": Dialect.LIST, "2.3": Dialect.LIST}
EVERY = [("own", "seed"), ("own", "list"), ("own", "later"), ("kmm", "1.1"), ("kmm", "2.3"), ("kmm", "main")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder) as running:
        serve(running, folder)
        running.apply(*namespaces("one", "two"))
        yield running


class Object:
    """Cluster in one dialect, with two good Modules and no object."""

    def __init__(self, cluster: Cluster, dialect: Dialect, tmp_path: Path) -> None:
        self.cluster = cluster
        self.dialect = dialect
        self._folder = tmp_path
        self.resource = f"{RESOURCE}.{dialect.api_version}.kmm.sigs.x-k8s.io"

    def run(self, *options: str, account: Path | None = None) -> Run:
        """Run with --preflight=pf on the demo's images."""
        kubeconfig = account or self.cluster.kubeconfig("runner")
        given = (LAYOUT, "--preflight=pf", f"--kubeconfig={kubeconfig}", "-n0", *options)
        if not any(one.startswith("--kernel") for one in options):
            given += (f"--release-image={RELEASE}",)
        return run_preflight(self._folder, *given)

    def manifest(self, name: str = "pf") -> dict[str, Any]:
        """Return the object as kubectl reads it, with managedFields."""
        told = self.cluster.kubectl("get", self.resource, name, "-o", "json", "--show-managed-fields")
        return dict(json.loads(told.stdout)) if told.returncode == 0 else {}

    def names(self) -> list[str]:
        """Return the names of all objects."""
        told = json.loads(self.cluster.kubectl("get", self.resource, "-o", "json").stdout)
        return [one["metadata"]["name"] for one in told["items"]]

    def entries(self, name: str = "pf") -> dict[str, Mapping[str, str]]:
        """Return the entries by Module name."""
        status = self.manifest(name).get("status", {})
        if self.dialect is Dialect.MAP:
            return dict(status.get("crStatuses", {}))
        return {one["name"]: one for one in status.get("modules", ())}

    def verified(self, name: str = "pf") -> dict[str, bool]:
        """Map each Module name to True if its entry says verified."""
        said = {key: (one["verificationStatus"], one["verificationStage"]) for key, one in self.entries(name).items()}
        return {key: one in (("True", "Done"), ("Success", "Done")) for key, one in said.items()}

    def claim(self, *names: str) -> None:
        """Write entries that say verified as another writer."""
        yes = "Success" if self.dialect is Dialect.ONE_KERNEL else "True"
        fields = {"verificationStatus": yes, "verificationStage": "Done", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        several = [{"namespace": names_of(name), "name": name, **fields} for name in names]
        status = {"modules": several}
        if self.dialect is Dialect.MAP:
            status = {"crStatuses": dict.fromkeys(names, fields)}  # type: ignore[dict-item]  # the seed's map
        done = self.cluster.kubectl(
            "patch",
            self.resource,
            object_name(self),
            "--subresource=status",
            "--type=merge",
            "--field-manager=kmm-operator",
            f"-p={json.dumps({'status': status})}",
        )
        assert done.returncode == 0, done.stderr

    def written(self) -> list[tuple[str, str]]:
        """Return verb and resource of each write since forget()."""
        return [
            (one.verb, one.resource)
            for one in self.cluster.requests()
            if one.verb not in ("get", "list", "watch") and one.user == "runner"
        ]


def names_of(module: str) -> str:
    """Return the namespace of a Module of these tests."""
    return {"a": "one", "b": "two"}[module]


@pytest.fixture(scope="module", params=[("own", "list")], ids="-".join)
def dialect(
    running: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Dialect]:
    """Return the dialect that the cluster serves. Tests of one dialect run in a row, so each is served once."""
    whose, name, *_ = request.param
    running.apply_crds(PREFLIGHTS[name] if whose == "own" else released(f"kmm-{name}") / f"{RESOURCE}.yaml")
    yield DIALECTS.get(name, Dialect.ONE_KERNEL)
    running.remove_crds()
    serve(running, tmp_path_factory.mktemp("cluster"))


@pytest.fixture
def pf(running: Cluster, dialect: Dialect, tmp_path: Path) -> Iterator[Object]:
    running.apply(module("one", "a"), module("two", "b"))
    yield Object(running, dialect, tmp_path)
    for kind in (f"{RESOURCE}.kmm.sigs.x-k8s.io", "modules.kmm.sigs.x-k8s.io"):
        done = running.kubectl("delete", kind, "--all", "--all-namespaces")
        assert done.returncode == 0, done.stderr


every_dialect = pytest.mark.parametrize("dialect", EVERY, indirect=True, ids="-".join)
# The dialect between has the words of the first and the shape of the last, and is that of the tests that name none.
first_and_last = pytest.mark.parametrize("dialect", [EVERY[0], EVERY[2]], indirect=True, ids="-".join)
later = pytest.mark.parametrize("dialect", [("own", "later")], indirect=True, ids="-".join)
before_an_upgrade = pytest.mark.parametrize("dialect", [("own", "list", "of one test")], indirect=True, ids="-".join)


def object_name(pf: Object) -> str:
    """Return the name of the object for the demo's release. Since KMM 2.4 the name has the kernel's stream."""
    return "pf-debian-12-standard" if pf.dialect is Dialect.ONE_KERNEL else "pf"


@every_dialect
def test_an_object_is_created_updated_and_its_verdicts_are_recalled(pf: Object) -> None:
    first = pf.run("--create-preflight")
    assert first.returncode == 0, first.output
    name = object_name(pf)
    assert pf.names() == [name]
    assert pf.verified(name) == {"a": True, "b": True}
    pf.cluster.forget()
    second = pf.run("--create-preflight")
    assert second.returncode == 0, second.output
    assert pf.written() == []
    (sentence,) = [line for line in second.stdout.splitlines() if line.startswith("Every Module")]
    assert sentence == (
        "Every Module is verified on every target kernel: 2 Modules (2 Module and kernel pairs), all by an earlier run."
    )
    for one in second.document["modules"]:
        assert re.match(r"verified on \d{4}-\d\d-\d\dT.*Z? by an earlier run", one["reason"]), one
        assert one["stages"][0]["outcome"] == "not needed"
    assert "2 Modules" in (pf._folder / "artifacts/preflight.html").read_text()


@first_and_last
def test_only_a_changed_module_is_judged_again(pf: Object) -> None:
    assert pf.run("--create-preflight").returncode == 0
    pf.cluster.apply(module("two", "b", containerImage=OLD))
    run = pf.run()
    assert run.returncode == 1, run.output
    stages = {one["name"]: [stage["outcome"] for stage in one["stages"]] for one in run.document["modules"]}
    assert stages["a"][0] == "not needed"
    assert stages["b"][0] == "failed"
    (note,) = [one for one in run.document["modules"][1]["findings"] if one["id"] == "judged-again"]
    assert "checked again: generation 2 of the Module, not 1, since it was verified on 20" in note["sentence"]
    assert pf.verified(object_name(pf)) == {"a": True, "b": False}
    again = pf.run()
    assert again.returncode == 1, "a failed one is tried again, and carried over by nobody"
    assert again.document["modules"][1]["stages"][0]["outcome"] == "failed"


@first_and_last
def test_a_verified_entry_without_a_record_is_judged_and_its_writer_named(pf: Object) -> None:
    pf.cluster.apply(module("two", "b", containerImage=OLD))
    assert pf.run("--create-preflight").returncode == 1
    pf.claim("a", "b")
    run = pf.run()
    assert run.returncode == 1, run.output
    findings = {one["name"]: [f["sentence"] for f in one["findings"]] for one in run.document["modules"]}
    assert [one for one in findings["b"] if "written by kmm-operator (Update, 20" in one]
    assert findings["a"] == [], "what is on record needs no claim"
    assert pf.verified(object_name(pf)) == {"a": True, "b": False}


def test_revalidate_judges_every_module_again(pf: Object) -> None:
    assert pf.run("--create-preflight").returncode == 0
    run = pf.run("--revalidate")
    assert run.returncode == 0, run.output
    assert [one["stages"][0]["outcome"] for one in run.document["modules"]] == ["verified", "verified"]
    assert [one["findings"] for one in run.document["modules"]] == [[], []], "the option is no news"


@first_and_last
def test_a_whole_run_removes_deleted_modules_and_keeps_entries_of_others(pf: Object) -> None:
    assert pf.run("--create-preflight").returncode == 0
    name = object_name(pf)
    entry = {
        "verificationStatus": "Success" if pf.dialect is Dialect.ONE_KERNEL else "True",
        "verificationStage": "Done",
    }
    entry["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    foreign: dict[str, Any] = {"crStatuses": {"foreign": entry}}
    if pf.dialect is not Dialect.MAP:
        kept = pf.manifest(name)["status"]["modules"]
        foreign = {"modules": [*kept, {"namespace": "one", "name": "foreign", **entry}]}
    body = json.dumps({"status": foreign})
    pf.cluster.kubectl("patch", pf.resource, name, "--subresource=status", "--type=merge", f"-p={body}")
    pf.cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "-n", "two", "b")
    part = pf.run("-k", "one/a")
    assert part.returncode == 0, part.output
    whole = pf.run()
    assert whole.returncode == 0, whole.output
    assert pf.verified(name) == {"a": True, "foreign": True}


@first_and_last
def test_a_partial_run_keeps_entries_that_it_does_not_judge(pf: Object) -> None:
    pf.cluster.apply(module("two", "b", containerImage=OLD))
    assert pf.run("--create-preflight").returncode == 1
    name = object_name(pf)
    before = pf.entries(name)["b"]
    assert "kernels 6.1.0-47-amd64" in before["statusReason"]
    for options, code in ((("-k", "one/a"), 0), (("-k", "nothing"), 5), (("--revalidate", "-k", "one/a"), 0)):
        run = pf.run(*options)
        assert run.returncode == code, run.output
        assert pf.entries(name)["b"] == before
        assert pf.verified(name) == {"a": True, "b": False}
    pf.claim("b")
    assert pf.run("-k", "nothing").returncode == 5
    assert pf.verified(name)["b"], "what nobody has judged is left to its author"


@pytest.mark.parametrize("dialect", [("own", "seed"), ("own", "list")], indirect=True, ids="-".join)
def test_an_entry_for_two_kernels_is_verified_after_both_runs(pf: Object) -> None:
    kernels = [f"--kernel={KERNEL}", f"--kernel={OLD_KERNEL}"]
    options = ["--create-preflight", f"--release-image={RELEASE}", *kernels]
    first = pf.run(*options, "-k", f"one/a and {KERNEL}")
    assert first.returncode == 0, first.output
    assert "a" not in pf.verified()
    second = pf.run(*options, "-k", f"one/a and {OLD_KERNEL}")
    assert second.returncode == 0, second.output
    assert pf.verified() == {"a": True}
    assert pf.run(*options, "--revalidate", "-k", f"one/a and {KERNEL}").returncode == 0
    assert pf.verified() == {"a": True}


def test_entries_that_a_stopped_run_did_not_reach_stay(pf: Object) -> None:
    pf.cluster.apply(module("one", "a", containerImage=OLD), module("two", "b", containerImage=OLD))
    assert pf.run("--create-preflight").returncode == 1
    before = pf.entries()["b"]
    assert pf.run("-x").returncode == 1
    after = pf.entries()["b"]
    assert {**after, "lastTransitionTime": ""} == {**before, "lastTransitionTime": ""}


def test_the_entry_of_the_last_deleted_module_is_removed(pf: Object) -> None:
    assert pf.run("--create-preflight").returncode == 0
    pf.cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "--all", "--all-namespaces")
    assert pf.run().returncode == 5
    assert pf.entries() == {}


@before_an_upgrade
def test_an_object_of_an_older_kmm_is_one_line_after_its_upgrade(pf: Object) -> None:
    assert pf.run("--create-preflight").returncode == 0
    pf.cluster.apply_crds(PREFLIGHTS["later"])
    for options in ((), ("--kernel=" + KERNEL,), ("--create-preflight",)):
        run = pf.run(*options)
        assert run.returncode == 4, run.output
        assert "--preflight pf: the object has no spec.kernelVersion" in run.stderr


def test_options_that_differ_from_the_spec_are_reported(pf: Object) -> None:
    assert pf.run("--create-preflight").returncode == 0
    pf.cluster.apply(module("two", "b", containerImage=OLD))
    run = pf.run(f"--kernel={OLD_KERNEL}", "-k", "two/b")
    assert run.returncode == 0, run.output
    assert f"pf names {RELEASE}; its status shows verdicts on {OLD_KERNEL}, as the options say" in run.stdout


def test_a_partial_run_removes_no_entry(pf: Object) -> None:
    pf.cluster.apply(module("one", "c"))
    assert pf.run("--create-preflight").returncode == 0
    pf.cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "-n", "two", "b")
    pf.cluster.apply(module("one", "a", containerImage=GOOD + "-none"))
    part = pf.run("-k", "one/a")
    assert part.returncode == 1, part.output
    assert pf.verified() == {"a": False, "b": True, "c": True}
    pf.cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "-n", "one", "c")


def test_a_damaged_record_is_reported_and_does_not_count(pf: Object) -> None:
    assert pf.run("--create-preflight").returncode == 0
    for text in ("no record", "eJwDAAAAAAE=", "x" * 1000):
        pf.cluster.kubectl("annotate", pf.resource, "pf", f"{ANNOTATION}={text}", "--overwrite")
        run = pf.run()
        assert run.returncode == 0, run.output
        assert [one["stages"][0]["outcome"] for one in run.document["modules"]] == ["verified", "verified"]
        assert any("pf has no readable record: " in said for said in run.document["assumed"])
    assert pf.run().document["modules"][0]["stages"][0]["outcome"] == "not needed"


def test_a_changed_secret_or_config_map_is_judged_again(pf: Object) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "one", "name": "pull"}}
    secret |= {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": '{"auths": {}}'}}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "one", "name": "file"}}
    build = {"dockerfileConfigMap": {"name": "file"}}
    pf.cluster.apply(secret, config_map, module("one", "a", secret="pull", build=build))
    assert pf.run("--create-preflight").returncode == 0
    changes: tuple[dict[str, Any], ...] = (
        {**secret, "stringData": {".dockerconfigjson": '{"auths": {"r.io": {}}}'}},
        {**config_map, "data": {"dockerfile": "FROM x"}},
    )
    for changed in changes:
        assert pf.run().document["modules"][0]["stages"][0]["outcome"] == "not needed"
        pf.cluster.apply(changed)
        run = pf.run()
        assert run.returncode == 0, run.output
        assert run.document["modules"][0]["stages"][0]["outcome"] == "verified"
        assert f"another version of {changed['kind'].lower()}/" in run.document["modules"][0]["findings"][0]["sentence"]


def test_a_missing_object_is_one_line_that_names_the_option(pf: Object) -> None:
    run = pf.run()
    assert run.returncode == 4, run.output
    assert len(run.stderr.strip().splitlines()) == 1
    assert "--preflight pf: no such PreflightValidationOCP" in run.stderr
    assert "--create-preflight" in run.stderr


@later
def test_each_kernel_has_an_object(pf: Object) -> None:
    kernels = (f"--kernel={KERNEL}", f"--kernel={OLD_KERNEL}")
    pf.cluster.apply(module("two", "b", containerImage=OLD))
    run = pf.run("--create-preflight", *kernels)
    assert run.returncode == 1, run.output
    new, old = f"pf-{KERNEL}", f"pf-{OLD_KERNEL}"
    assert sorted(pf.names()) == sorted([new, old])
    assert pf.verified(new) == {"a": True, "b": False}
    assert pf.verified(old) == {"a": True, "b": True}
    assert {pf.manifest(name)["spec"]["kernelVersion"] for name in (new, old)} == {KERNEL, OLD_KERNEL}
    pf.cluster.forget()
    pf.run(*kernels)
    assert {name for _, name in pf.written()} <= {RESOURCE}
    assert pf.verified(old) == {"a": True, "b": True}


@later
def test_an_existing_object_shows_verdicts_on_its_own_kernel(pf: Object) -> None:
    manifest = {"apiVersion": "kmm.sigs.x-k8s.io/v1beta2", "kind": "PreflightValidationOCP", "metadata": {"name": "pf"}}
    pf.cluster.apply({**manifest, "spec": {"kernelVersion": OLD_KERNEL}})
    both = pf.run(f"--kernel={KERNEL}", f"--kernel={OLD_KERNEL}")
    assert both.returncode == 0, both.output
    assert pf.names() == ["pf"]
    assert all(OLD_KERNEL in one["statusReason"] for one in pf.entries().values())
    assert any(f"the verdicts on kernel {KERNEL} are in no status" in said for said in both.document["assumed"])
    other = pf.run(f"--kernel={KERNEL}")
    assert other.returncode == 4, other.output
    assert f"the object is for kernel {OLD_KERNEL}, the run judges {KERNEL}" in other.stderr


@later
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--flavour=rt",), f"--flavour rt: no --kernel has this flavour, got {KERNEL}"),
        (("--realtime",), f"--flavour rt: no --kernel has this flavour, got {KERNEL}"),
        (("--arch=arm64",), f"--kernel {KERNEL}: the name says amd64, got --arch arm64"),
        (("--preflight=My_Name",), "--preflight My_Name: expected a name of lower case letters"),
        (("--preflight=other",), "pass --create-preflight and --release-image to create it"),
        (("--setup-plan",), "--setup-plan judges nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_contradict_the_object_are_refused(
    pf: Object, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    manifest = {"apiVersion": "kmm.sigs.x-k8s.io/v1beta2", "kind": "PreflightValidationOCP", "metadata": {"name": "pf"}}
    pf.cluster.apply({**manifest, "spec": {"kernelVersion": KERNEL}})
    run = run_preflight(tmp_path, LAYOUT, f"--kubeconfig={pf.cluster.kubeconfig()}", "--preflight=pf", "-n0", *options)
    assert run.returncode == 4, run.output
    assert words in run.stderr
    assert "Traceback" not in run.output


@later
def test_an_object_with_an_invalid_spec_is_named(pf: Object, tmp_path: Path) -> None:
    manifest = {"apiVersion": "kmm.sigs.x-k8s.io/v1beta2", "kind": "PreflightValidationOCP", "metadata": {"name": "pf"}}
    pf.cluster.apply({**manifest, "spec": {"kernelVersion": "a.b.c"}})
    run = run_preflight(tmp_path, LAYOUT, f"--kubeconfig={pf.cluster.kubeconfig()}", "--preflight=pf")
    assert run.returncode == 4, run.output
    assert "--preflight pf: wrong value in its spec: " in run.stderr


def operator(image: str, owner: str = "", replicas: int = 1) -> Mapping[str, Any]:
    """Return the Deployment of KMM's operator. owner is OLM's label."""
    pod = {"metadata": {"labels": {"app": "kmm"}}, "spec": {"containers": [{"name": "manager", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "namespace": "openshift-kmm",
            "name": "kmm-operator-controller",
            "labels": {"olm.owner": owner} if owner else {},
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "kmm"}}, "template": pod},
    }


@pytest.fixture
def with_operator(pf: Object) -> Iterator[Object]:
    pf.cluster.apply(*namespaces("openshift-kmm"))
    yield pf
    pf.cluster.kubectl("delete", "deployments", "-n", "openshift-kmm", "--all")


@later
@pytest.mark.parametrize(
    ("deployment", "words"),
    [
        (operator("r/kmm@sha256:aa", "kernel-module-management.v2.4.1"), "operator 2.4 runs in"),
        (operator("r/kmm:v2.4.0"), "operator 2.4 runs in"),
        (operator("r/kmm@sha256:aa"), "its version is not known; KMM 2.4 does"),
    ],
    ids=["owner", "tag", "unknown"],
)
def test_an_operator_that_always_pushes_must_be_allowed(
    with_operator: Object, deployment: Mapping[str, Any], words: str
) -> None:
    with_operator.cluster.apply(deployment)
    run = with_operator.run("--create-preflight")
    assert run.returncode == 4, run.output
    assert words in run.stderr
    assert "whatever pushBuiltImage says" in run.stderr
    assert "--allow-operator-builds" in run.stderr
    assert with_operator.names() == []
    allowed = with_operator.run("--create-preflight", "--allow-operator-builds")
    assert allowed.returncode == 0, allowed.output
    assert words in allowed.stderr


@pytest.mark.parametrize("dialect", [("own", "list"), ("own", "later")], indirect=True, ids="-".join)
def test_a_warning_says_what_the_operator_will_do(with_operator: Object) -> None:
    version = "2.5.1" if with_operator.dialect is Dialect.ONE_KERNEL else "2.3.0"
    with_operator.cluster.apply(operator("r/kmm", f"kernel-module-management.v{version}"))
    run = with_operator.run("--create-preflight")
    assert run.returncode == 0, run.output
    assert f"KMM's operator {version[:3]} runs in namespace openshift-kmm" in run.stderr
    assert "and pushes nothing" in run.stderr
    assert any("KMM's operator" in said for said in run.document["assumed"])
    deep = with_operator.run("--proof=node")
    assert deep.document["proof"]["kmmVersion"] == version.rpartition(".")[0]
    over = with_operator.run("--proof=node", "--kmm-version=2.1")
    assert over.document["proof"]["kmmVersion"] == "2.1"


@later
def test_an_operator_without_replicas_does_not_count(with_operator: Object) -> None:
    with_operator.cluster.apply(operator("r/kmm:v2.4.0", replicas=0))
    assert with_operator.run("--create-preflight").returncode == 0
