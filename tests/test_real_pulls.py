"""Pods with pull secrets on a real kubelet: it pulls the images that the suite pulls with its credentials."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kmm_preflight.cluster.credentials import image_credentials
from kmm_preflight.cluster.inventory import Inventory
from kmm_preflight.errors import AccessDenied
from kmm_preflight.model import VERIFIED_HTTPS, Flavour, ModuleName, TargetKernel
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.reference import Reference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.kept_files import keep_rules

from .clusters import namespaces
from .real.build import busybox
from .real.kubernetes.real_node import RealNode, cluster_with_node, need_node
from .real.kubernetes.runtime import busybox_image
from .real.layout import Member, layer
from .real.layout import image as made_image
from .real.push import push
from .real.registry import Registry
from .test_real_kubernetes import eventually

TEAM = "team"
TYPE, OLD_TYPE = "kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"


@dataclass(frozen=True)
class Case:
    """A Pod of a Module."""

    secret: Mapping[str, Any] | None = None
    """The imageRepoSecret, or None for no name."""
    of_account: Mapping[str, Any] | None = None
    """The Secret of the Pod's account, or None for an account without Secrets."""
    public: bool = False
    """True if the image needs no login."""
    pulls: bool = True
    """True if the kubelet pulls the image."""


def _auth(registry: Registry, password: str | None = None) -> dict[str, str]:
    pair = f"{registry.user}:{registry.password if password is None else password}"
    return {"auth": base64.b64encode(pair.encode()).decode()}


def _secret(auths: Mapping[str, Any], kind: str | None = TYPE) -> dict[str, Any]:
    key, body = (".dockercfg", auths) if kind == OLD_TYPE else (".dockerconfigjson", {"auths": auths})
    return {**({"type": kind} if kind else {}), "stringData": {key: json.dumps(body)}}


def _cases(registry: Registry) -> dict[str, Case]:
    """Return the cases by name. The image of a case is pull/NAME."""
    host, right, wrong = registry.host, _auth(registry), _auth(registry, "wrong")
    typed = _secret({host: right})
    opaque, untyped = _secret({host: right}, "Opaque"), _secret({host: right}, None)
    return {
        "typed": Case(typed),
        "old-type": Case(_secret({host: right}, OLD_TYPE)),
        "opaque": Case(opaque, pulls=False),
        "untyped": Case(untyped, pulls=False),
        "wrong": Case(_secret({host: wrong}), pulls=False),
        "for-another": Case(_secret({"registry.example": right}), pulls=False),
        "missing": Case({}, pulls=False),
        "none": Case(pulls=False),
        "account": Case(of_account=typed),
        "account-opaque": Case(of_account=opaque, pulls=False),
        "account-unused": Case(opaque, of_account=typed, pulls=False),
        "path": Case(_secret({host: wrong, f"{host}/pull/path": right})),
        "host": Case(_secret({host: right, f"{host}/pull/host": wrong})),
        "glob": Case(_secret({host.replace("127", "*"): right})),
        "public-opaque": Case(opaque, public=True),
        "public-missing": Case({}, public=True),
        "public-broken": Case(_secret({host: {"auth": "!"}}), public=True, pulls=False),
    }


def _objects(name: str, case: Case, image: str) -> Iterator[dict[str, Any]]:
    """Yield the Secrets, the account and the Pod of a case."""
    for suffix, secret in (("own", case.secret), ("account", case.of_account)):
        if secret:
            where = {"metadata": {"name": f"{name}-{suffix}", "namespace": TEAM}}
            yield {"apiVersion": "v1", "kind": "Secret", **where, **secret}
    yield _account(name, case)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": name,
        "containers": [{"name": "main", "image": image, "command": ["/bin/busybox", "true"]}],
    }
    if case.secret is not None:
        spec["imagePullSecrets"] = [{"name": f"{name}-own"}]
    yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": TEAM}, "spec": spec}


def _account(name: str, case: Case) -> dict[str, Any]:
    metadata = {"name": name, "namespace": TEAM}
    secrets = [{"name": f"{name}-account"}] if case.of_account else []
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "imagePullSecrets": secrets}


def _pulled(node: RealNode, name: str) -> bool | None:
    """Return True after a pull, False after a refusal, None before either."""
    status = node.cluster.read(f"/api/v1/namespaces/{TEAM}/pods/{name}").get("status", {})
    for one in status.get("containerStatuses", []):
        if "terminated" in one["state"] or "running" in one["state"]:
            return True
        # The reason is a problem: ErrImagePull, ImagePullBackOff, or the words of a Secret that cannot be parsed.
        if one["state"].get("waiting", {}).get("reason", "ContainerCreating") != "ContainerCreating":
            return False
    return None


def _ours(name: str, case: Case, image: str, folder: Path, authority: Path | None) -> bool:
    """True if the suite pulls the image with the credentials of the case."""
    named = (("own", case.secret), ("account", case.of_account))
    secrets = {(TEAM, f"{name}-{suffix}"): secret for suffix, secret in named if secret}
    accounts = {(TEAM, name): _account(name, case)}
    plan = Plan(
        ModuleName(TEAM, name),
        TargetKernel("k", "amd64", None, Flavour.STANDARD, None, ""),
        Reference.parse(image),
        secret=f"{name}-own" if case.secret is not None else None,
        account=name,
    )
    credentials = image_credentials(plan, Inventory(secrets=secrets, service_accounts=accounts, live=True), None)
    if credentials.problem:
        return False
    images = ImageResolver(Network(ca=authority), Cache(folder / "cache"), None, keep_rules())
    try:
        images.image(plan.image, "amd64", credentials.pull, VERIFIED_HTTPS)
    except AccessDenied:
        return False
    return True


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, plain_registry: Registry, login_registry: Registry
) -> Iterator[RealNode]:
    """A node with the Pods of all cases."""
    need_node()
    cases = _cases(login_registry)
    for name, case in cases.items():
        push(plain_registry if case.public else login_registry, f"pull/{name}", "1", busybox_image())
    with cluster_with_node(tmp_path_factory.mktemp("node"), plain_registry, login_registry) as running:
        running.cluster.apply(*namespaces(TEAM))
        eventually(lambda: bool(running.cluster.read(f"/api/v1/namespaces/{TEAM}/serviceaccounts/default")))
        for name, case in cases.items():
            host = (plain_registry if case.public else login_registry).host
            running.cluster.apply(*_objects(name, case, f"{host}/pull/{name}:1"))
        yield running


def test_the_suite_pulls_what_the_kubelet_pulls(
    node: RealNode, plain_registry: Registry, login_registry: Registry, tmp_path: Path
) -> None:
    cases = _cases(login_registry)
    eventually(lambda: all(_pulled(node, name) is not None for name in cases), 120)
    kubelet = {name: _pulled(node, name) for name in cases}
    assert kubelet == {name: case.pulls for name, case in cases.items()}
    ours = {
        name: _ours(
            name,
            case,
            f"{(plain_registry if case.public else login_registry).host}/pull/{name}:1",
            tmp_path,
            login_registry.ca,
        )
        for name, case in cases.items()
    }
    assert ours == kubelet


def test_a_node_keeps_the_image_of_a_tag_that_was_pushed_again(node: RealNode, plain_registry: Registry) -> None:
    image, first = f"{plain_registry.host}/pull/again:1", busybox_image()
    push(plain_registry, "pull/again", "1", first)
    node.cluster.apply(_plain_pod("before", image, "IfNotPresent"))
    eventually(lambda: _pulled(node, "before") is True)
    shell = Member("bin/busybox", busybox(), mode=0o755)
    second = made_image([layer([shell, Member("etc/second", b"2")])], history=True)
    push(plain_registry, "pull/again", "1", second)
    node.cluster.apply(_plain_pod("keeps", image, "IfNotPresent"), _plain_pod("never", image, "Never"))
    eventually(lambda: all(_pulled(node, name) is True for name in ("keeps", "never")))
    node.cluster.apply(_plain_pod("pulls", image, "Always"))
    eventually(lambda: _pulled(node, "pulls") is True)
    held = {name: _image_id(node, name) for name in ("before", "keeps", "never", "pulls")}
    assert held["before"] == held["keeps"] == held["never"]
    assert held["before"].endswith(first.digest)
    assert held["pulls"].endswith(second.digest)


def _plain_pod(name: str, image: str, policy: str) -> dict[str, Any]:
    command = ["/bin/busybox", "true"]
    container = {"name": "main", "image": image, "imagePullPolicy": policy, "command": command}
    metadata = {"name": name, "namespace": TEAM}
    spec = {"restartPolicy": "Never", "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _image_id(node: RealNode, name: str) -> str:
    pod = node.cluster.read(f"/api/v1/namespaces/{TEAM}/pods/{name}")
    return str(pod["status"]["containerStatuses"][0]["imageID"])
