"""Images pulled as a node of the cluster does: mirrors, pull secrets and registry settings, with real registries."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .demo import KERNEL, RELEASE, demo_images
from .real.build import need_buildah
from .real.layout import Image
from .real.push import push
from .real.registry import Registry
from .runs import Run, module, run_preflight, secret, write_manifests
from .shapes import VERIFIED, Parts, refuted
from .test_credentials import helper
from .test_mirrors import IDMS, ITMS, mirror_set
from .workbench import build_module

# No server listens at this address.
DOWN = "127.0.0.1:1"
DENIED = refuted("image-access-denied")
BLOCKED = refuted("registry-blocked")


@dataclass(frozen=True)
class Place:
    """Two registries with different logins and CAs, a registry without a login, and an image to push to them."""

    mirror: Registry
    source: Registry
    plain: Registry
    parts: Parts
    made: Image

    @property
    def name(self) -> str:
        """The last part of the image's name, with its digest."""
        return f"kmod@{self.made.digest}"

    def push(self, registry: Registry, repository: str) -> None:
        """Push the image as repository/kmod:v1."""
        push(registry, f"{repository}/kmod", "v1", self.made)

    def login(self, *registries: Registry) -> str:
        """Return an auth.json with the logins for these registries."""
        pairs = {registry.host: f"{registry.user}:{registry.password}" for registry in registries}
        return json.dumps({"auths": {host: {"auth": _base64(pair)} for host, pair in pairs.items()}})

    def secret(self, name: str, *registries: Registry, namespace: str = "shapes") -> dict[str, Any]:
        """Return a Secret with the logins for these registries."""
        return secret(name, "dockerconfigjson", {".dockerconfigjson": _base64(self.login(*registries))}, namespace)

    def node(self, *registries: Registry) -> dict[str, Any]:
        """Return the pull secret of the nodes."""
        return self.secret("pull-secret", *registries, namespace="openshift-config")

    def trusted(self, folder: Path, *registries: Registry) -> str:
        """Return the option that trusts these registries."""
        bundle = folder / "bundle.pem"
        bundle.write_text("".join(registry.ca.read_text() for registry in registries if registry.ca))
        return f"--registry-ca={bundle}"


@pytest.fixture(scope="module")
def parts(kernels: tuple[str, str], kmods: Mapping[str, bytes]) -> Parts:
    """A real kmod for a real kernel."""
    old, new = kernels
    return Parts(new, old, kmods[new], kmods[old])


@pytest.fixture(scope="module")
def place(login_registry: Registry, token_registry: Registry, plain_registry: Registry, parts: Parts) -> Place:
    """The registries, with the image pushed to copy/kmod of the mirror."""
    place = Place(login_registry, token_registry, plain_registry, parts, parts.image(parts.good))
    place.push(place.mirror, "copy")
    return place


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _run(place: Place, tmp_path: Path, manifests: list[dict[str, Any]], *options: str, env: Any = None) -> Run:
    folder = write_manifests(tmp_path / "manifests", manifests)
    if not any(option.startswith("--registry-ca") for option in options):
        options = (*options, place.trusted(tmp_path, place.mirror, place.source))
    options = tuple(option for option in options if option != "--registry-ca=")
    return run_preflight(tmp_path, f"--kernel={place.parts.kernel}", f"--manifests={folder}", "-n0", *options, env=env)


def _reasons(run: Run) -> dict[str, str]:
    return {module["name"]: module["reason"] for module in run.document["modules"]}


def test_mirrors(tmp_path: Path, place: Place) -> None:
    mirror, source, plain = place.mirror, place.source, place.plain
    for repository in ("fallback", "tagless", "preferred"):
        place.push(plain, repository)
    place.push(source, "never")
    copy = f"{mirror.host}/copy"
    sets = [
        mirror_set(IDMS, (f"{DOWN}/team", [copy]), name="down"),
        mirror_set(IDMS, (f"{source.host}/never", [copy]), name="never", never=True),
        mirror_set(ITMS, (f"{DOWN}/tags", [copy]), (f"{plain.host}/tagless", [f"{mirror.host}/tagless"]), name="tags"),
        mirror_set(
            IDMS,
            (f"{plain.host}/fallback", [f"{mirror.host}/empty", f"{DOWN}/empty"]),
            (f"{plain.host}/nothing", [f"{mirror.host}/empty", f"{plain.host}/empty"]),
            (f"{plain.host}/unsure", [f"{DOWN}/empty", f"{mirror.host}/empty"]),
            name="sources",
        ),
        mirror_set(IDMS, (f"{plain.host}/gone", [f"{mirror.host}/empty"]), name="gone", never=True),
    ]
    modules = {
        "idms": (f"{DOWN}/team/{place.name}", VERIFIED),
        "never": (f"{source.host}/never/{place.name}", VERIFIED),
        "never-by-tag": (f"{source.host}/never/kmod:v1", BLOCKED),
        "itms": (f"{DOWN}/tags/kmod:v1", VERIFIED),
        "itms-by-digest": (f"{plain.host}/tagless/{place.name}", VERIFIED),
        "idms-by-tag": (f"{DOWN}/team/kmod:v1", ("undecided", "registry-unreachable")),
        "fallback": (f"{plain.host}/fallback/{place.name}", VERIFIED),
        "nothing": (f"{plain.host}/nothing/{place.name}", refuted("image-not-found")),
        "unsure": (f"{plain.host}/unsure/{place.name}", ("undecided", "registry-unreachable")),
        "gone": (f"{plain.host}/gone/{place.name}", refuted("image-not-found")),
    }
    source.forget()
    mirror.forget()
    manifests = [module(name, image) for name, (image, _) in modules.items()]
    run = _run(place, tmp_path, [*manifests, *sets, place.node(mirror)])
    assert run.verdicts() == {name: want for name, (_, want) in modules.items()}, run.output
    assert source.requests() == []
    # A request to /v2/ itself has no repository.
    assert {request.path.split("/")[2] for request in mirror.requests()} == {"", "copy", "empty"}
    through, reasons = f", read from its mirror {copy}/", _reasons(run)
    assert {name for name, reason in reasons.items() if through in reason} == {"idms", "never", "itms"}
    assert f"{copy}/{place.name}" in reasons["idms"]
    sentences, missing = run.sentences(), "got 404, the registry does not have it"
    assert sentences["nothing"] == (
        f"image {plain.host}/nothing/{place.name}: {missing}; its mirrors failed too: "
        f"image {mirror.host}/empty/{place.name}: {missing}; image {plain.host}/empty/{place.name}: {missing}"
    )
    unsure = sentences["unsure"].split("; ")
    assert unsure[0] == f"image {plain.host}/unsure/{place.name}: {missing}"
    assert unsure[1].startswith(f"its mirrors failed too: image {DOWN}/empty/{place.name}: no answer from {DOWN} (")
    assert unsure[2] == f"image {mirror.host}/empty/{place.name}: {missing}"
    assert sentences["gone"] == (
        f"image {mirror.host}/empty/{place.name}: {missing}; nodes never contact {plain.host}/gone/kmod itself "
        "(NeverContactSource)"
    )
    assert "no mirror serves tags" in sentences["never-by-tag"]


FITS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # The registry whose login is in the Module's own Secret, the one in the nodes' pull secret, and the verdict.
    "own fits the mirror only": ("mirror", "", DENIED),
    "own fits the mirror, the node's the source": ("mirror", "source", VERIFIED),
    "own fits the source, which has the image": ("source", "", VERIFIED),
    "the node's fits the mirror": ("", "mirror", VERIFIED),
    "own is useless, the node's fits the mirror": ("source", "mirror", VERIFIED),
    "nobody's fits": ("", "", DENIED),
}


@pytest.mark.parametrize("case", FITS)
def test_own_secret_is_not_used_for_a_mirror_on_another_host(tmp_path: Path, place: Place, case: str) -> None:
    own, node, want = FITS[case]
    place.push(place.source, "fits")
    registries = {"mirror": [place.mirror], "source": [place.source], "": []}
    manifests = [
        module("fits", f"{place.source.host}/fits/{place.name}", imageRepoSecret="own"),
        place.secret("own", *registries[own]),
        place.node(*registries[node]),
        mirror_set(IDMS, (f"{place.source.host}/fits", [f"{place.mirror.host}/copy"])),
    ]
    run = _run(place, tmp_path, manifests)
    assert run.verdicts() == {"fits": want}, run.output
    if want == DENIED:
        sentence = run.sentences()["fits"]
        assert f"image {place.source.host}/fits/" in sentence
        assert f"its mirrors failed too: image {place.mirror.host}/copy/" in sentence
        assert sentence.endswith("(with imageRepoSecret shapes/own, then pull secret openshift-config/pull-secret)")


def test_authfile_replaces_the_pull_secret_of_nodes_for_mirrors(tmp_path: Path, place: Place) -> None:
    manifests = [
        module("own", f"{place.source.host}/absent/{place.name}", imageRepoSecret="own"),
        place.secret("own", place.source),
        mirror_set(IDMS, (f"{place.source.host}/absent", [f"{place.mirror.host}/copy"])),
    ]
    right, wrong = tmp_path / "right.json", tmp_path / "wrong.json"
    right.write_text(place.login(place.mirror))
    place.mirror.authfile(wrong, "wrong")
    run = _run(place, tmp_path, manifests, f"--authfile={right}")
    assert run.verdicts() == {"own": VERIFIED}, run.output
    run = _run(place, tmp_path, manifests, f"--authfile={wrong}")
    assert run.verdicts() == {"own": ("undecided", "image-access-undecided")}, run.output


def test_pull_secrets_of_the_account(tmp_path: Path, place: Place) -> None:
    name = f"{place.source.host}/account/{place.name}"
    place.push(place.source, "account")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "shapes", "name": "default"}}
    pulls: dict[str, Any] = {**account, "imagePullSecrets": [{"name": "other"}, {"name": "pull"}]}
    secrets = [place.secret("other", place.mirror), place.secret("pull", place.source), place.secret("bare")]
    manifests = [module("plain", name), module("own", name, imageRepoSecret="bare"), pulls, *secrets]
    run = _run(place, tmp_path, manifests)
    assert run.verdicts() == {"plain": VERIFIED, "own": DENIED}, run.output


def test_credentials_are_tried_in_order(tmp_path: Path, place: Place) -> None:
    for registry in (place.source, place.mirror):
        place.push(registry, "union")
    wrong = {reg.host: {"auth": _base64(f"{reg.user}:wrong")} for reg in (place.source, place.mirror)}
    own = secret("own", "dockerconfigjson", {".dockerconfigjson": _base64(json.dumps({"auths": wrong}))})
    manifests = [
        module("token", f"{place.source.host}/union/kmod:v1", imageRepoSecret="own"),
        module("basic", f"{place.mirror.host}/union/kmod:v1", imageRepoSecret="own"),
        own,
    ]
    assert _run(place, tmp_path, manifests).verdicts() == {"token": DENIED, "basic": DENIED}
    run = _run(place, tmp_path, [*manifests, place.node(place.source, place.mirror)])
    assert run.verdicts() == {"token": VERIFIED, "basic": VERIFIED}, run.output


@pytest.mark.parametrize("variable", [False, True])
def test_credential_helper_in_an_authfile(tmp_path: Path, place: Place, variable: bool) -> None:
    place.push(place.source, "helped")
    answer = json.dumps({"Username": place.source.user, "Secret": place.source.password})
    (tmp_path / "answer").write_text(answer)
    helper(tmp_path / "bin", "test", [f'[ "$(cat)" = {place.source.host} ] && cat {tmp_path / "answer"}'])
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"credHelpers": {place.source.host: "test"}}))
    env = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    options = [] if variable else [f"--authfile={authfile}"]
    env |= {"REGISTRY_AUTH_FILE": str(authfile)} if variable else {}
    image = f"{place.source.host}/helped/kmod:v1"
    run = _run(place, tmp_path, [module("helped", image)], *options, env=env)
    assert run.verdicts() == {"helped": VERIFIED}, run.output
    assert place.source.password not in run.output + json.dumps(run.document)


def _config(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "cluster"}
    return {"apiVersion": "config.openshift.io/v1", "kind": "Image", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    ("sources", "want"),
    [
        ({"blockedRegistries": ["{source}/settings"]}, {"source": BLOCKED, "mirror": VERIFIED}),
        ({"allowedRegistries": ["{source}"]}, {"source": VERIFIED, "mirror": BLOCKED}),
        ({"blockedRegistries": ["{mirror}"]}, {"source": DENIED, "mirror": BLOCKED}),
        ({}, {"source": VERIFIED, "mirror": VERIFIED}),
    ],
    ids=["blocked by its own name", "allowed by its own name", "blocked mirror", "nothing set"],
)
def test_blocked_and_allowed_registries(
    tmp_path: Path, place: Place, sources: dict[str, list[str]], want: dict[str, tuple[str, ...]]
) -> None:
    hosts = {"mirror": place.mirror.host, "source": place.source.host}
    given = {key: [scope.format(**hosts) for scope in scopes] for key, scopes in sources.items()}
    manifests = [
        module("source", f"{place.source.host}/settings/{place.name}"),
        module("mirror", f"{place.mirror.host}/copy/{place.name}"),
        mirror_set(IDMS, (f"{place.source.host}/settings", [f"{place.mirror.host}/copy"])),
        place.node(place.mirror),
        _config(registrySources=given),
    ]
    place.source.forget()
    run = _run(place, tmp_path, manifests)
    assert run.verdicts() == want, run.output
    if want["source"] == BLOCKED:
        assert place.source.requests() == []
        assert "in blockedRegistries of image.config.openshift.io/cluster" in run.sentences()["source"]


def test_authority_of_a_config_map_is_for_its_host_only(tmp_path: Path, place: Place) -> None:
    place.push(place.source, "trust")
    assert place.mirror.ca
    manifests = [
        module("named", f"{place.mirror.host}/copy/{place.name}"),
        module("other", f"{place.source.host}/trust/{place.name}"),
        module("mirrored", f"{DOWN}/trust/{place.name}"),
        mirror_set(IDMS, (f"{DOWN}/trust", [f"{place.mirror.host}/copy"])),
        place.node(place.mirror, place.source),
    ]
    untrusted = ("undecided", "registry-untrusted")
    run = _run(place, tmp_path, manifests, "--registry-ca=")
    unreachable = ("undecided", "registry-unreachable")
    assert run.verdicts() == {"named": untrusted, "other": untrusted, "mirrored": unreachable}, run.output
    assert f"the certificate of {place.mirror.host} is not trusted" in run.sentences()["mirrored"]
    key = place.mirror.host.replace(":", "..")
    authorities = {
        "data": {key: place.mirror.ca.read_text()},
        "metadata": {"name": "cas", "namespace": "openshift-config"},
    }
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", **authorities}
    trusting = [*manifests, config_map, _config(additionalTrustedCA={"name": "cas"})]
    run = _run(place, tmp_path, trusting, "--registry-ca=")
    assert run.verdicts() == {"named": VERIFIED, "other": untrusted, "mirrored": VERIFIED}, run.output
    insecure = [*trusting, _config(registrySources={"insecureRegistries": [f"{place.source.host}/trust"]})]
    run = _run(place, tmp_path, insecure, "--registry-ca=")
    assert run.verdicts()["other"] == VERIFIED, run.output


def test_release_and_toolkit_through_mirrors(tmp_path: Path, place: Place) -> None:
    images = demo_images()
    for name, made in images.items():
        if name.startswith("quay.io/openshift-release-dev/"):
            repository = name.removeprefix("quay.io/openshift-release-dev/").partition("@")[0].partition(":")[0]
            push(place.mirror, f"openshift/{repository}", "any", made)
    release = images[RELEASE].digest
    push(place.plain, "kmods/hello", KERNEL, place.parts.image(place.parts.good))
    mirrors = mirror_set(IDMS, ("quay.io/openshift-release-dev", [f"{place.mirror.host}/openshift"]), never=True)
    manifests = write_manifests(
        tmp_path / "release",
        [module("hello", f"{place.plain.host}/kmods/hello:{KERNEL}"), mirrors, place.node(place.mirror)],
    )
    trust = place.trusted(tmp_path, place.mirror)
    option = f"--release-image={RELEASE.partition(':')[0]}@{release}"
    run = run_preflight(tmp_path, option, f"--manifests={manifests}", trust, "-n0")
    assert run.document["release"]["digest"] == release, run.output
    assert [kernel["version"] for kernel in run.document["kernels"]] == [KERNEL]
    by_tag = run_preflight(tmp_path, f"--release-image={RELEASE}", f"--manifests={manifests}", trust, "-n0")
    assert by_tag.returncode == 4
    assert "no mirror serves tags" in by_tag.stderr


def test_a_kubelet_reads_a_secret_by_its_type(tmp_path: Path, place: Place) -> None:
    place.push(place.source, "typed")
    name = f"{place.source.host}/typed/{place.name}"
    good = place.secret("typed", place.source)
    untyped = {key: value for key, value in place.secret("untyped", place.source).items() if key != "type"}
    manifests = [
        module("typed", name, imageRepoSecret="typed"),
        module("opaque", name, imageRepoSecret="opaque"),
        module("untyped", name, imageRepoSecret="untyped"),
        module("public", f"{place.plain.host}/typed/{place.name}", imageRepoSecret="opaque"),
        good,
        {**place.secret("opaque", place.source), "type": "Opaque"},
        untyped,
    ]
    place.push(place.plain, "typed")
    run = _run(place, tmp_path, manifests)
    unused = (*DENIED, "pull-secret-unused")
    public = ("verified", "pull-secret-unused")
    assert run.verdicts() == {"typed": VERIFIED, "opaque": unused, "untyped": unused, "public": public}, run.output
    assert "its type is Opaque" in run.sentences()["opaque"]
    run = _run(place, tmp_path, [*manifests, place.node(place.source)])
    assert run.verdicts() == {"typed": VERIFIED, "opaque": public, "untyped": public, "public": public}, run.output


def test_the_account_that_the_module_names_pulls(tmp_path: Path, place: Place) -> None:
    place.push(place.source, "named")
    image = f"{place.source.host}/named/{place.name}"
    named, operated = module("named", image), module("operated", image, namespace="openshift-kmm")
    named["spec"]["moduleLoader"]["serviceAccountName"] = "mine"

    def account(namespace: str, name: str, secret: str) -> dict[str, Any]:
        metadata = {"namespace": namespace, "name": name}
        pulls = [{"name": secret}]
        return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "imagePullSecrets": pulls}

    right, wrong = place.secret("right", place.source), place.secret("wrong", place.mirror)
    there = [{**one, "metadata": {**one["metadata"], "namespace": "openshift-kmm"}} for one in (right, wrong)]
    secrets = [right, wrong, *({**one, "metadata": {**one["metadata"]}} for one in there)]
    for mine, default, want in (("right", "wrong", VERIFIED), ("wrong", "right", DENIED)):
        accounts = [
            account("shapes", "mine", mine),
            account("shapes", "default", default),
            account("openshift-kmm", "kmm-operator-module-loader", mine),
            account("openshift-kmm", "default", default),
        ]
        folder = tmp_path / mine
        folder.mkdir()
        (folder / "all.json").write_text(
            json.dumps({"apiVersion": "v1", "kind": "List", "items": [named, operated, *accounts, *secrets]})
        )
        trust = place.trusted(tmp_path, place.mirror, place.source)
        run = run_preflight(tmp_path, f"--kernel={place.parts.kernel}", f"--manifests={folder}", trust)
        assert run.verdicts() == {"named": want, "operated": want}, run.output


def test_registry_tls_of_a_module_is_for_kmm_s_own_client(tmp_path: Path, place: Place) -> None:
    place.push(place.source, "tls")
    image = f"{place.source.host}/tls/{place.name}"
    manifests = [
        module("skips", image, registryTLS={"insecureSkipTLSVerify": True}),
        place.node(place.source),
    ]
    run = _run(place, tmp_path, manifests, "--registry-ca=")
    assert run.verdicts() == {"skips": ("undecided", "registry-tls-open")}, run.output
    run = _run(place, tmp_path, [*manifests, _config()], "--registry-ca=")
    assert run.verdicts() == {"skips": refuted("registry-tls-ignored")}, run.output
    run = _run(place, tmp_path, [*manifests, _config()], "--registry-ca=", "--kmm-version=2.1")
    assert run.verdicts() == {"skips": VERIFIED}, run.output
    allowed = _config(registrySources={"insecureRegistries": [place.source.host]})
    assert _run(place, tmp_path, [*manifests, allowed], "--registry-ca=").verdicts() == {"skips": VERIFIED}
    assert _run(place, tmp_path, manifests).verdicts() == {"skips": VERIFIED}


def test_a_name_inside_the_cluster_says_how_to_reach_it(tmp_path: Path, place: Place) -> None:
    image = "image-registry.openshift-image-registry.svc:5000/team/kmod:v1"
    run = _run(place, tmp_path, [module("inside", image), place.node()])
    assert run.verdicts() == {"inside": ("undecided", "registry-internal")}, run.output
    remedy = run.document["modules"][0]["findings"][0]["remedy"]
    assert "Pod of the cluster" in remedy
    assert "default-route" in remedy
    place.push(place.plain, "team")
    route = mirror_set(ITMS, (image.partition("/")[0], [place.plain.host]))
    assert _run(place, tmp_path, [module("inside", image), route]).verdicts() == {"inside": VERIFIED}


def test_a_base_image_is_undecided_without_the_login_of_builds(tmp_path: Path, place: Place) -> None:
    need_buildah()
    dockerfile = f"FROM {place.source.host}/private/base:1\n"
    manifests = build_module("private", f"{place.plain.host}/private/missing:1", dockerfile)
    run = _run(place, tmp_path, manifests)
    assert run.verdicts()["private"][:1] == ("undecided",), run.output
    assert "image-login-unknown" in run.verdicts()["private"]
    run = _run(place, tmp_path, [*manifests, place.node(place.mirror)])
    assert run.verdicts()["private"] == ("refuted", "image-not-found", "base-image-denied"), run.output
