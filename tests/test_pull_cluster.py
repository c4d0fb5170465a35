"""Images pulled as a node pulls them, on a live cluster: mirrors, Secrets, and no output with a Secret's value."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from .clusters import account, module, namespaces, serve
from .real.kubernetes.cluster import Cluster
from .real.kubernetes.definitions import PREFLIGHTS, released
from .real.push import push
from .real.registry import Registry
from .runs import run_preflight, secret
from .shapes import VERIFIED, Parts, refuted
from .test_mirrors import IDMS, mirror_set
from .test_secrets import Watch, watching
from .test_signature_policies import policy

# No server listens at this address.
DOWN = "127.0.0.1:1"
MARK = "s3cret-that-nobody-prints-4711"


# Definitions of OpenShift's kinds, and the numbers of workers.
DEFINITIONS = {"own": "-n0", "openshift": "-n2"}


@pytest.fixture(scope="module", params=DEFINITIONS)
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Start a cluster with our own short definitions, or with the released definitions of KMM and OpenShift."""
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder) as running:
        if request.param == "own":
            serve(running, folder)
            running.apply_crds(PREFLIGHTS["later"])
        else:
            running.apply_crds(released("openshift"), released("kmm-main"))
        running.apply(*namespaces("shapes", "openshift-config"), account("shapes"))
        yield running


def login(*registries: Registry) -> dict[str, str]:
    """Return the data of a Secret with logins for these registries."""
    pairs = {
        registry.host: base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
        for registry in registries
    }
    body = json.dumps({"auths": {host: {"auth": pair} for host, pair in pairs.items()} | {"r.io": {"auth": mark()}}})
    return {".dockerconfigjson": base64.b64encode(body.encode()).decode()}


def mark() -> str:
    return base64.b64encode(f"user:{MARK}".encode()).decode()


def test_images_are_pulled_as_on_the_node_and_no_secret_is_printed(
    cluster: Cluster,
    login_registry: Registry,
    token_registry: Registry,
    kernels: tuple[str, str],
    kmods: Mapping[str, bytes],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    workers = DEFINITIONS[request.node.callspec.params["cluster"]]
    mirror, source = login_registry, token_registry
    old, new = kernels
    parts = Parts(new, old, kmods[new], kmods[old])
    image = parts.image(parts.good)
    push(mirror, "copy/kmod", "v1", image)
    push(source, "never/kmod", "v1", image)
    push(source, "own/kmod", "v1", image)
    copy = f"{mirror.host}/copy"
    names = {
        "unreachable": f"{DOWN}/team/kmod@{image.digest}",
        "never": f"{source.host}/never/kmod@{image.digest}",
        "own": f"{source.host}/own/kmod@{image.digest}",
    }
    cluster.apply(
        *(of(name, reference) for name, reference in names.items()),
        secret("own", "dockerconfigjson", login(source)),
        secret("pull-secret", "dockerconfigjson", login(mirror), "openshift-config"),
        mirror_set(IDMS, (f"{DOWN}/team", [copy]), name="down"),
        mirror_set(IDMS, (f"{source.host}/never", [copy]), name="never", never=True),
    )
    values = [MARK, mark(), mirror.password, source.password]
    values += [base64.b64encode(f"{one.user}:{one.password}".encode()).decode() for one in (mirror, source)]
    left, temporary = tmp_path / "left", tmp_path / "left" / "tmp"
    temporary.mkdir(parents=True)
    (tmp_path / "ca.pem").write_text("".join(one.ca.read_text() for one in (mirror, source) if one.ca))
    watch = Watch([value.encode() for value in values], temporary)
    source.forget()
    options = [f"--kernel={new}", f"--kubeconfig={cluster.kubeconfig()}", f"--registry-ca={tmp_path / 'ca.pem'}"]
    with watching(watch):
        run = run_preflight(
            left, *options, "--preflight=pf", "--create-preflight", workers, "-vv", "--showlocals",
            "--log-level=DEBUG", "-olog_cli=true", env={"TMPDIR": str(temporary), "PATH": os.environ["PATH"]},
        )  # fmt: skip
    assert run.verdicts() == {
        "never": VERIFIED,
        "own": VERIFIED,
        "unreachable": VERIFIED,
    }, run.output
    reasons = {case["name"]: case["reason"] for case in run.document["modules"]}
    assert all(f"read from its mirror {copy}/kmod" in reasons[name] for name in ("never", "unreachable"))
    assert not [request for request in source.requests() if "/never/" in request.path]
    assert watch.processes, "the run was not watched"
    assert watch.found == set()
    shown = cluster.kubectl("get", "preflightvalidationsocp", "pf", "-o", "yaml", "--show-managed-fields").stdout
    assert "kmm-preflight/record" in shown
    assert [value for value in values if value in run.output + shown] == []
    files = [path for path in left.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if any(value.encode() in path.read_bytes() for value in values)] == []
    cluster.kubectl("delete", "preflightvalidationsocp", "--all")


def test_a_module_s_own_secret_is_not_sent_to_a_mirror_on_another_host(
    cluster: Cluster, login_registry: Registry, token_registry: Registry, kernels: tuple[str, str], tmp_path: Path
) -> None:
    mirror, source = login_registry, token_registry
    cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "-n", "shapes", "--all")
    digest = f"sha256:{'0' * 64}"
    cluster.apply(
        of("own", f"{source.host}/mirrored/kmod@{digest}"),
        secret("own", "dockerconfigjson", login(mirror)),
        secret("pull-secret", "dockerconfigjson", login(), "openshift-config"),
        mirror_set(IDMS, (f"{source.host}/mirrored", [f"{mirror.host}/copy"]), name="mirrored"),
    )
    (tmp_path / "ca.pem").write_text("".join(one.ca.read_text() for one in (mirror, source) if one.ca))
    options = (f"--kernel={kernels[1]}", f"--kubeconfig={cluster.kubeconfig()}")
    run = run_preflight(tmp_path, *options, f"--registry-ca={tmp_path / 'ca.pem'}", "-n0")
    assert run.verdicts() == {"own": refuted("image-access-denied")}, run.output
    assert f"its mirrors failed too: image {mirror.host}/copy/kmod@{digest}" in run.sentences()["own"]


def of(name: str, reference: str) -> Mapping[str, Any]:
    """Return a Module with the kmod probe. The Module named own has a Secret of its own."""
    manifest = module("shapes", name, secret=name if name == "own" else "", containerImage=reference)
    manifest["spec"]["moduleLoader"]["container"]["modprobe"]["moduleName"] = "probe"
    return manifest


def test_policies_of_the_cluster_require_signatures(
    cluster: Cluster, plain_registry: Registry, kernels: tuple[str, str], kmods: Mapping[str, bytes], tmp_path: Path
) -> None:
    old, new = kernels
    parts = Parts(new, old, kmods[new], kmods[old])
    image = parts.image(parts.good)
    for name in ("of-cluster", "of-namespace", "free"):
        push(plain_registry, f"live/{name}", "v1", image)
    cluster.kubectl("delete", "modules.kmm.sigs.x-k8s.io", "-n", "shapes", "--all")
    live = f"{plain_registry.host}/live"
    cluster.apply(
        *(of(name, f"{live}/{name}:v1") for name in ("of-cluster", "of-namespace", "free")),
        policy(f"{live}/of-cluster", name="all"),
        policy(f"{live}/of-namespace", namespace="shapes", name="of"),
        policy(f"{live}/free", namespace="openshift-config", name="elsewhere"),
    )
    try:
        run = run_preflight(tmp_path, f"--kernel={new}", f"--kubeconfig={cluster.kubeconfig()}", "-n0")
        refused = refuted("image-signature-refused")
        assert run.verdicts() == {"of-cluster": refused, "of-namespace": refused, "free": VERIFIED}, run.output
    finally:
        cluster.kubectl("delete", "clusterimagepolicies", "--all")
        cluster.kubectl("delete", "imagepolicies", "--all", "-A")
