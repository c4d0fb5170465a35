"""kmm-preflight collect on a real API server: what it exports, what it leaves out, and a run on its folder."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands.collect import NOTE

from .clusters import account, module, namespaces, openshift, pull_secret, serve
from .demo import DEMO
from .real.kubernetes.cluster import Cluster
from .runs import ROOT, run_preflight

NAMED = ("pull-a", "key", "cert")
MARK = "s3cret-of-somebody-else"


def _secret(name: str) -> dict[str, Any]:
    metadata = {"namespace": "a", "name": name, "annotations": {"note": "kept"}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"key": MARK, "cert": "public"}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with 30 Secrets. Modules name 3 of them."""
    folder = tmp_path_factory.mktemp("cluster")
    sign = {"keySecret": {"name": "key"}, "certSecret": {"name": "cert"}, "filesToSign": ["/opt/a.ko"]}
    broken = {"containerImage": "registry.example/kmods/none:1"}
    with Cluster(folder) as running:
        serve(running, folder)
        running.apply(*namespaces("a", "b", "openshift-config"), account("a", "pull-account"))
        running.apply(pull_secret("a", "pull-a"), pull_secret("a", "pull-account"))
        running.apply(pull_secret("openshift-config", "pull-secret"), *map(_secret, ("key", "cert")))
        running.apply(*(_secret(f"other-{number}") for number in range(25)))
        running.apply(module("a", "good", "pull-a"), module("a", "bad", **broken), module("b", "signed", sign=sign))
        running.apply(module("a", "signed", **broken, sign=sign))
        mirrors = [{"source": "registry.example/none", "mirrors": ["mirror.example/none"]}]
        running.apply(openshift("ImageDigestMirrorSet", "mirrors", {"imageDigestMirrors": mirrors}))
        yield running


def collect(cluster: Cluster, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kmm_preflight", "collect", "-o", str(folder)]
    command.append(f"--kubeconfig={cluster.kubeconfig()}")
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=120)


def exported(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the exported objects by file name."""
    return {path.name: yaml.safe_load(path.read_text())["items"] for path in sorted(folder.glob("*.yaml"))}


def names(objects: list[dict[str, Any]]) -> list[str]:
    return sorted(f"{one['metadata'].get('namespace', '')}/{one['metadata']['name']}" for one in objects)


def test_only_the_secrets_that_modules_name(cluster: Cluster, tmp_path: Path) -> None:
    listed = cluster.kubectl("get", "secrets", "-A", "-o", "name")
    assert len(listed.stdout.split()) == 30, listed.stdout
    folder = tmp_path / "export"
    done = collect(cluster, folder)
    assert done.returncode == 0, done.stderr
    found = exported(folder)
    assert names(found["secrets.yaml"]) == ["a/cert", "a/key", "a/pull-a"]
    assert names(found["modules.kmm.sigs.x-k8s.io.yaml"]) == ["a/bad", "a/good", "a/signed", "b/signed"]
    assert names(found["imagedigestmirrorsets.config.openshift.io.yaml"]) == ["/mirrors"]
    assert "left out: 2 Secrets that nodes pull with" in done.stdout
    assert MARK not in done.stdout + done.stderr
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for one in found["secrets.yaml"]:
        assert set(one["metadata"].get("annotations", {})) <= {"note"}
        assert "managedFields" not in one["metadata"]


def test_with_the_logins_of_the_nodes(cluster: Cluster, tmp_path: Path) -> None:
    done = collect(cluster, tmp_path / "export", "--with-pull-secret")
    assert done.returncode == 0, done.stderr
    secrets = names(exported(tmp_path / "export")["secrets.yaml"])
    assert secrets == ["a/cert", "a/key", "a/pull-a", "a/pull-account", "openshift-config/pull-secret"]
    assert "left out" not in done.stdout


def test_a_run_on_the_folder_has_the_verdicts_of_a_run_on_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    assert collect(cluster, folder).returncode == 0
    live = run_preflight(tmp_path / "live", *DEMO, f"--kubeconfig={cluster.kubeconfig()}", "--builder=none")
    files = run_preflight(tmp_path / "files", *DEMO, f"--manifests={folder}", "--builder=none")
    assert set(live.verdicts()) == {"good", "bad", "signed"}, live.output
    assert files.verdicts() == live.verdicts(), files.output
    assert files.returncode == live.returncode


def test_a_second_export_replaces_the_first(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    assert collect(cluster, folder).returncode == 0
    (folder / "proxies.config.openshift.io.yaml").write_text("of an older export")
    assert collect(cluster, folder).returncode == 0
    assert "proxies.config.openshift.io.yaml" not in exported(folder)


def test_a_folder_with_other_files_is_left_alone(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "notes.yaml").write_text("mine")
    done = collect(cluster, tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"ERROR: --output {tmp_path}: the folder has other files.")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.yaml"]


def test_what_the_account_may_not_read_is_named(cluster: Cluster, tmp_path: Path) -> None:
    rules = [{"apiGroups": ["kmm.sigs.x-k8s.io"], "resources": ["modules"], "verbs": ["list"]}]
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": "reader"}, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "reader"}],
    }
    cluster.apply(role, binding)
    folder = tmp_path / "export"
    done = collect(cluster, folder, f"--kubeconfig={cluster.kubeconfig('reader', ())}")
    assert done.returncode == 0, done.stderr
    assert list(exported(folder)) == ["modules.kmm.sigs.x-k8s.io.yaml"]
    for resource in ("secrets", "nodes", "imagedigestmirrorsets"):
        assert f"{resource}" in done.stdout
    assert done.stdout.count("not read: ") >= 3
    assert "not read: " in (folder / NOTE).read_text()


def test_without_a_cluster_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kmm_preflight", "collect", "-o", str(tmp_path / "export")]
    done = subprocess.run(
        [*command, f"--kubeconfig={tmp_path / 'none'}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "export").exists()
